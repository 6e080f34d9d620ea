"""Models of paths: atoms under a potential, and surfaces of two coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.potentials.models.atoms import AtomsModel
    from mlopt.potentials.models.formulas import muller_brown
    from mlopt.potentials.models.surfaces import Leps, LepsHarmonic, MullerBrown

__all__ = [
    "AtomsModel",
    "Leps",
    "LepsHarmonic",
    "MullerBrown",
    "muller_brown",
]

__getattr__ = names_of(
    __name__,
    {
        "atoms": ("AtomsModel",),
        "formulas": ("muller_brown",),
        "surfaces": ("Leps", "LepsHarmonic", "MullerBrown"),
    },
)
