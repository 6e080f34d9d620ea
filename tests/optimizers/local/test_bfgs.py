"""BFGS: its inverse Hessian against the formulas of the book, and where it ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stepping import steps

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import minimize
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape
from mlopt.core.testing.surfaces import lennard_jones, spins
from mlopt.optimizers.local.bfgs import BFGS
from mlopt.optimizers.starts.starts import SphereStart
from mlopt.potentials.classical.lennard_jones import LennardJones

Floats = NDArray[np.float64]


def by_the_book(inverse: Floats, s: Floats, y: Floats, first: bool, counts: dict[str, int]) -> Floats:
    """Nocedal & Wright, Numerical Optimization (2006), eq. 6.17, with 6.20 at first and 18.15 where it is needed."""
    one = np.eye(len(s))
    hessian = np.linalg.inv(inverse)
    expected = s @ hessian @ s
    if s @ y <= 1e-12 * (y @ y):
        counts["damped"] += 1
        theta = 0.8 * expected / (expected - s @ y)
        y = theta * y + (1 - theta) * hessian @ s
    elif first:
        inverse = (s @ y) / (y @ y) * one
    elif expected > 2 * (s @ y):
        counts["flatter"] += 1
        inverse = inverse * min(5.0, 0.5 * expected / (s @ y))
    rho = 1 / (s @ y)
    left = one - rho * np.outer(s, y)
    updated: Floats = left @ inverse @ left.T + rho * np.outer(s, s)
    return updated


def test_the_inverse_hessian_is_that_of_the_book() -> None:
    landscape, x = lennard_jones([5, 8, 3, 13, 13])
    optimizer = BFGS()
    seen = steps(optimizer, landscape, 1.2 * x, 80)
    counts = {"damped": 0, "flatter": 0, "back": 0, "compared": 0}
    for problem in range(5):
        _, rows = landscape.segments.select(torch.tensor([problem]))
        size = 3 * len(rows)
        inverse, learned, before = optimizer.scale * np.eye(size), False, 0
        at = force = np.zeros(0)
        for count, (points, found, state) in enumerate(seen):
            new_at, new_force = points[rows].numpy().ravel(), found.force[rows].numpy().ravel()
            shrinks = int(state.shrinks[problem])
            if shrinks:
                counts["back"] += shrinks > before
                before = shrinks
                continue
            if count:
                s, y = new_at - at, force - new_force
                inverse = by_the_book(inverse, s, y, not learned, counts)
                learned = learned or bool(s @ y > 1e-12 * (y @ y))
            at, force, before = new_at, new_force, 0
            if np.abs(force).max() < 1e-6:
                break  # from here on, differences of forces are rounding
            ours = state.inverse[problem].numpy()
            assert not ours[size:].any() and not ours[:, size:].any()
            ours = ours[:size, :size]
            assert np.abs(ours - inverse).max() < 1e-8 * np.abs(inverse).max(), (problem, count)
            assert bool(state.learned[problem]) == learned
            assert np.array_equal(ours, ours.T) and np.linalg.eigvalsh(ours)[0] > 0
            step = inverse @ force
            longest = np.linalg.norm(step.reshape(-1, 3), axis=1).max()
            step = step * min(1.0, optimizer.max_step / longest)
            assert np.abs(state.step[rows].numpy().ravel() - step).max() < 1e-8, (problem, count)
            counts["compared"] += 1
            inverse = ours  # so that rounding does not add up
    assert counts["damped"] > 5 and counts["flatter"] > 10 and counts["back"] > 5, counts
    assert counts["compared"] > 150


def test_of_a_bowl_the_whole_hessian_is_learned() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    hessian = root @ root.T + torch.eye(12, dtype=torch.float64)

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        flat = x.reshape(segments.n_problems, 12)
        return 0.5 * (flat @ hessian * flat).sum(-1)

    landscape = FunctionLandscape(energy, Segments.uniform(3, 4))
    x = torch.randn(12, 3, dtype=torch.float64, generator=generator)
    seen = steps(BFGS(max_step=None), landscape, x, 60)
    calls = [
        next(k for k, one in enumerate(seen) if float(one[1].force[rows].abs().max()) < 1e-8)
        for rows in (slice(0, 4), slice(4, 8), slice(8, 12))
    ]
    assert max(calls) <= 35, calls
    off = (seen[max(calls)][2].inverse @ hessian - torch.eye(12, dtype=torch.float64)).abs().amax((1, 2))
    assert float(off.max()) < 0.2
    # one curvature is known after one step
    round_bowl = FunctionLandscape(
        lambda x, segments: 1.5 * segments.sum((x - 2.0) ** 2), Segments.uniform(1, 6)
    )
    found = minimize(
        round_bowl, BFGS(max_step=None), torch.zeros(6, 3, dtype=torch.float64), fmax=1e-8, force_calls=9
    )
    assert found.calls.tolist() == [3] and torch.allclose(found.x, torch.full_like(found.x, 2.0))


def rosenbrock(x: torch.Tensor, segments: Segments) -> torch.Tensor:
    """The valley, in as many dimensions as a problem has rows of one number; its minimum is 0, at 1."""
    total = x.new_zeros(segments.n_problems)
    for size, problems, rows in segments.buckets:
        v = x[rows].reshape(-1, size)
        bent = 100.0 * (v[:, 1:] - v[:, :-1] ** 2) ** 2 + (1.0 - v[:, :-1]) ** 2
        total = total.index_put((problems,), bent.sum(-1))
    return total


def test_rosenbrocks_valley_is_followed_to_its_end() -> None:
    landscape = FunctionLandscape(rosenbrock, Segments(torch.tensor([0, 2, 12, 32])))
    generator = torch.Generator().manual_seed(1)
    x = 0.5 + 0.3 * torch.randn(32, 1, dtype=torch.float64, generator=generator)
    for limit in (0.3, None):
        found = minimize(landscape, BFGS(max_step=limit), x, fmax=1e-8, force_calls=600)
        assert bool(found.converged.all())
        assert torch.allclose(found.x, torch.ones_like(x), atol=1e-7)
        assert found.calls.tolist() < [80, 200, 400]


def test_clusters_end_at_minima_that_scipy_confirms() -> None:
    from scipy.optimize import minimize as scipy_minimize

    systems = Systems.cluster([18] * 13, 4)
    landscape = AtomsLandscape(systems, LennardJones())
    x = SphereStart().sample(systems, landscape.diameter, problem_keys(2, torch.arange(4)))
    found = minimize(landscape, BFGS(), x, fmax=1e-6, force_calls=1000)
    assert bool(found.converged.all())
    for problem in range(4):
        one = landscape.select(torch.tensor([problem]))

        def function(flat: Floats, one: AtomsLandscape = one) -> tuple[float, Floats]:
            at = one.evaluate(torch.as_tensor(flat.reshape(13, 3)))
            return float(at.energy), -at.force.numpy().ravel()

        ours = found.point(problem).numpy().ravel()
        shaken = ours + 0.01 * np.random.default_rng(problem).standard_normal(ours.shape)
        again = scipy_minimize(function, shaken, jac=True, method="BFGS", options={"gtol": 1e-6})
        assert function(shaken)[0] > float(found.energy[problem]) + 1e-4
        assert again.fun == pytest.approx(float(found.energy[problem]), abs=1e-9)


def test_on_spheres_it_stays_tangent_and_turns_with_the_spins() -> None:
    landscape, x = spins([3, 1, 6])
    seen = steps(BFGS(scale=0.2), landscape, x, 25)
    for (_, found, state), (_, _, before) in zip(seen[1:], seen[:-1], strict=True):
        assert float((state.step * state.x).sum(-1).abs().max()) < 1e-13
        # what was learned, H y = s, holds at the new point
        s = landscape.manifold.transport(before.x, state.x, landscape.manifold.difference(before.x, state.x))
        y = landscape.manifold.transport(before.x, state.x, before.force) - found.force
        for problem in range(3):
            _, rows = landscape.segments.select(torch.tensor([problem]))
            size = 3 * len(rows)
            s_, y_ = s[rows].ravel(), y[rows].ravel()
            if int(state.shrinks[problem]) == 0 and float(s_ @ y_) > 1e-10:
                told = state.inverse[problem, :size, :size] @ y_
                assert torch.allclose(told, s_, atol=1e-9)
    found = minimize(landscape, BFGS(), x, fmax=1e-9, force_calls=150)
    assert bool(found.converged.all())
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(found.x)
    assert torch.allclose(found.x, up, atol=1e-8)


def test_weights_of_networks_are_fitted_for_several_seeds_at_once() -> None:
    at = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64)
    wanted = torch.sin(4.0 * at)

    def loss(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        w, b, v = x.reshape(segments.n_problems, 3, 10).unbind(1)
        hidden = torch.tanh(w[:, None] * at[:, None] + b[:, None])
        return 100.0 * ((hidden * v[:, None]).sum(-1) - wanted).square().mean(-1)

    landscape = FunctionLandscape(loss, Segments.uniform(5, 30))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(150, 1, dtype=torch.float64, generator=generator)
    for limit in (0.3, None):
        found = minimize(landscape, BFGS(max_step=limit), x, force_calls=150)
        assert bool((found.energy < 2e-4 * landscape.evaluate(x).energy).all()), found.energy
        alone = minimize(
            landscape.select(torch.tensor([3])), BFGS(max_step=limit), x[90:120], force_calls=150
        )
        assert float((alone.energy - found.energy[3]).abs()) < 1e-3


def test_steps_that_lead_uphill_again_and_again_clear_what_is_known() -> None:
    class Liar(FunctionLandscape):
        def evaluate(self, x: torch.Tensor) -> Evaluation:
            found = super().evaluate(x)
            return Evaluation(-found.energy, found.force)

    landscape = Liar(lambda x, segments: segments.sum(x * x), Segments.uniform(1, 1))
    x = torch.ones(1, 1, dtype=torch.float64)
    seen = steps(BFGS(scale=0.1, shrink=0.5, rise=0.0), landscape, x, 11)
    assert [int(state.shrinks) for _, _, state in seen] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1]
    last = seen[9][2]
    assert float(last.x) < 1.0 and float(last.inverse) == pytest.approx(0.1) and not bool(last.learned)


def test_where_force_is_no_gradient_energies_are_not_compared() -> None:
    class Band(FunctionLandscape):
        conservative = False

    x = torch.ones(1, 1, dtype=torch.float64)
    landscape = Band(lambda x, segments: segments.sum(50.0 * x * x), Segments.uniform(1, 1))
    seen = steps(BFGS(scale=1.0, max_step=2.5), landscape, x, 3)
    assert [float(point) for point, _, _ in seen] == pytest.approx([1.0, -1.5, 0.0])
    assert all(int(state.shrinks) == 0 for _, _, state in seen)


def test_what_it_tolerates_is_never_less_than_its_own() -> None:
    assert BFGS().tolerating(1e-12) == BFGS() and BFGS().tolerating(1e-6) == BFGS(rise=1e-6)


def test_a_long_problem_is_the_same_alone_and_in_a_batch() -> None:
    # matrices that are treated in strips, which are of other widths in another batch
    steep = torch.linspace(1.0, 50.0, 401, dtype=torch.float64)

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        flat = x.reshape(segments.n_problems, -1)
        return (steep * flat * flat + torch.cos(flat)).sum(-1)

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5 * 401, 1, dtype=torch.float64, generator=generator)
    landscape = FunctionLandscape(energy, Segments.uniform(5, 401))
    whole = minimize(landscape, BFGS(), x, force_calls=15)
    for problem in range(5):
        rows = slice(401 * problem, 401 * (problem + 1))
        alone = minimize(landscape.select(torch.tensor([problem])), BFGS(), x[rows], force_calls=15)
        assert torch.equal(alone.x, whole.x[rows])
    assert bool((whole.energy < 0.5 * landscape.evaluate(x).energy).all())
