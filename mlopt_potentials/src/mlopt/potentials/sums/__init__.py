"""Sums over neighbours: pairs, and the common base of short-range potentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.potentials.sums.local import LocalPotential
    from mlopt.potentials.sums.pair import CutPairPotential, PairPotential

__all__ = [
    "CutPairPotential",
    "LocalPotential",
    "PairPotential",
]

__getattr__ = names_of(
    __name__,
    {
        "local": ("LocalPotential",),
        "pair": ("CutPairPotential", "PairPotential"),
    },
)
