"""The experiment `md`: molecular dynamics of many walkers, their trajectories, temperatures and energies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.experiments.md.experiment import MolecularDynamics
    from mlopt.optimizers.experiments.md.result import MdResult

__all__ = ["MdResult", "MolecularDynamics"]

__getattr__ = names_of(__name__, {"experiment": ("MolecularDynamics",), "result": ("MdResult",)})
