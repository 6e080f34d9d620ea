"""Batched, differentiable potentials: ``systems -> energy per system``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.potentials.ase_potential import AsePotential
    from mlopt.potentials.calculator import MloptCalculator
    from mlopt.potentials.gupta import Gupta, GuptaPair
    from mlopt.potentials.lennard_jones import LennardJones
    from mlopt.potentials.morse import Morse
    from mlopt.potentials.pair import CutPairPotential, PairPotential
    from mlopt.potentials.soft_sphere import SoftSphere
    from mlopt.potentials.stillinger_weber import StillingerWeber
    from mlopt.potentials.sum import SumPotential

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

__getattr__ = names_of(
    __name__,
    {
        "ase_potential": ("AsePotential",),
        "calculator": ("MloptCalculator",),
        "gupta": ("Gupta", "GuptaPair"),
        "lennard_jones": ("LennardJones",),
        "morse": ("Morse",),
        "pair": ("CutPairPotential", "PairPotential"),
        "soft_sphere": ("SoftSphere",),
        "stillinger_weber": ("StillingerWeber",),
        "sum": ("SumPotential",),
    },
)
