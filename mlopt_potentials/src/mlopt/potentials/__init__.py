"""Batched, differentiable potentials: ``systems -> energy per system``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.potentials.ase.calculator import MloptCalculator
    from mlopt.potentials.ase.potential import AsePotential
    from mlopt.potentials.classical.gupta import Gupta, GuptaPair
    from mlopt.potentials.classical.lennard_jones import LennardJones
    from mlopt.potentials.classical.morse import Morse
    from mlopt.potentials.classical.soft_sphere import SoftSphere
    from mlopt.potentials.classical.stillinger_weber import StillingerWeber
    from mlopt.potentials.classical.sum import SumPotential
    from mlopt.potentials.fitted.behler_parrinello.potential import BehlerParrinello
    from mlopt.potentials.fitted.committee import Committee
    from mlopt.potentials.fitted.message_passing.potential import SchNet
    from mlopt.potentials.fitted.mtp.potential import Mtp
    from mlopt.potentials.sums.pair import CutPairPotential, PairPotential

__all__ = [
    "AsePotential",
    "BehlerParrinello",
    "Committee",
    "CutPairPotential",
    "Gupta",
    "GuptaPair",
    "LennardJones",
    "MloptCalculator",
    "Morse",
    "Mtp",
    "PairPotential",
    "SchNet",
    "SoftSphere",
    "StillingerWeber",
    "SumPotential",
]

__getattr__ = names_of(
    __name__,
    {
        "ase.calculator": ("MloptCalculator",),
        "ase.potential": ("AsePotential",),
        "classical.gupta": ("Gupta", "GuptaPair"),
        "classical.lennard_jones": ("LennardJones",),
        "classical.morse": ("Morse",),
        "classical.soft_sphere": ("SoftSphere",),
        "classical.stillinger_weber": ("StillingerWeber",),
        "classical.sum": ("SumPotential",),
        "fitted.behler_parrinello.potential": ("BehlerParrinello",),
        "fitted.committee": ("Committee",),
        "fitted.message_passing.potential": ("SchNet",),
        "fitted.mtp.potential": ("Mtp",),
        "sums.pair": ("CutPairPotential", "PairPotential"),
    },
)
