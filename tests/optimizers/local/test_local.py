"""Local optimizers against independent implementations, and what their settings refuse."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import minimize
from mlopt.core.errors import ConfigError
from mlopt.core.landscapes.landscape import FunctionLandscape, Landscape
from mlopt.core.plugins.plugin import build
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.testing.surfaces import lennard_jones, quadratic
from mlopt.optimizers.local.adam import Adam
from mlopt.optimizers.local.fire import Fire
from mlopt.optimizers.local.gradient_descent import GradientDescent

Floats = NDArray[np.float64]


def walk(optimizer: Optimizer, landscape: Landscape, x: torch.Tensor, steps: int) -> torch.Tensor:
    """Points (steps, n_rows, d) after each step."""
    state = optimizer.init(landscape, x, problem_keys(0, torch.arange(landscape.segments.n_problems)))
    points = []
    for _ in range(steps):
        x, state = optimizer.step(landscape, x, landscape.evaluate(x), state)
        points.append(x)
    return torch.stack(points)


def fire_by_the_paper(landscape: Landscape, x: Floats, variant: str, steps: int, most: int) -> Floats:
    """One problem, one scalar at a time, in the order in which the papers print the algorithm."""

    def force(at: Floats) -> Floats:
        found: Floats = landscape.evaluate(torch.as_tensor(at)).force.numpy()
        return found

    delay, start = (5, 0.1) if variant == "original" else (20, 0.25)
    dt, alpha, count = 0.02, start, 0
    v, f, points = np.zeros_like(x), force(x), []

    def mixed(v: Floats, f: Floats) -> Floats:
        speed: Floats = np.linalg.norm(v) * f / np.linalg.norm(f)
        return (1 - alpha) * v + alpha * speed

    for step in range(steps):
        if variant == "original":  # a step of velocity Verlet, then F1 to F4
            v = v + 0.5 * dt * f
            x = x + dt * v
            points.append(x)
            f = force(x)
            v = v + 0.5 * dt * f
        power = float((f * v).sum())
        if variant == "original" and power > 0:
            v = mixed(v, f)
        if power > 0:
            count += 1
            if count > delay:
                dt, alpha = min(1.1 * dt, 0.1), 0.99 * alpha
        else:
            count, alpha = 0, start
            if variant == "original" or step >= delay:
                dt = 0.5 * dt if variant == "original" else max(0.5 * dt, 2e-4)
            if variant == "2.0":
                x = x - 0.5 * dt * v
            v = np.zeros_like(v)
        if variant == "2.0":
            v = mixed(v + dt * f, f)
            x = x + dt * v
            points.append(x)
            f = force(x)
    assert count < most
    return np.stack(points)


@pytest.mark.parametrize("variant", ["original", "2.0"])
def test_fire_is_the_published_one(variant: Literal["original", "2.0"]) -> None:
    landscape, x = lennard_jones([5, 8, 13, 13])
    ours = walk(Fire(variant=variant, dt=0.02, dt_max=0.1, max_step=None), landscape, x, 120)
    for problem in range(4):
        index = torch.tensor([problem])
        _, rows = landscape.segments.select(index)
        expected = fire_by_the_paper(landscape.select(index), x[rows].numpy(), variant, 120, 120)
        assert np.abs(ours[:, rows].numpy() - expected).max() < 1e-10


def test_fire_of_ase_is_the_one_of_ase() -> None:
    from ase import Atoms
    from ase.calculators.lj import LennardJones
    from ase.optimize import FIRE

    landscape, x = lennard_jones([5, 13])
    ours = walk(Fire(variant="ase", dt=0.02, dt_max=0.1, max_step=0.05), landscape, x, 100)
    for problem in range(2):
        _, rows = landscape.segments.select(torch.tensor([problem]))
        atoms = Atoms("Ar" * len(rows), x[rows].numpy())
        atoms.calc = LennardJones(sigma=2 ** (-1 / 6), epsilon=1.0, rc=1e3)
        engine = FIRE(atoms, logfile=None, dt=0.02, dtmax=0.1, maxstep=0.05)
        for step in range(100):
            engine.step()
            assert np.abs(ours[step, rows].numpy() - atoms.positions).max() < 1e-10, step


def test_fire_limits_the_longest_row_of_each_problem() -> None:
    landscape, x = lennard_jones([4, 6])
    x = x.clone()
    x[5] = x[4] + 0.05  # a force of about 1e18
    moved = walk(Fire(max_step=0.1), landscape, x, 1)[0] - x
    longest = torch.linalg.vector_norm(moved, dim=-1)
    assert float(longest[4:].max()) == pytest.approx(0.1)
    assert float(longest[:4].max()) < 0.1  # the other problem is not slowed down
    result = minimize(landscape, Fire(), x, force_calls=2000, fmax=1e-3)
    assert bool(result.converged.all())


def test_fire_rests_where_nothing_pulls() -> None:
    landscape, x = quadratic([3, 2])
    x = torch.cat([torch.zeros_like(x[:3]), x[3:]])
    for variant in ("original", "2.0", "ase"):
        points = walk(Fire(variant=variant), landscape, x, 30)
        assert torch.equal(points[:, :3], torch.zeros_like(points[:, :3]))
        assert bool(torch.isfinite(points).all())


def test_adam_is_that_of_torch() -> None:
    landscape, x = lennard_jones([5, 8])
    ours = walk(Adam(step_size=0.01), landscape, x, 200)
    theirs = x.clone().requires_grad_(True)
    engine = torch.optim.Adam([theirs], lr=0.01)
    for step in range(200):
        theirs.grad = -landscape.evaluate(theirs.detach()).force
        engine.step()
        assert float((ours[step] - theirs.detach()).abs().max()) < 1e-11, step


def test_gradient_descent_steps_along_the_force() -> None:
    landscape, x = quadratic([3, 2])
    force = landscape.evaluate(x).force
    assert torch.equal(walk(GradientDescent(step_size=0.1), landscape, x, 1)[0], x + 0.1 * force)
    moved = walk(GradientDescent(step_size=0.1, max_step=0.01), landscape, x, 1)[0] - x
    assert torch.allclose(landscape.segments.longest2(moved).sqrt(), torch.tensor(0.01, dtype=x.dtype))


@pytest.mark.parametrize(
    "optimizer,name", [(GradientDescent(step_size=0.1), "step_size"), (Adam(), "step_size"), (Fire(), "dt")]
)
def test_a_setting_may_differ_from_problem_to_problem(optimizer: Optimizer, name: str) -> None:
    landscape, x = quadratic([3, 2])
    values = torch.tensor([0.02, 0.01], dtype=torch.float64)
    both = walk(optimizer.replace(**{name: values}), landscape, x, 5)
    for problem in range(2):
        index = torch.tensor([problem])
        _, rows = landscape.segments.select(index)
        changed = optimizer.replace(**{name: float(values[problem])})
        alone = walk(changed, landscape.select(index), x[rows], 5)
        assert torch.allclose(both[:, rows], alone, atol=1e-14, rtol=0)


def test_a_landscape_of_another_dimension() -> None:
    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum((x - 1.0) ** 2)

    for width in (1, 2, 7):
        landscape = FunctionLandscape(energy, Segments.uniform(2, 1))
        for optimizer in (GradientDescent(step_size=0.1), Adam(step_size=0.05), Fire(dt=0.05, dt_max=0.5)):
            found = minimize(landscape, optimizer, torch.zeros(2, width, dtype=torch.float64), fmax=1e-6)
            assert torch.allclose(found.x, torch.ones_like(found.x), atol=1e-5)


@pytest.mark.parametrize(
    "cls,settings,message",
    [
        (Fire, {"dt": 0.2}, "dt must lie between dt_min and dt_max, got dt_min 0.0002, dt 0.2, dt_max 0.04"),
        (Fire, {"cut": 1.5}, "cut: input should be less than 1 (got 1.5)"),
        (Fire, {"variant": "3.0"}, "variant: input should be 'original', '2.0' or 'ase' (got '3.0')"),
        (Fire, {"timestep": 0.1}, "unknown key 'timestep'"),
        (Adam, {"beta1": 1.0}, "beta1: input should be less than 1 (got 1.0)"),
        (GradientDescent, {"step_size": -1.0}, "step_size: input should be greater than 0 (got -1.0)"),
    ],
)
def test_settings_are_checked(cls: type[Optimizer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(cls, settings)
    assert message in str(caught.value)
