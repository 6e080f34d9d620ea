"""Random restarts: always from somewhere new, whatever the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import minimize
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.testing.surfaces import lennard_jones
from mlopt.optimizers.searches.hopping import HoppingState
from mlopt.optimizers.searches.restarts import RandomRestarts
from mlopt.optimizers.starts.starts import BoxStart, GivenStart, SphereStart
from mlopt.potentials.classical.lennard_jones import LennardJones


def batch(sizes: list[int]) -> tuple[AtomsLandscape, torch.Tensor]:
    systems = Systems.concatenate([Systems.cluster([18] * size) for size in sizes])
    landscape = AtomsLandscape(systems, LennardJones())
    keys = problem_keys(0, torch.arange(len(sizes)))
    return landscape, SphereStart().sample(systems, landscape.diameter, keys)


def fresh_starts(
    optimizer: RandomRestarts, landscape: AtomsLandscape, x: torch.Tensor, ids: torch.Tensor, hops: int
) -> tuple[list[torch.Tensor], HoppingState]:
    """The points after each of ``hops`` restarts, with a quench that ends at once; and the last state."""
    optimizer = optimizer.replace(quench_calls=1)
    state = optimizer.init(landscape, x, problem_keys(0, ids))
    points = []
    for _ in range(hops):
        x, state = optimizer.step(landscape, x, landscape.evaluate(x), state)
        points.append(x)
    return points, state


def test_every_start_is_new() -> None:
    landscape, x = batch([5, 5, 8])
    for start in (SphereStart(), BoxStart()):
        points, state = fresh_starts(RandomRestarts(start=start), landscape, x, torch.arange(3), 20)
        first = [point[:5] for point in points] + [point[5:10] for point in points] + [x[:5], x[5:10]]
        for i, one in enumerate(first):
            for other in first[:i]:
                assert float((one - other).abs().min()) > 0
        assert state.hops.tolist() == [20] * 3
    # and all are what the sampler says: in its ball
    radius = torch.linalg.vector_norm(torch.cat(points), dim=-1)
    edge = (8 / 0.7) ** (1 / 3)
    assert float(radius.max()) < edge * 3**0.5 / 2


def test_the_lowest_minimum_is_kept() -> None:
    landscape, x = batch([6])
    optimizer = RandomRestarts(quench_calls=1)
    state = optimizer.init(landscape, x, problem_keys(0, torch.arange(1)))
    lowest = float("inf")
    for _ in range(30):
        found = landscape.evaluate(x)
        at, (x, state) = x, optimizer.step(landscape, x, found, state)
        if float(found.energy) < lowest:
            lowest = float(found.energy)
            assert torch.equal(state.x, at)
        assert float(state.energy) == lowest


def test_a_problem_restarts_alike_in_any_batch() -> None:
    landscape, x = batch([5, 8, 5, 3])
    whole, _ = fresh_starts(RandomRestarts(), landscape, x, torch.arange(4), 5)
    for problems in ([1], [3, 0], [2, 2, 1]):
        index = torch.tensor(problems)
        _, rows = landscape.segments.select(index)
        part, _ = fresh_starts(RandomRestarts(), landscape.select(index), x[rows], index, 5)
        for hop in range(5):
            assert torch.equal(part[hop], whole[hop][rows]), (problems, hop)
    both = minimize(landscape, RandomRestarts(), x, force_calls=400)
    index = torch.tensor([2])
    alone = minimize(landscape.select(index), RandomRestarts(), x[13:18], force_calls=400, ids=index)
    assert torch.equal(alone.x, both.x[13:18]) and int(alone.quenches) == int(both.quenches[2]) > 1
    assert torch.equal(alone.pool_energy[0], both.pool_energy[2])


def test_given_starts_are_given_again() -> None:
    # "given, rattled" is about the structure that was given, not about the minimum that was just left
    landscape, x = batch([5])
    given = landscape.systems.with_pos(torch.arange(15.0, dtype=torch.float64).reshape(5, 3))
    landscape = AtomsLandscape(given, LennardJones())
    points, _ = fresh_starts(RandomRestarts(start=GivenStart(rattle=0.01)), landscape, x, torch.arange(1), 8)
    for point in points:
        assert 0 < float((point - given.pos).abs().max()) < 0.06


def test_fixed_atoms_stay() -> None:
    landscape, x = batch([5, 8])
    fixed = torch.zeros(13, dtype=torch.bool)
    fixed[[1, 7]] = True
    landscape = AtomsLandscape(replace(landscape.systems, fixed=fixed), LennardJones())
    points, _ = fresh_starts(RandomRestarts(), landscape, x, torch.arange(2), 5)
    for point in points:
        assert torch.equal(point[fixed], x[fixed]) and not bool((point[~fixed] == x[~fixed]).any())
    result = minimize(landscape, RandomRestarts(), x, force_calls=200)
    assert torch.equal(result.x[fixed], x[fixed])


def test_it_finds_lj7() -> None:
    landscape, x = batch([7] * 8)
    result = minimize(
        landscape, RandomRestarts(), x, force_calls=3000, target=-16.505384, on_target="stop-start"
    )
    assert int((result.first_hit > 0).sum()) == 8


def test_other_landscapes_are_refused() -> None:
    landscape, x = lennard_jones([4])
    with pytest.raises(
        InputError, match="random-restarts draws starts for atoms; on another landscape use basin-hopping"
    ):
        minimize(landscape, RandomRestarts(), x, force_calls=500)
