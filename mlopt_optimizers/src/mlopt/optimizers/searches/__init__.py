"""Searches, which go from minimum to minimum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.searches.annealing import SimulatedAnnealing
    from mlopt.optimizers.searches.basin_hopping import BasinHopping
    from mlopt.optimizers.searches.hopping import Hopping
    from mlopt.optimizers.searches.minima_hopping import MinimaHopping
    from mlopt.optimizers.searches.quenching import Quenching
    from mlopt.optimizers.searches.restarts import RandomRestarts
    from mlopt.optimizers.searches.scipy_search import ScipyBasinHopping, ScipyDualAnnealing
    from mlopt.optimizers.searches.settings import Budget, MinimaSettings, Target

__all__ = [
    "BasinHopping",
    "Budget",
    "Hopping",
    "MinimaHopping",
    "MinimaSettings",
    "Quenching",
    "RandomRestarts",
    "ScipyBasinHopping",
    "ScipyDualAnnealing",
    "SimulatedAnnealing",
    "Target",
]

__getattr__ = names_of(
    __name__,
    {
        "annealing": ("SimulatedAnnealing",),
        "basin_hopping": ("BasinHopping",),
        "hopping": ("Hopping",),
        "minima_hopping": ("MinimaHopping",),
        "quenching": ("Quenching",),
        "restarts": ("RandomRestarts",),
        "scipy_search": ("ScipyBasinHopping", "ScipyDualAnnealing"),
        "settings": ("Budget", "MinimaSettings", "Target"),
    },
)
