"""Batched, differentiable potentials: ``systems -> energy per system``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlopt.potentials.ase_potential import AsePotential
from mlopt.potentials.gupta import Gupta, GuptaPair
from mlopt.potentials.lennard_jones import LennardJones
from mlopt.potentials.morse import Morse
from mlopt.potentials.pair import CutPairPotential, PairPotential
from mlopt.potentials.soft_sphere import SoftSphere
from mlopt.potentials.stillinger_weber import StillingerWeber
from mlopt.potentials.sum import SumPotential

if TYPE_CHECKING:
    from mlopt.potentials.calculator import MloptCalculator

__all__ = [
    "AsePotential",
    "CutPairPotential",
    "Gupta",
    "GuptaPair",
    "LennardJones",
    "MloptCalculator",
    "Morse",
    "PairPotential",
    "SoftSphere",
    "StillingerWeber",
    "SumPotential",
]


def __getattr__(name: str) -> Any:
    if name == "MloptCalculator":  # a subclass of ASE's Calculator, and importing mlopt does not import ASE
        from mlopt.potentials.calculator import MloptCalculator

        return MloptCalculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
