"""Optimizers, searches, moves and starts of mlopt, and the kinds of run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.bands.band import Band
    from mlopt.optimizers.dynamics.bussi import Bussi
    from mlopt.optimizers.dynamics.langevin import Langevin
    from mlopt.optimizers.dynamics.nose_hoover import NoseHoover
    from mlopt.optimizers.dynamics.velocity_verlet import VelocityVerlet
    from mlopt.optimizers.experiments.contest.experiment import Contest
    from mlopt.optimizers.experiments.fit.experiment import Fit
    from mlopt.optimizers.experiments.md.experiment import MolecularDynamics
    from mlopt.optimizers.experiments.meta_train.experiment import MetaTrain
    from mlopt.optimizers.experiments.network.experiment import Network
    from mlopt.optimizers.experiments.path.experiment import Path
    from mlopt.optimizers.experiments.search.experiment import Search
    from mlopt.optimizers.experiments.search.polish import Polish
    from mlopt.optimizers.fitting.in_one_call import fit
    from mlopt.optimizers.fitting.training import Stage, Training
    from mlopt.optimizers.learned.hop.optimizer import LearnedHopping
    from mlopt.optimizers.learned.step.optimizer import Learned
    from mlopt.optimizers.local.adam import Adam
    from mlopt.optimizers.local.bfgs import BFGS
    from mlopt.optimizers.local.conjugate_gradients import ConjugateGradients
    from mlopt.optimizers.local.fire import Fire
    from mlopt.optimizers.local.gradient_descent import GradientDescent
    from mlopt.optimizers.local.lbfgs import LBFGS
    from mlopt.optimizers.local.velocity_projection import VelocityProjection
    from mlopt.optimizers.moves.basic import Angular, Displacement, Exchange, Restart
    from mlopt.optimizers.moves.cluster import Surface, Symmetrise, Twist
    from mlopt.optimizers.saddles.min_mode import Dimer
    from mlopt.optimizers.searches.annealing import SimulatedAnnealing
    from mlopt.optimizers.searches.basin_hopping import BasinHopping
    from mlopt.optimizers.searches.hopping import Hopping
    from mlopt.optimizers.searches.minima_hopping import MinimaHopping
    from mlopt.optimizers.searches.restarts import RandomRestarts
    from mlopt.optimizers.searches.scipy_search import ScipyBasinHopping, ScipyDualAnnealing
    from mlopt.optimizers.searches.settings import Budget, MinimaSettings, Target
    from mlopt.optimizers.starts.starts import BoxStart, GivenStart, HarmonicStart, SphereStart

__all__ = [
    "BFGS",
    "LBFGS",
    "Adam",
    "Angular",
    "Band",
    "BasinHopping",
    "BoxStart",
    "Budget",
    "Bussi",
    "ConjugateGradients",
    "Contest",
    "Dimer",
    "Displacement",
    "Exchange",
    "Fire",
    "Fit",
    "GivenStart",
    "GradientDescent",
    "HarmonicStart",
    "Hopping",
    "Langevin",
    "Learned",
    "LearnedHopping",
    "MetaTrain",
    "MinimaHopping",
    "MinimaSettings",
    "MolecularDynamics",
    "Network",
    "NoseHoover",
    "Path",
    "Polish",
    "RandomRestarts",
    "Restart",
    "ScipyBasinHopping",
    "ScipyDualAnnealing",
    "Search",
    "SimulatedAnnealing",
    "SphereStart",
    "Stage",
    "Surface",
    "Symmetrise",
    "Target",
    "Training",
    "Twist",
    "VelocityProjection",
    "VelocityVerlet",
    "fit",
]

__getattr__ = names_of(
    __name__,
    {
        "bands.band": ("Band",),
        "dynamics.bussi": ("Bussi",),
        "dynamics.langevin": ("Langevin",),
        "dynamics.nose_hoover": ("NoseHoover",),
        "dynamics.velocity_verlet": ("VelocityVerlet",),
        "experiments.contest.experiment": ("Contest",),
        "experiments.fit.experiment": ("Fit",),
        "experiments.md.experiment": ("MolecularDynamics",),
        "experiments.meta_train.experiment": ("MetaTrain",),
        "experiments.network.experiment": ("Network",),
        "experiments.path.experiment": ("Path",),
        "experiments.search.experiment": ("Search",),
        "experiments.search.polish": ("Polish",),
        "searches.settings": ("Budget", "MinimaSettings", "Target"),
        "fitting.in_one_call": ("fit",),
        "fitting.training": ("Stage", "Training"),
        "learned.hop.optimizer": ("LearnedHopping",),
        "learned.step.optimizer": ("Learned",),
        "local.adam": ("Adam",),
        "local.bfgs": ("BFGS",),
        "local.conjugate_gradients": ("ConjugateGradients",),
        "local.fire": ("Fire",),
        "local.gradient_descent": ("GradientDescent",),
        "local.lbfgs": ("LBFGS",),
        "local.velocity_projection": ("VelocityProjection",),
        "moves.basic": ("Angular", "Displacement", "Exchange", "Restart"),
        "moves.cluster": ("Surface", "Symmetrise", "Twist"),
        "saddles.min_mode": ("Dimer",),
        "searches.annealing": ("SimulatedAnnealing",),
        "searches.basin_hopping": ("BasinHopping",),
        "searches.hopping": ("Hopping",),
        "searches.minima_hopping": ("MinimaHopping",),
        "searches.restarts": ("RandomRestarts",),
        "searches.scipy_search": ("ScipyBasinHopping", "ScipyDualAnnealing"),
        "starts.starts": ("BoxStart", "GivenStart", "HarmonicStart", "SphereStart"),
    },
)
