"""Experiments: the kinds of run that a configuration can ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.experiments.contest.experiment import Contest
    from mlopt.optimizers.experiments.fit.experiment import Fit
    from mlopt.optimizers.experiments.md.experiment import MolecularDynamics
    from mlopt.optimizers.experiments.meta_train.experiment import MetaTrain
    from mlopt.optimizers.experiments.network.experiment import Network
    from mlopt.optimizers.experiments.path.experiment import Path
    from mlopt.optimizers.experiments.search.experiment import Search

__all__ = [
    "Contest",
    "Fit",
    "MetaTrain",
    "MolecularDynamics",
    "Network",
    "Path",
    "Search",
]

__getattr__ = names_of(
    __name__,
    {
        "contest.experiment": ("Contest",),
        "fit.experiment": ("Fit",),
        "md.experiment": ("MolecularDynamics",),
        "meta_train.experiment": ("MetaTrain",),
        "network.experiment": ("Network",),
        "path.experiment": ("Path",),
        "search.experiment": ("Search",),
    },
)
