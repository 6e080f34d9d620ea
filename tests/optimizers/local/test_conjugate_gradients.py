"""Conjugate gradients: directions and trials against the formulas of the book, and where they end."""

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
from mlopt.core.testing.surfaces import Watched, lennard_jones, quadratic, spins
from mlopt.optimizers.local.conjugate_gradients import ConjugateGradients
from mlopt.optimizers.starts.starts import SphereStart
from mlopt.potentials.classical.lennard_jones import LennardJones

Floats = NDArray[np.float64]


def test_lines_are_conjugate_and_end_where_the_book_says() -> None:
    landscape, x = lennard_jones([5, 8, 3, 13, 13])
    optimizer = ConjugateGradients(max_step=0.1)
    seen = steps(optimizer, landscape, 1.3 * x, 120)
    lines = restarts = limited = trials = 0
    for problem in range(5):
        _, rows = landscape.segments.select(torch.tensor([problem]))
        base = direction = force = np.zeros(0)
        energy = slope = 0.0
        for count, (points, found, state) in enumerate(seen):
            at, new_force = points[rows].numpy().ravel(), found.force[rows].numpy().ravel()
            new_energy, begins = float(found.energy[problem]), int(state.trials[problem]) == 0
            if np.abs(new_force).max() < 1e-5:
                break  # from here on, differences of energies are rounding
            if count:
                # the point is on the line, and ends it where energy and slope say so
                length = (at - base) @ direction / (direction @ direction)
                assert np.abs(at - base - length * direction).max() < 1e-12
                longest = np.linalg.norm((at - base).reshape(-1, 3), axis=1).max()
                assert 0 < longest <= optimizer.max_step * (1 + 1e-12)
                left, full = new_force @ direction, longest > optimizer.max_step * (1 - 1e-12)
                down = new_energy <= energy + optimizer.rise * (1 + abs(energy))
                level = abs(left) <= optimizer.accuracy * slope
                assert begins == (down and (level or (full and left > 0))), (problem, count)
                trials += 1
                limited += begins and not level
            if not begins:
                continue
            expected = new_force
            if count:
                beta = max(0.0, new_force @ (new_force - force) / (force @ force))
                candidate = new_force + beta * direction
                cosine = candidate @ new_force / np.linalg.norm(candidate) / np.linalg.norm(new_force)
                if abs(new_force @ force) < 0.2 * (new_force @ new_force) and cosine > 1e-3:
                    expected = candidate
                else:
                    restarts += 1
            direction = state.direction[rows].numpy().ravel()
            assert np.abs(direction - expected).max() < 1e-9 * np.abs(expected).max(), (problem, count)
            base, force, energy, slope = at, new_force, new_energy, direction @ new_force
            lines += 1
    assert lines > 80 and restarts > 20 and limited > 5 and trials > lines + 50


def test_a_cubic_is_minimised_by_the_second_trial() -> None:
    # where the bracket is known, the next trial is the minimum of the cubic through both its ends: of a cubic, exactly
    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum(x**3 / 3 + x * x - 3 * x)  # its minimum is at 1

    landscape = FunctionLandscape(energy, Segments.uniform(1, 1))
    x = torch.zeros(1, 1, dtype=torch.float64)
    seen = steps(ConjugateGradients(scale=0.6, max_step=None), landscape, x, 3)
    assert [float(point) for point, _, _ in seen] == pytest.approx([0.0, 1.8, 1.0], abs=1e-12)
    assert [int(state.trials) for _, _, state in seen] == [0, 1, 0]


def test_without_a_bracket_trials_go_out_to_where_the_slope_would_vanish() -> None:
    landscape = FunctionLandscape(lambda x, segments: segments.sum(0.5 * x * x), Segments.uniform(1, 1))
    x = torch.ones(1, 1, dtype=torch.float64)
    near, far = (
        [float(p) for p, _, _ in steps(ConjugateGradients(scale=scale, max_step=None), landscape, x, 3)]
        for scale in (0.5, 0.1)
    )
    assert near == pytest.approx([1.0, 0.5, 0.0])  # the secant of a parabola is exact
    assert far == pytest.approx([1.0, 0.9, 0.5])  # but no trial is more than five times as far as the last
    capped = steps(ConjugateGradients(scale=0.1, max_step=0.25), landscape, x, 3)
    assert [float(point) for point, _, _ in capped] == pytest.approx([1.0, 0.9, 0.75])
    assert int(capped[-1][2].trials) == 0  # still downhill at the limit: a new line begins there


def test_a_bowl_takes_one_line_for_each_curvature() -> None:
    # exact line searches end after as many lines as there are curvatures, here 3, of two trials each at most
    landscape, x = quadratic([1, 4, 9])
    found = minimize(
        landscape, ConjugateGradients(max_step=None, accuracy=1e-6), x, fmax=1e-8, force_calls=60
    )
    assert bool(found.converged.all())
    assert bool((found.calls <= 10).all()), found.calls


def test_rosenbrocks_valley_is_followed_to_its_end() -> None:
    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        v = x.reshape(segments.n_problems, -1)
        return (100.0 * (v[:, 1:] - v[:, :-1] ** 2) ** 2 + (1.0 - v[:, :-1]) ** 2).sum(-1)

    landscape = FunctionLandscape(energy, Segments.uniform(5, 6))
    generator = torch.Generator().manual_seed(1)
    x = 0.5 + 0.3 * torch.randn(30, 1, dtype=torch.float64, generator=generator)
    for limit in (0.3, None):
        watched = Watched(landscape)
        found = minimize(watched, ConjugateGradients(max_step=limit), x, fmax=1e-7, force_calls=1500)
        assert bool(found.converged.all()), found.calls
        assert torch.allclose(found.x, torch.ones_like(x), atol=1e-6)
        assert watched.calls[0] == int(found.calls.sum())


def test_clusters_end_at_minima_that_scipy_confirms() -> None:
    from scipy.optimize import minimize as scipy_minimize

    systems = Systems.cluster([18] * 13, 4)
    landscape = AtomsLandscape(systems, LennardJones())
    x = SphereStart().sample(systems, landscape.diameter, problem_keys(2, torch.arange(4)))
    found = minimize(landscape, ConjugateGradients(), x, fmax=1e-6, force_calls=1500)
    assert bool(found.converged.all())
    for problem in range(4):
        one = landscape.select(torch.tensor([problem]))

        def function(flat: Floats, one: AtomsLandscape = one) -> tuple[float, Floats]:
            at = one.evaluate(torch.as_tensor(flat.reshape(13, 3)))
            return float(at.energy), -at.force.numpy().ravel()

        ours = found.point(problem).numpy().ravel()
        shaken = ours + 0.01 * np.random.default_rng(problem).standard_normal(ours.shape)
        again = scipy_minimize(function, shaken, jac=True, method="CG", options={"gtol": 1e-6})
        assert function(shaken)[0] > float(found.energy[problem]) + 1e-4
        assert again.fun == pytest.approx(float(found.energy[problem]), abs=1e-9)


def test_spins_in_a_field_all_point_up() -> None:
    landscape, x = spins([3, 1, 6])
    for _, _, state in steps(ConjugateGradients(), landscape, x, 25):
        assert float((state.direction * state.x).sum(-1).abs().max()) < 1e-12  # tangent
    found = minimize(landscape, ConjugateGradients(), x, fmax=1e-9, force_calls=300)
    assert bool(found.converged.all())
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(found.x)
    assert torch.allclose(found.x, up, atol=1e-8)


def test_where_energies_lie_the_line_is_left_after_some_trials() -> None:
    class Liar(FunctionLandscape):
        def evaluate(self, x: torch.Tensor) -> Evaluation:
            found = super().evaluate(x)
            return Evaluation(-found.energy, found.force)

    landscape = Liar(lambda x, segments: segments.sum(x * x), Segments.uniform(1, 1))
    x = torch.ones(1, 1, dtype=torch.float64)
    seen = steps(ConjugateGradients(scale=0.1, rise=0.0), landscape, x, 15)
    assert [int(state.trials) for _, _, state in seen] == [*range(13), 0, 1]
    assert 0.99 < float(seen[13][2].x) < 1.0 and float(seen[13][2].length) == pytest.approx(0.1)


def test_where_force_is_no_gradient_energies_are_not_compared() -> None:
    class Band(FunctionLandscape):
        conservative = False

        def evaluate(self, x: torch.Tensor) -> Evaluation:
            found = super().evaluate(x)
            return Evaluation(-found.energy, found.force)

    landscape = Band(lambda x, segments: segments.sum(50.0 * x * x), Segments.uniform(1, 1))
    x = torch.ones(1, 1, dtype=torch.float64)
    seen = steps(ConjugateGradients(scale=0.018, max_step=None), landscape, x, 3)
    # from 1 past the minimum to -0.8, then by the secant of the force to where it vanishes
    assert [float(point) for point, _, _ in seen] == pytest.approx([1.0, -0.8, 0.0], abs=1e-12)


def test_what_it_tolerates_is_never_less_than_its_own() -> None:
    optimizer = ConjugateGradients()
    assert optimizer.tolerating(1e-12) == optimizer
    assert optimizer.tolerating(1e-6) == ConjugateGradients(rise=1e-6)
