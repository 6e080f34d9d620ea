"""Minima: records, the store that keeps them, and the comparison of structures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.minima.alignment import align, nearest_order
    from mlopt.core.minima.matching import alignments, match, same_structure
    from mlopt.core.minima.minimum import Minimum
    from mlopt.core.minima.store import MinimaStore
    from mlopt.core.minima.symmetry import point_group
    from mlopt.core.minima.verification import Check, Reading, check_records

__all__ = [
    "Check",
    "MinimaStore",
    "Minimum",
    "Reading",
    "align",
    "alignments",
    "check_records",
    "match",
    "nearest_order",
    "point_group",
    "same_structure",
]

__getattr__ = names_of(
    __name__,
    {
        "alignment": ("align", "nearest_order"),
        "matching": ("alignments", "match", "same_structure"),
        "minimum": ("Minimum",),
        "store": ("MinimaStore",),
        "symmetry": ("point_group",),
        "verification": ("Check", "Reading", "check_records"),
    },
)
