"""ASE: its calculators as potentials, and potentials as its calculators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.potentials.ase.calculator import MloptCalculator
    from mlopt.potentials.ase.potential import AsePotential

__all__ = [
    "AsePotential",
    "MloptCalculator",
]

__getattr__ = names_of(
    __name__,
    {
        "calculator": ("MloptCalculator",),
        "potential": ("AsePotential",),
    },
)
