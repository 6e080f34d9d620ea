"""Landscapes: points, their geometry, and the energies and forces there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.landscapes.evaluation import Evaluation
    from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape, Landscape
    from mlopt.core.landscapes.manifold import Flat, Manifold, UnitSphere
    from mlopt.core.landscapes.potential import Potential

__all__ = [
    "AtomsLandscape",
    "Evaluation",
    "Flat",
    "FunctionLandscape",
    "Landscape",
    "Manifold",
    "Potential",
    "UnitSphere",
]

__getattr__ = names_of(
    __name__,
    {
        "evaluation": ("Evaluation",),
        "landscape": ("AtomsLandscape", "FunctionLandscape", "Landscape"),
        "manifold": ("Flat", "Manifold", "UnitSphere"),
        "potential": ("Potential",),
    },
)
