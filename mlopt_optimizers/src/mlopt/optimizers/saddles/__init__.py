"""Saddles: minimum-mode following, lowest modes, the minima beside a saddle, and rates over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.saddles.min_mode import Dimer
    from mlopt.optimizers.saddles.modes import lowest_modes
    from mlopt.optimizers.saddles.rates import spin_rate

__all__ = [
    "Dimer",
    "lowest_modes",
    "spin_rate",
]

__getattr__ = names_of(
    __name__,
    {
        "min_mode": ("Dimer",),
        "modes": ("lowest_modes",),
        "rates": ("spin_rate",),
    },
)
