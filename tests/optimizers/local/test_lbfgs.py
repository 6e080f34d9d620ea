"""L-BFGS: its direction against the two-loop recursion, its steps back, its cap, and where it ends."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stepping import steps

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import minimize
from mlopt.core.errors import ConfigError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.core.plugins.plugin import build
from mlopt.core.testing.surfaces import Watched, lennard_jones, quadratic, spins
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.starts.starts import SphereStart
from mlopt.potentials.classical.lennard_jones import LennardJones

Floats = NDArray[np.float64]


def two_loop(pairs: list[tuple[Floats, Floats]], scale: float, force: Floats) -> Floats:
    """Nocedal & Wright, Numerical Optimization (2006), algorithm 7.4, for minus the gradient."""
    q, weights = force.copy(), []
    for s, y in reversed(pairs):
        weights.append((s * q).sum() / (s * y).sum())
        q = q - weights[-1] * y
    r = scale * q
    for (s, y), weight in zip(pairs, reversed(weights), strict=True):
        r = r + s * (weight - (y * r).sum() / (s * y).sum())
    return r


@pytest.mark.parametrize("memory", [1, 4, 8])
def test_direction_is_that_of_the_two_loop_recursion(memory: int) -> None:
    # clusters far from their minima: steps that overshoot, and negative curvature, which must not be learned from
    landscape, x = lennard_jones([5, 8, 3, 13, 13])
    optimizer = LBFGS(memory=memory)
    seen = steps(optimizer, landscape, x, 80)
    back_steps = refused = compared = 0
    for problem in range(5):
        _, rows = landscape.segments.select(torch.tensor([problem]))
        pairs: list[tuple[Floats, Floats] | None] = []  # None: a step from which nothing was learned
        scale, shrinks = optimizer.scale, 0
        at = force = np.zeros(0)
        energy = np.inf
        for count, (points, found, state) in enumerate(seen):
            new_at, new_force = points[rows].numpy(), found.force[rows].numpy()
            new_energy = float(found.energy[problem])
            if count and shrinks < 8 and new_energy > energy + optimizer.rise * (1 + abs(energy)):
                back_steps, shrinks = back_steps + 1, shrinks + 1
                pairs = [*pairs, None][-memory:]
                continue
            if count:
                s, y = new_at - at, force - new_force
                fine = (s * y).sum() > 1e-12 * (y * y).sum()
                refused += not fine
                pairs = [*pairs, (s, y) if fine else None][-memory:]
                scale = (s * y).sum() / (y * y).sum() if fine else max(2 * scale, optimizer.scale)
            at, force, energy, shrinks = new_at, new_force, new_energy, 0
            if np.abs(force).max() < 1e-6:
                break  # from here on, differences of forces are rounding
            compared += 1
            expected = two_loop([pair for pair in pairs if pair], scale, force)
            if (expected * force).sum() < 0:
                expected = -expected
            longest = np.linalg.norm(expected, axis=1).max()
            expected *= optimizer.max_step / max(longest, optimizer.max_step)
            assert np.abs(state.step[rows].numpy() - expected).max() < 1e-10, (problem, count)
    assert back_steps > 10 and refused > 3 and compared > 200  # what is tested has happened


def test_a_bowl_takes_few_steps() -> None:
    # conjugate directions: a quadratic with k different curvatures takes k exact line searches; a few more without
    landscape, x = quadratic([1, 4, 9])
    found = minimize(landscape, LBFGS(max_step=10.0, memory=12), x, fmax=1e-8, force_calls=60)
    assert bool(found.converged.all())
    assert bool((found.calls <= 20).all()), found.calls

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return 0.5 * 3.0 * segments.sum((x - 2.0) ** 2)

    # one curvature: after the first step it is known exactly
    landscape = FunctionLandscape(energy, Segments.uniform(1, 6))
    found = minimize(
        landscape, LBFGS(max_step=10.0), torch.zeros(6, 3, dtype=torch.float64), fmax=1e-8, force_calls=9
    )
    assert found.calls.tolist() == [3] and torch.allclose(found.x, torch.full_like(found.x, 2.0))


def test_no_row_moves_farther_than_the_cap() -> None:
    landscape, x = lennard_jones([5, 13, 2])
    x = x.clone()
    x[1] = x[0] + 0.1  # a huge force in the first problem
    optimizer = LBFGS(max_step=0.07, scale=1.0)
    capped = torch.zeros(3, dtype=torch.bool)
    seen = steps(optimizer, landscape, x, 30)
    for (_, _, state), (after, _, _) in itertools.pairwise(seen):
        longest = landscape.segments.longest2(after - state.x).sqrt()
        assert bool((longest <= 0.07 * (1 + 1e-12)).all())
        capped |= longest > 0.07 * (1 - 1e-12)
    assert bool(capped.all())
    # the cap of one problem does not shorten the steps of another
    alone = steps(optimizer, landscape.select(torch.tensor([2])), x[18:], 1)[0][2].step
    assert torch.equal(seen[0][2].step[18:], alone)


def test_a_step_uphill_is_taken_back() -> None:
    # beyond the valley at 0 a wall rises: the first step, far too long for the curvature, ends on it
    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum(50.0 * x * x)

    landscape = FunctionLandscape(energy, Segments.uniform(2, 1))
    x = torch.tensor([[1.0], [0.001]], dtype=torch.float64)
    optimizer = LBFGS(scale=1.0, max_step=2.5, shrink=0.2)
    seen = steps(optimizer, landscape, x, 4)
    points = torch.stack([point[:, 0] for point, _, _ in seen])
    assert points[1, 0] == pytest.approx(-1.5)  # from 1 by the cap of 2.5, uphill
    assert points[2, 0] == pytest.approx(0.5)  # from 1 again, a fifth of it
    state = seen[1][2]
    assert (
        state.shrinks[0] == 1 and state.x[0] == 1.0 and state.energy[0] == 50.0 and state.force[0] == -100.0
    )
    assert seen[2][2].shrinks[0] == 0 and seen[2][2].energy[0] == pytest.approx(12.5)
    # the other problem, which went from 0.001 to -0.099, is on its own way
    assert points[1, 1] == pytest.approx(-0.099) and points[2, 1] == pytest.approx(0.001 - 0.02)
    assert seen[2][2].shrinks[1] == 1 + int(state.shrinks[1])
    watched = Watched(landscape)
    found = minimize(watched, optimizer, x, fmax=1e-8, force_calls=50)
    assert bool(found.converged.all())
    assert watched.calls[0] == int(found.calls.sum())  # a step back costs its call, and no more
    assert int(found.calls[0]) == 4  # start, wall, step back, and the curvature is known


def test_after_many_steps_back_the_memory_is_cleared() -> None:
    # an energy that says uphill whatever is done: eight steps back, then the step is taken as it is
    class Liar(FunctionLandscape):
        def evaluate(self, x: torch.Tensor) -> Evaluation:
            found = super().evaluate(x)
            return Evaluation(-found.energy, found.force)

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum(x * x)

    landscape = Liar(energy, Segments.uniform(1, 1))
    x = torch.ones(1, 1, dtype=torch.float64)
    seen = steps(LBFGS(scale=0.1, shrink=0.5, rise=0.0), landscape, x, 11)
    assert [int(state.shrinks[0]) for _, _, state in seen] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1]
    assert all(float(state.x) == 1.0 for _, _, state in seen[:9])
    tried = torch.stack([1.0 - point[0, 0] for point, _, _ in seen[1:10]])
    assert torch.allclose(tried, 0.2 * 0.5 ** torch.arange(9, dtype=torch.float64))
    last = seen[9][2]
    assert float(last.x) < 1.0 and not bool(last.history.any()) and float(last.scale) == 0.1


def test_a_steep_start_does_not_make_it_creep() -> None:
    # a wall teaches it a tiny scale; behind it the curvature is negative for a long way, so that nothing is learned
    systems = Systems.cluster([18, 18], 20)
    landscape = AtomsLandscape(systems, LennardJones())
    distance = torch.linspace(0.3, 3.0, 20, dtype=torch.float64)
    x = torch.zeros(40, 3, dtype=torch.float64)
    x[1::2, 0] = distance
    found = minimize(landscape, LBFGS(), x, fmax=1e-6, force_calls=40)
    assert bool(found.converged.all()), found.calls
    assert torch.allclose(found.energy, torch.tensor(-1.0, dtype=torch.float64))


def test_where_force_is_no_gradient_energies_are_not_compared() -> None:
    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum(50.0 * x * x)

    class Band(FunctionLandscape):
        conservative = False

    x = torch.ones(1, 1, dtype=torch.float64)
    optimizer = LBFGS(scale=1.0, max_step=2.5)
    seen = steps(optimizer, Band(energy, Segments.uniform(1, 1)), x, 3)
    assert [float(point) for point, _, _ in seen] == pytest.approx([1.0, -1.5, 0.0])
    assert all(int(state.shrinks[0]) == 0 for _, _, state in seen)
    assert float(seen[1][2].x) == -1.5 and float(seen[1][2].energy) == 112.5


def heisenberg(x: torch.Tensor, segments: Segments) -> torch.Tensor:
    """A ring of spins with random couplings, the same for every problem: frustrated."""
    size = segments.size or 0
    generator = torch.Generator().manual_seed(3)
    couplings = torch.randn(size, size, generator=generator, dtype=x.dtype)
    ring = x.reshape(-1, size, 3)
    return -0.5 * torch.einsum("pia,ij,pja->p", ring, couplings + couplings.T, ring)


def test_spins_converge_on_their_spheres() -> None:
    landscape = FunctionLandscape(heisenberg, Segments.uniform(6, 10), UnitSphere())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 3, dtype=torch.float64, generator=generator)
    x = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    seen = steps(LBFGS(scale=0.1), landscape, x, 40)
    for point, _, state in seen:
        assert float((torch.linalg.vector_norm(point, dim=-1) - 1).abs().max()) < 1e-14
        assert float((state.step * state.x).sum(-1).abs().max()) < 1e-14  # tangent
    found = minimize(landscape, LBFGS(scale=0.1), x, fmax=1e-8, force_calls=400)
    assert bool(found.converged.all())
    assert bool((found.calls < 200).all()), found.calls
    assert bool((found.energy < landscape.evaluate(x).energy - 1.0).all())
    # at a minimum every spin points along its field
    generator = torch.Generator().manual_seed(3)
    couplings = torch.randn(10, 10, generator=generator, dtype=torch.float64)
    field = torch.einsum("ij,pja->pia", couplings + couplings.T, found.x.reshape(6, 10, 3))
    bent = torch.linalg.cross(found.x.reshape(6, 10, 3), field)
    assert float(bent.abs().max()) < 1e-7


def test_spins_in_a_field_all_point_up() -> None:
    landscape, x = spins([3, 1, 6])
    found = minimize(landscape, LBFGS(), x, fmax=1e-9, force_calls=200)
    assert bool(found.converged.all())
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(found.x)
    assert torch.allclose(found.x, up, atol=1e-8)


def test_lj38_from_random_starts_is_relaxed_as_scipy_confirms() -> None:
    from scipy.optimize import minimize as scipy_minimize

    systems = Systems.cluster([18] * 38, 6)
    landscape = AtomsLandscape(systems, LennardJones())
    x = SphereStart().sample(systems, landscape.diameter, problem_keys(1, torch.arange(6)))
    found = minimize(landscape, LBFGS(), x, fmax=1e-6, force_calls=3000)
    assert bool(found.converged.all()) and bool((found.fmax < 1e-6).all())
    assert bool((found.calls < 1500).all()), found.calls
    for problem in range(6):
        one = landscape.select(torch.tensor([problem]))

        def function(flat: Floats, one: AtomsLandscape = one) -> tuple[float, Floats]:
            at = one.evaluate(torch.as_tensor(flat.reshape(38, 3)))
            return float(at.energy), -at.force.numpy().ravel()

        rng = np.random.default_rng(problem)
        ours = found.point(problem).numpy().ravel()
        shaken = ours + 0.01 * rng.standard_normal(ours.shape)
        again = scipy_minimize(
            function, shaken, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 0, "gtol": 1e-7}
        )
        assert function(shaken)[0] > float(found.energy[problem]) + 1e-3
        assert again.fun == pytest.approx(float(found.energy[problem]), abs=1e-9)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"memory": 0}, "memory: input should be greater than or equal to 1 (got 0)"),
        ({"max_step": 0.0}, "max_step: input should be greater than 0 (got 0.0)"),
        ({"shrink": 1.0}, "shrink: input should be less than 1 (got 1.0)"),
        ({"maxstep": 0.1}, "unknown key 'maxstep' in the top level. Did you mean 'max_step'?"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(LBFGS, settings)
    assert message in str(caught.value)


def test_what_it_tolerates_is_never_less_than_its_own() -> None:
    assert LBFGS().tolerating(1e-12) == LBFGS() and LBFGS().tolerating(1e-6) == LBFGS(rise=1e-6)
