"""Optimizers, searches and starts of mlopt."""

from mlopt.optimizers.adam import Adam
from mlopt.optimizers.annealing import SimulatedAnnealing
from mlopt.optimizers.fire import Fire
from mlopt.optimizers.gradient_descent import GradientDescent
from mlopt.optimizers.minima_hopping import MinimaHopping
from mlopt.optimizers.scipy_search import ScipyBasinHopping, ScipyDualAnnealing
from mlopt.optimizers.starts import BoxStart, GivenStart, HarmonicStart, SphereStart

__all__ = [
    "Adam",
    "BoxStart",
    "Fire",
    "GivenStart",
    "GradientDescent",
    "HarmonicStart",
    "MinimaHopping",
    "ScipyBasinHopping",
    "ScipyDualAnnealing",
    "SimulatedAnnealing",
    "SphereStart",
]
