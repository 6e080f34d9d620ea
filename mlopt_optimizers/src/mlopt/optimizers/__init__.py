"""Optimizers, searches, moves and starts of mlopt, and the experiment `Search`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.adam import Adam
    from mlopt.optimizers.annealing import SimulatedAnnealing
    from mlopt.optimizers.basin_hopping import BasinHopping
    from mlopt.optimizers.cluster_moves import Surface, Symmetrise, Twist
    from mlopt.optimizers.fire import Fire
    from mlopt.optimizers.gradient_descent import GradientDescent
    from mlopt.optimizers.hopping import Hopping
    from mlopt.optimizers.lbfgs import LBFGS
    from mlopt.optimizers.minima_hopping import MinimaHopping
    from mlopt.optimizers.moves import Angular, Displacement, Exchange
    from mlopt.optimizers.polish import Polish
    from mlopt.optimizers.restarts import RandomRestarts
    from mlopt.optimizers.scipy_search import ScipyBasinHopping, ScipyDualAnnealing
    from mlopt.optimizers.search import Budget, MinimaSettings, Search, Target
    from mlopt.optimizers.starts import BoxStart, GivenStart, HarmonicStart, SphereStart
    from mlopt.optimizers.velocity_projection import VelocityProjection

__all__ = [
    "LBFGS",
    "Adam",
    "Angular",
    "BasinHopping",
    "BoxStart",
    "Budget",
    "Displacement",
    "Exchange",
    "Fire",
    "GivenStart",
    "GradientDescent",
    "HarmonicStart",
    "Hopping",
    "MinimaHopping",
    "MinimaSettings",
    "Polish",
    "RandomRestarts",
    "ScipyBasinHopping",
    "ScipyDualAnnealing",
    "Search",
    "SimulatedAnnealing",
    "SphereStart",
    "Surface",
    "Symmetrise",
    "Target",
    "Twist",
    "VelocityProjection",
]

__getattr__ = names_of(
    __name__,
    {
        "adam": ("Adam",),
        "annealing": ("SimulatedAnnealing",),
        "basin_hopping": ("BasinHopping",),
        "cluster_moves": ("Surface", "Symmetrise", "Twist"),
        "fire": ("Fire",),
        "gradient_descent": ("GradientDescent",),
        "hopping": ("Hopping",),
        "lbfgs": ("LBFGS",),
        "minima_hopping": ("MinimaHopping",),
        "moves": ("Angular", "Displacement", "Exchange"),
        "polish": ("Polish",),
        "restarts": ("RandomRestarts",),
        "scipy_search": ("ScipyBasinHopping", "ScipyDualAnnealing"),
        "search": ("Budget", "MinimaSettings", "Search", "Target"),
        "starts": ("BoxStart", "GivenStart", "HarmonicStart", "SphereStart"),
        "velocity_projection": ("VelocityProjection",),
    },
)
