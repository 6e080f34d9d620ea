"""Geometry of periodic space: lattices and shortest vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.geometry.lattice import complete, reciprocal, reduced_vectors
    from mlopt.core.geometry.minimum_image import MinimumImage, shortest_vectors

__all__ = [
    "MinimumImage",
    "complete",
    "reciprocal",
    "reduced_vectors",
    "shortest_vectors",
]

__getattr__ = names_of(
    __name__,
    {
        "lattice": ("complete", "reciprocal", "reduced_vectors"),
        "minimum_image": ("MinimumImage", "shortest_vectors"),
    },
)
