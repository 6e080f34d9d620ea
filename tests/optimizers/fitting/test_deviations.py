"""Deviations of energies: those of drawn coefficients, small where there were data and large beyond."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mlopt.core import Dataset, Systems
from mlopt.optimizers.fitting import DrawnStructures, Weights
from mlopt.optimizers.fitting.deviations import Deviations, energy_deviation
from mlopt.optimizers.fitting.least_squares import covariance_root, solve, triangle
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.potentials import Mtp, StillingerWeber

pytest.importorskip("numba")

LABELLER = PotentialLabeller(potential=StillingerWeber())
DRAWN = DrawnStructures(
    crystal={"element": "Si", "repeat": [1, 1, 1]}, count=40, displacement=0.2, labeller=LABELLER
)
DATA = replace(DRAWN.draw(0), source=tuple(f"frame {k}" for k in range(40)))


def posterior(data: Dataset) -> tuple[Mtp, torch.Tensor, torch.Tensor]:
    """A fitted potential, its coefficients, and the root of their covariance."""
    potential = Mtp(degrees=[5, 4], cutoff=3.8, pair_functions=4, shortest=1.5).prepared(data)
    rows, degrees = triangle(potential, data, Weights()), potential.roughness()
    solution = solve(rows, degrees)
    return potential, solution.theta, covariance_root(rows, solution, degrees)


def test_it_is_that_of_coefficients_drawn_from_their_posterior() -> None:
    potential, theta, root = posterior(DATA)
    some = DATA.select([0, 7])
    generator = torch.Generator().manual_seed(0)
    drawn = theta + torch.randn(800, len(theta), generator=generator, dtype=torch.float64) @ root.T
    energies = torch.stack([potential.with_theta(one).evaluate(some.systems).energy for one in drawn])
    wanted = energies.std(0) / some.systems.segments.counts
    torch.testing.assert_close(energy_deviation(potential, some, root), wanted, rtol=0.1, atol=0)


def test_blocks_do_not_matter_and_sizes_are_mixed() -> None:
    potential, _, root = posterior(DATA)
    one, other = DATA.select([0, 1]).to_atoms()
    mixed = Dataset(Systems.from_atoms([one, other.repeat((1, 1, 2))]))
    found = energy_deviation(potential, mixed, root)
    torch.testing.assert_close(
        energy_deviation(potential, mixed, root, memory=1e-9), found, rtol=1e-9, atol=0
    )
    # a repeated cell has the energy of an atom of its cell, and so its deviation
    torch.testing.assert_close(
        found, energy_deviation(potential, DATA.select([0, 1]), root), rtol=1e-6, atol=0
    )
    assert energy_deviation(potential, DATA.select([]), root).shape == (0,)


def test_structures_beyond_the_data_are_counted_and_named() -> None:
    potential, _, root = posterior(DATA)
    near = DRAWN.draw(1).select(range(10))
    far = near.select([0, 1, 2])
    far = replace(
        Dataset(far.systems.with_pos(far.systems.pos * torch.tensor([0.8, 1.0, 1.0], dtype=torch.float64))),
        source=("", "far.xyz: frame 1", ""),
    )
    train = energy_deviation(potential, DATA, root)
    alike = Deviations(train, energy_deviation(potential, near, root))
    assert alike.doubts(near) == [] and not alike.outside.any()
    assert float(alike.relative(train).max()) == 1.0
    both = Dataset.concatenate([near.select([0]), far])
    told = Deviations(train, energy_deviation(potential, both, root))
    assert told.outside.tolist() == [False, True, True, True]
    (line,) = told.doubts(both)
    assert line.startswith("3 of 4 structures to test on lie outside of what was fitted to: ")
    place = int(told.test.argmax())
    assert (both.source[place] or f"structure {place}") in line


def test_a_fit_that_is_certain_extrapolates_to_nothing() -> None:
    """A fit with no residual has no deviation."""
    told = Deviations(torch.zeros(3), torch.zeros(2))
    assert told.relative(told.test).tolist() == [0.0, 0.0] and not told.outside.any()
