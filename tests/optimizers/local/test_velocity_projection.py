"""Velocity projection against its formula in numpy, and on spins."""

from __future__ import annotations

import numpy as np
import torch

from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import minimize
from mlopt.core.landscapes.landscape import FunctionLandscape
from mlopt.core.testing.surfaces import quadratic, spins
from mlopt.optimizers.local.velocity_projection import VelocityProjection


def test_steps_are_those_of_the_formula() -> None:
    landscape, x = quadratic([3, 2])
    optimizer = VelocityProjection(dt=0.4, max_step=None)  # long enough to overshoot
    curvature = np.array([1.0, 4.0, 9.0])
    places = [x[:3].numpy().copy(), x[3:].numpy().copy()]
    velocities = [np.zeros_like(one) for one in places]
    state = optimizer.init(landscape, x, problem_keys(0, torch.arange(2)))
    turned = 0
    for _ in range(30):
        x, state = optimizer.step(landscape, x, landscape.evaluate(x), state)
        for i in range(2):
            force = -curvature * places[i]
            power = (velocities[i] * force).sum()
            turned += bool(power < 0)
            velocities[i] = force * max(power, 0.0) / (force**2).sum() + 0.4 * force
            places[i] = places[i] + 0.4 * velocities[i]
        assert np.allclose(x.numpy(), np.concatenate(places), rtol=1e-10)
    assert turned > 3  # the velocity did point uphill at times


def test_one_projection_for_the_whole_problem() -> None:
    """A row that is at rest still loses its velocity when the problem as a whole goes uphill."""
    landscape = FunctionLandscape(
        lambda x, segments: segments.sum(0.5 * x * x * torch.tensor([[1.0], [100.0]])), Segments.uniform(1, 2)
    )
    x = torch.tensor([[1.0], [0.2]], dtype=torch.float64)
    optimizer = VelocityProjection(dt=0.15, max_step=None)
    state = optimizer.init(landscape, x, problem_keys(0, torch.arange(1)))
    x, state = optimizer.step(landscape, x, landscape.evaluate(x), state)
    found = landscape.evaluate(x)
    assert float((state.velocity * found.force).sum()) < 0 < float((state.velocity * found.force)[0].sum())
    _, after = optimizer.step(landscape, x, found, state)
    assert torch.allclose(after.velocity, 0.15 * found.force, rtol=1e-14)


def test_steps_are_limited() -> None:
    landscape, x = spins([4, 2])
    result = minimize(landscape, VelocityProjection(dt=1.0, max_step=0.05), x, force_calls=2)
    assert float(landscape.manifold.distance(x, result.x).max()) <= 0.05 + 1e-12
