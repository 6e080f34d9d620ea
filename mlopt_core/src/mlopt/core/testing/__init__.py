"""Contracts as code: call these in the tests of a plugin of your own."""

from __future__ import annotations

from mlopt.core.testing.optimizer import check_optimizer
from mlopt.core.testing.potential import PotentialTolerance, check_imports_without_torch, check_potential

__all__ = ["PotentialTolerance", "check_imports_without_torch", "check_optimizer", "check_potential"]
