"""Every optimizer's row in the contract's table."""

from __future__ import annotations

from typing import Any

import pytest

from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.testing import check_optimizer
from mlopt.optimizers.dynamics.bussi import Bussi
from mlopt.optimizers.dynamics.langevin import Langevin
from mlopt.optimizers.dynamics.nose_hoover import NoseHoover
from mlopt.optimizers.dynamics.velocity_verlet import VelocityVerlet
from mlopt.optimizers.local.adam import Adam
from mlopt.optimizers.local.bfgs import BFGS
from mlopt.optimizers.local.conjugate_gradients import ConjugateGradients
from mlopt.optimizers.local.fire import Fire
from mlopt.optimizers.local.gradient_descent import GradientDescent
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.local.velocity_projection import VelocityProjection
from mlopt.optimizers.moves.basic import Displacement, Exchange
from mlopt.optimizers.searches.annealing import SimulatedAnnealing
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.optimizers.searches.minima_hopping import MinimaHopping
from mlopt.optimizers.searches.scipy_search import ScipyBasinHopping, ScipyDualAnnealing

FLAT = ("quadratic", "lennard-jones")
#: optimizers that have much in common with another one here: slow
SLOW = ("bussi", "velocity-projection", "scipy-dual-annealing")
#: what is called by a name, a comma and a setting, is a variant: slow
ROWS: dict[str, tuple[Optimizer, dict[str, Any]]] = {
    "gradient-descent": (GradientDescent(step_size=0.05), {"surfaces": ("quadratic", "spins")}),
    "gradient-descent, short steps": (
        GradientDescent(step_size=0.01, max_step=0.02),
        {"differentiable": "step_size"},
    ),
    "adam": (Adam(), {"differentiable": "step_size", "converges_within": 6000}),
    "fire": (Fire(), {"differentiable": "dt"}),
    "fire, 2.0": (Fire(variant="2.0"), {"differentiable": "dt"}),
    "fire, of ase": (Fire(variant="ase"), {"differentiable": "dt"}),
    "annealing": (SimulatedAnnealing(steps=60, calibration=10), {}),
    "annealing, given temperature": (SimulatedAnnealing(steps=30, start_temperature=0.5, adapt=False), {}),
    "velocity-projection": (VelocityProjection(), {"differentiable": "dt"}),
    "velocity-projection, no limit": (
        VelocityProjection(max_step=None),
        {"surfaces": ("quadratic", "spins")},
    ),
    "lbfgs": (LBFGS(), {"converges_within": 100}),
    "lbfgs, short memory": (LBFGS(memory=1, max_step=0.1, rise=0.0), {"converges_within": 600}),
    "lbfgs, no limit": (LBFGS(max_step=None), {"surfaces": ("quadratic", "spins"), "converges_within": 100}),
    "bfgs": (BFGS(), {"converges_within": 100}),
    "bfgs, no limit": (
        BFGS(max_step=None, scale=0.1, rise=0.0),
        {"surfaces": ("quadratic", "spins"), "converges_within": 100},
    ),
    "conjugate-gradients": (ConjugateGradients(), {"converges_within": 100}),
    "conjugate-gradients, no limit": (ConjugateGradients(max_step=None), {"converges_within": 200}),
    "basin-hopping, bfgs": (BasinHopping(quench=BFGS(), quench_calls=12), {"calls": 60}),
    "basin-hopping": (BasinHopping(), {}),
    "basin-hopping, adaptive": (
        BasinHopping(
            quench=Adam(),
            quench_calls=20,
            adapt_step=True,
            adapt_temperature=True,
            moves=[Displacement(probability=0.5), Exchange()],
        ),
        {},
    ),
    "minima-hopping": (MinimaHopping(dt=0.05), {}),
    "minima-hopping, fire": (MinimaHopping(quench=Fire(), dt=0.05), {}),
    "minima-hopping, softened": (MinimaHopping(quench=Fire(), softening=3, dt=0.05), {}),
    "velocity-verlet": (
        VelocityVerlet(time_step=0.02, initial_temperature=0.1),
        {"differentiable": "time_step"},
    ),
    "langevin": (Langevin(time_step=0.02, temperature=0.1, friction=0.5), {"differentiable": "friction"}),
    "bussi": (Bussi(time_step=0.02, temperature=0.1, relaxation_time=0.5), {}),
    "nose-hoover": (NoseHoover(time_step=0.02, temperature=0.1, relaxation_time=0.5), {}),
    "scipy-basinhopping": (ScipyBasinHopping(), {"surfaces": FLAT}),
    "scipy-dual-annealing": (ScipyDualAnnealing(), {"surfaces": FLAT}),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if "," in name or name in SLOW else name for name in ROWS],
)
def test_contract(name: str) -> None:
    optimizer, arguments = ROWS[name]
    check_optimizer(optimizer, **arguments)
