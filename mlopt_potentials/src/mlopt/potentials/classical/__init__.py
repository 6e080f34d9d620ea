"""Classical potentials in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.potentials.classical.gupta import Gupta, GuptaPair
    from mlopt.potentials.classical.lennard_jones import LennardJones
    from mlopt.potentials.classical.morse import Morse
    from mlopt.potentials.classical.soft_sphere import SoftSphere
    from mlopt.potentials.classical.stillinger_weber import StillingerWeber
    from mlopt.potentials.classical.sum import SumPotential

__all__ = [
    "Gupta",
    "GuptaPair",
    "LennardJones",
    "Morse",
    "SoftSphere",
    "StillingerWeber",
    "SumPotential",
]

__getattr__ = names_of(
    __name__,
    {
        "gupta": ("Gupta", "GuptaPair"),
        "lennard_jones": ("LennardJones",),
        "morse": ("Morse",),
        "soft_sphere": ("SoftSphere",),
        "stillinger_weber": ("StillingerWeber",),
        "sum": ("SumPotential",),
    },
)
