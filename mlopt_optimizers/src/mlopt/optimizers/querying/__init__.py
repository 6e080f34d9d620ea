"""Active learning: how far a potential extrapolates, and which structures are most worth labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.querying.active_set import ActiveSet
    from mlopt.optimizers.querying.committee import CommitteeDisagreement
    from mlopt.optimizers.querying.d_optimal import DOptimal
    from mlopt.optimizers.querying.disagreement import Disagreement
    from mlopt.optimizers.querying.error_reduction import ErrorReduction
    from mlopt.optimizers.querying.farthest_point import FarthestPoint
    from mlopt.optimizers.querying.grade import Grader, Grades
    from mlopt.optimizers.querying.maxvol import MaxVol
    from mlopt.optimizers.querying.model_change import ModelChange
    from mlopt.optimizers.querying.optimality import Optimality
    from mlopt.optimizers.querying.pool import Pool
    from mlopt.optimizers.querying.strategy import Greedy, Plan, Scored
    from mlopt.optimizers.querying.unscored import Passive, Random
    from mlopt.optimizers.querying.variance import Variance

__all__ = [
    "ActiveSet",
    "CommitteeDisagreement",
    "DOptimal",
    "Disagreement",
    "ErrorReduction",
    "FarthestPoint",
    "Grader",
    "Grades",
    "Greedy",
    "MaxVol",
    "ModelChange",
    "Optimality",
    "Passive",
    "Plan",
    "Pool",
    "Random",
    "Scored",
    "Variance",
]

__getattr__ = names_of(
    __name__,
    {
        "active_set": ("ActiveSet",),
        "committee": ("CommitteeDisagreement",),
        "d_optimal": ("DOptimal",),
        "disagreement": ("Disagreement",),
        "error_reduction": ("ErrorReduction",),
        "farthest_point": ("FarthestPoint",),
        "grade": (
            "Grader",
            "Grades",
        ),
        "maxvol": ("MaxVol",),
        "model_change": ("ModelChange",),
        "optimality": ("Optimality",),
        "pool": ("Pool",),
        "strategy": (
            "Greedy",
            "Plan",
            "Scored",
        ),
        "unscored": (
            "Passive",
            "Random",
        ),
        "variance": ("Variance",),
    },
)
