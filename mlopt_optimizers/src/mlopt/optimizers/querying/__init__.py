"""Active learning: how far a potential extrapolates, and which structures are most worth labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.querying.active_set import ActiveSet
    from mlopt.optimizers.querying.grade import Grader, Grades
    from mlopt.optimizers.querying.maxvol import MaxVol, maxvol

__all__ = ["ActiveSet", "Grader", "Grades", "MaxVol", "maxvol"]

__getattr__ = names_of(
    __name__,
    {
        "active_set": ("ActiveSet",),
        "grade": ("Grader", "Grades"),
        "maxvol": ("MaxVol", "maxvol"),
    },
)
