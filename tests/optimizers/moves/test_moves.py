"""Moves: how far, how many, whom, and that a problem moves alike in any batch."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Draws, problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.errors import ConfigError
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape, Landscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.core.plugins.plugin import build
from mlopt.core.protocols.move import Move
from mlopt.core.testing.surfaces import spins
from mlopt.optimizers.moves.basic import Angular, Displacement, Exchange, Restart
from mlopt.optimizers.starts.starts import BoxStart
from mlopt.potentials.classical.lennard_jones import LennardJones

MOVES: dict[str, Move] = {
    "uniform": Displacement(),
    "normal": Displacement(distribution="normal"),
    "angular": Angular(),
    "exchange": Exchange(pairs=2),
    "restart": Restart(),
    "now and then": Displacement(probability=0.5),
}


def drawing(landscape: Landscape, seed: int = 0, ids: torch.Tensor | None = None) -> Draws:
    segments = landscape.segments
    ids = torch.arange(segments.n_problems) if ids is None else ids
    return Draws(problem_keys(seed, ids), torch.zeros(len(ids), dtype=torch.int64), segments)


def apply(
    move: Move, landscape: Landscape, x: torch.Tensor, seed: int = 0, scale: torch.Tensor | None = None
) -> torch.Tensor:
    scale = x.new_ones(landscape.segments.n_problems) if scale is None else scale
    row_energy = landscape.evaluate(x).row_energy
    before = x.clone()
    moved = move.apply(landscape, x, row_energy, scale, drawing(landscape, seed))
    assert torch.equal(x, before), "a move has changed its argument"
    assert moved.dtype == x.dtype and moved.shape == x.shape
    return moved


def clusters(
    formulas: list[list[int]], r0: float = 1.0, seed: int = 0
) -> tuple[AtomsLandscape, torch.Tensor]:
    systems = Systems.concatenate([Systems.cluster(numbers) for numbers in formulas])
    landscape = AtomsLandscape(systems, LennardJones(r0=r0))
    keys = problem_keys(seed, torch.arange(len(formulas)))
    return landscape, BoxStart().sample(systems, landscape.diameter, keys)


def test_displacement_sizes() -> None:
    landscape, x = clusters([[18] * 500] * 4, r0=2.0)
    scale = torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=torch.float64)
    kick = (apply(Displacement(step=0.3), landscape, x, scale=scale) - x).reshape(4, -1)
    for problem, half in enumerate([0.6, 1.2, 0.3, 0.6]):  # 0.3 diameters of 2, times the scale
        one = kick[problem]
        assert float(one.abs().max()) <= half and float(one.abs().max()) > 0.99 * half
        assert abs(float(one.mean())) < 4 * half / math.sqrt(3 * 1500)
        assert float(one.var()) == pytest.approx(half**2 / 3, rel=0.1)
    kick = (apply(Displacement(step=0.3, distribution="normal"), landscape, x, scale=scale) - x).reshape(
        4, -1
    )
    for problem, sigma in enumerate([0.6, 1.2, 0.3, 0.6]):
        one = kick[problem] / sigma
        assert float(one.var()) == pytest.approx(1.0, rel=0.12)
        assert float((one**4).mean()) == pytest.approx(3.0, rel=0.25)
        assert float((one.abs() > 2).double().mean()) == pytest.approx(0.0455, abs=0.02)
    first, last = kick[0], kick[3]
    assert abs(float((first * last).mean() / first.var())) < 0.1  # of other keys, other numbers


def test_displacement_without_a_diameter_takes_ones() -> None:
    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum(x * x)

    landscape = FunctionLandscape(energy, Segments.uniform(2, 300))
    x = torch.zeros(600, 5, dtype=torch.float64)
    moved = apply(Displacement(step=0.25), landscape, x)
    assert 0.2499 < float(moved.abs().max()) <= 0.25


def test_displacement_stays_on_the_manifold() -> None:
    landscape, x = spins([200, 3])
    moved = apply(Displacement(step=0.3, distribution="normal"), landscape, x)
    assert float((torch.linalg.vector_norm(moved, dim=-1) - 1).abs().max()) < 1e-14
    angle = UnitSphere().distance(x, moved)[:200]
    assert float(angle.min()) > 0
    # two tangent components of 0.3 each
    assert float((angle**2).mean()) == pytest.approx(2 * 0.3**2, rel=0.25)


def loose_cluster() -> tuple[AtomsLandscape, torch.Tensor]:
    """LJ13's icosahedron with two atoms hung far outside, and LJ4 with none loose."""
    golden = (1 + math.sqrt(5)) / 2
    shell = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    corners = [p[k:] + p[:k] for p in shell for k in range(3)]
    ico = torch.tensor([(0.0, 0.0, 0.0), *corners], dtype=torch.float64) * 0.5
    far = torch.tensor([(2.5, 0.0, 0.1), (-0.3, -2.2, 0.0)], dtype=torch.float64)
    tetrahedron = torch.tensor([(1.0, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)], dtype=torch.float64)
    x = torch.cat([ico, far, tetrahedron / math.sqrt(8)]) + torch.tensor([3.0, -1.0, 2.0])
    systems = Systems.concatenate([Systems.cluster([18] * 15), Systems.cluster([18] * 4)])
    return AtomsLandscape(systems, LennardJones()), x


def test_angular_moves_loose_atoms_to_the_outermost_sphere() -> None:
    landscape, x = loose_cluster()
    places = []
    for seed in range(200):
        moved = apply(Angular(), landscape, x, seed)
        assert torch.equal(moved[:13], x[:13]) and torch.equal(moved[15:], x[15:])
        centre = x[:15].mean(0)
        radius = torch.linalg.vector_norm(x[:15] - centre, dim=-1).max()
        away = moved[13:15] - centre
        assert torch.allclose(torch.linalg.vector_norm(away, dim=-1), radius, atol=1e-12)
        assert not bool((moved[13:15] == x[13:15]).any())
        places.append(away / radius)
    directions = torch.cat(places)  # 400 of them, uniform on the sphere
    assert float(directions.mean(0).abs().max()) < 4 / math.sqrt(3 * 400)
    second = directions.T @ directions / 400
    assert float((second - torch.eye(3) / 3).abs().max()) < 0.07
    # the shell is bound by about half of the centre's energy: with a higher threshold all of it is loose
    high = apply(Angular(threshold=0.9), landscape, x)
    assert torch.equal(high[0], x[0]) and not bool((high[1:15] == x[1:15]).all(-1).any())


def test_angular_does_nothing_where_it_knows_nothing() -> None:
    landscape, x = loose_cluster()
    scale = x.new_ones(2)
    assert torch.equal(Angular().apply(landscape, x, None, scale, drawing(landscape)), x)


def test_angular_leaves_periodic_systems_alone() -> None:
    # the same atoms in a cell, and free ones in the same batch, which do move
    landscape, x = loose_cluster()
    free, caged = landscape.systems[0], landscape.systems[0]
    caged = replace(
        caged, cell=torch.eye(3, dtype=torch.float64)[None] * 20, pbc=torch.tensor([[True, True, False]])
    )
    potential = LennardJones(cutoff=3.0)
    mixed = AtomsLandscape(Systems.concatenate([free, caged]), potential)
    both = torch.cat([x[:15], x[:15]])
    moved = apply(Angular(), mixed, both)
    assert torch.equal(moved[15:], both[15:])
    alone = apply(Angular(), AtomsLandscape(free, potential), x[:15])
    assert torch.equal(moved[:15], alone) and not torch.equal(alone, x[:15])


def swapped(x: torch.Tensor, moved: torch.Tensor) -> list[int]:
    return torch.nonzero((x != moved).any(-1)).flatten().tolist()


def test_exchange_swaps_one_unlike_pair() -> None:
    kinds = [[47] * 5 + [79] * 3, [47] * 6, [47, 79, 29, 47], [29]]
    landscape, x = clusters(kinds)
    species = landscape.species
    pairs = set()
    for seed in range(300):
        moved = apply(Exchange(), landscape, x, seed)
        changed = swapped(x, moved)
        for low, high in ((0, 8), (14, 18)):
            here = [row for row in changed if low <= row < high]
            assert len(here) == 2
            first, second = here
            assert species[first] != species[second]
            assert torch.equal(moved[first], x[second]) and torch.equal(moved[second], x[first])
            pairs.add((first, second))
        assert not [row for row in changed if 8 <= row < 14 or row == 18]  # of one species
    # all 15 unlike pairs of the first problem, all 5 of the third
    assert len(pairs) == 20


def test_exchanges_keep_the_set_of_positions() -> None:
    landscape, x = clusters([[47] * 5 + [79] * 3, [47, 79] * 4])
    several = apply(Exchange(pairs=5), landscape, x)
    for rows in (slice(0, 8), slice(8, 16)):
        assert sorted(map(tuple, several[rows].tolist())) == sorted(map(tuple, x[rows].tolist()))
        assert len(swapped(x[rows], several[rows])) > 2


def test_exchange_without_species_does_nothing() -> None:
    landscape, x = spins([4, 2])
    assert torch.equal(apply(Exchange(), landscape, x), x)


@pytest.mark.parametrize("name", MOVES)
def test_fixed_atoms_never_move(name: str) -> None:
    landscape, x = loose_cluster()
    systems = replace(landscape.systems, z=torch.tensor([18, 36] * 9 + [18]))
    fixed = torch.zeros(19, dtype=torch.bool)
    fixed[[0, 3, 13, 16]] = True
    landscape = AtomsLandscape(replace(systems, fixed=fixed), LennardJones())
    moved_once = torch.zeros(19, dtype=torch.bool)
    for seed in range(40):
        moved = apply(MOVES[name], landscape, x, seed)
        assert torch.equal(moved[fixed], x[fixed])
        moved_once |= (moved != x).any(-1)
        if name == "exchange":  # not even by losing their partner
            assert sorted(map(tuple, moved[:15].tolist())) == sorted(map(tuple, x[:15].tolist()))
    assert bool(moved_once.any())
    everything = AtomsLandscape(replace(systems, fixed=torch.ones(19, dtype=torch.bool)), LennardJones())
    assert torch.equal(apply(MOVES[name], everything, x), x)


def test_probability_is_a_share_of_the_problems() -> None:
    landscape, x = clusters([[18] * 3] * 2000)
    moved = apply(Displacement(probability=0.3), landscape, x)
    changed = (moved != x).reshape(2000, -1)
    assert torch.equal(changed.any(-1), changed.all(-1))  # a problem moves as a whole
    assert float(changed.any(-1).double().mean()) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 2000))
    assert torch.equal(apply(Displacement(probability=0.0), landscape, x), x)


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_problem_moves_alike_in_any_batch(name: str, dtype: torch.dtype) -> None:
    kinds = [[18] * 13, [18, 36] * 2, [18], [36] * 13, [18] * 6 + [36] * 7, [18, 36, 36]]
    landscape, x = clusters(kinds)
    x = x.to(dtype)
    scale = torch.tensor([1.0, 0.7, 1.3, 1.0, 0.9, 2.0], dtype=dtype)
    row_energy = landscape.evaluate(x).row_energy
    assert row_energy is not None

    def moved(problems: list[int]) -> list[torch.Tensor]:
        """Two hops one after the other, so that counters matter too."""
        index = torch.tensor(problems)
        part = landscape.select(index)
        segments, rows = landscape.segments.select(index)
        draws = drawing(part, 0, index)
        at = x[rows]
        for _ in range(2):
            at = MOVES[name].apply(part, at, row_energy[rows], scale[index], draws)
        return [at[segments.ptr[i] : segments.ptr[i + 1]] for i in range(len(problems))]

    whole = moved([0, 1, 2, 3, 4, 5])
    for other in ([4, 2, 0, 5], [0, 3, 4], [3], [1], [5, 5, 1]):
        for problem, points in zip(other, moved(other), strict=True):
            assert torch.equal(points, whole[problem]), (other, problem)
    assert any(
        not torch.equal(points, x[rows])
        for points, rows in zip(whole, landscape_rows(landscape), strict=True)
    )


def landscape_rows(landscape: Landscape) -> list[slice]:
    ptr = landscape.segments.ptr.tolist()
    return [slice(low, high) for low, high in itertools.pairwise(ptr)]


@pytest.mark.parametrize(
    "cls,settings,message",
    [
        (Displacement, {"step": 0.0}, "step: input should be greater than 0 (got 0.0)"),
        (Displacement, {"distribution": "flat"}, "should be 'uniform' or 'normal' (got 'flat')"),
        (
            Displacement,
            {"probability": 1.5},
            "probability: input should be less than or equal to 1 (got 1.5)",
        ),
        (Angular, {"threshold": 1.0}, "threshold: input should be less than 1 (got 1.0)"),
        (Exchange, {"pairs": 0}, "pairs: input should be greater than or equal to 1 (got 0)"),
        (Exchange, {"pair": 1}, "unknown key 'pair' in the top level. Did you mean 'pairs'?"),
    ],
)
def test_settings_are_checked(cls: type[Move], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(cls, settings)
    assert message in str(caught.value)
