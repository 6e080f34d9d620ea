"""Contracts as code, to be called in the tests of a plugin."""

from __future__ import annotations

from mlopt.core.testing.experiment import check_experiment
from mlopt.core.testing.fittable import check_fittable
from mlopt.core.testing.labelling import check_labeller, check_query_strategy
from mlopt.core.testing.optimizer import check_optimizer
from mlopt.core.testing.potential import PotentialTolerance, check_potential

__all__ = [
    "PotentialTolerance",
    "check_experiment",
    "check_fittable",
    "check_labeller",
    "check_optimizer",
    "check_potential",
    "check_query_strategy",
]
