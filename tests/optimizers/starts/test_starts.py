"""Starts: where atoms may be, how close, and that a start does not depend on its batch."""

from __future__ import annotations

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.errors import InputError
from mlopt.core.protocols.start import StartSampler
from mlopt.optimizers.starts.starts import BoxStart, GivenStart, HarmonicStart, SphereStart

SAMPLERS = [GivenStart(rattle=0.1), BoxStart(), BoxStart(edge=2.0), SphereStart(), SphereStart(radius=2.0)]
SAMPLERS += [HarmonicStart()]


def silicon(n_systems: int = 3) -> Systems:
    """Eight atoms in a skewed periodic cell."""
    cell = torch.tensor([[5.4, 0, 0], [1.0, 5.4, 0], [0, 0.7, 5.4]], dtype=torch.float64)
    one = Systems(
        torch.zeros(8, 3, dtype=torch.float64),
        torch.full((8,), 14),
        torch.tensor([0, 8]),
        cell[None],
        torch.ones(1, 3, dtype=torch.bool),
    )
    return one.repeat(n_systems)


def draw(
    sampler: StartSampler, systems: Systems, diameter: float = 1.0, ids: list[int] | None = None
) -> torch.Tensor:
    index = torch.arange(len(systems)) if ids is None else torch.tensor(ids)
    lengths = torch.full((systems.segments.n_rows,), diameter, dtype=torch.float64)
    return sampler.sample(systems, lengths, problem_keys(7, index))


def shortest(systems: Systems, pos: torch.Tensor) -> torch.Tensor:
    """Shortest distance of each system, over periodic images."""
    images = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3).to(pos)
    found = []
    for i in range(len(systems)):
        rows = torch.arange(int(systems.ptr[i]), int(systems.ptr[i + 1]))
        shift = images @ (systems.cell[i] * systems.pbc[i][:, None])
        delta = (pos[rows][:, None] - pos[rows][None])[:, :, None] + shift
        distance = torch.linalg.vector_norm(delta, dim=-1).amin(-1).fill_diagonal_(torch.inf)
        found.append(distance.min())
    return torch.stack(found)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_a_start_does_not_depend_on_its_batch(sampler: StartSampler) -> None:
    sizes = [13, 1, 38, 2, 13]
    systems = Systems.concatenate([Systems.cluster([18] * size) for size in sizes] + [silicon(1)])
    whole = draw(sampler, systems)
    assert whole.dtype == torch.float64 and bool(torch.isfinite(whole).all())
    for i in range(len(systems)):
        rows = torch.arange(int(systems.ptr[i]), int(systems.ptr[i + 1]))
        assert torch.equal(draw(sampler, systems[i], ids=[i]), whole[rows]), i
    many = Systems.cluster([18] * 13, 150)
    assert torch.equal(draw(sampler, many)[4 * 13 : 5 * 13], whole[-21:-8])
    other = draw(sampler, systems, ids=[10, 11, 12, 13, 14, 15])
    assert not torch.equal(other, whole)


def test_lengths_are_in_diameters() -> None:
    systems = Systems.cluster([18] * 20, 4)
    for sampler in (BoxStart(), BoxStart(edge=3.0), SphereStart(), HarmonicStart()):
        assert torch.allclose(draw(sampler, systems, 2.5), 2.5 * draw(sampler, systems), atol=1e-9)


def test_box_and_ball_are_filled_evenly() -> None:
    systems = Systems.cluster([18] * 100, 100)
    box = draw(BoxStart(edge=2.0), systems)
    assert float(box.abs().max()) <= 1.0
    assert box.mean(0).abs().max() < 0.02 and (box.var(0) - 1 / 3).abs().max() < 0.02
    radius = torch.linalg.vector_norm(draw(SphereStart(radius=2.0), systems), dim=-1)
    assert float(radius.max()) <= 2.0
    shares = torch.histc((radius / 2.0) ** 3, bins=10, min=0, max=1) / len(radius)
    assert (shares - 0.1).abs().max() < 0.015
    by_density = draw(BoxStart(density=0.5), systems)
    assert float(by_density.abs().max()) == pytest.approx(0.5 * 200 ** (1 / 3), rel=1e-3)


def test_harmonic_start_separates_atoms_and_keeps_them_together() -> None:
    for size in (2, 13, 38, 75):
        systems = Systems.cluster([18] * size, 10)
        pos = draw(HarmonicStart(), systems)
        assert float(shortest(systems, pos).min()) > 0.75, size
        crowded = draw(HarmonicStart(steps=0), systems)
        centre = pos.reshape(10, size, 3).mean(1, keepdim=True)
        assert float((pos.reshape(10, size, 3) - centre).abs().max()) < float(crowded.abs().max()) + 1.5


def test_harmonic_start_knows_unlike_diameters() -> None:
    systems = Systems.cluster([18] * 6 + [54] * 6)
    diameter = torch.tensor([1.0] * 6 + [1.6] * 6, dtype=torch.float64)
    pos = HarmonicStart(steps=1000).sample(systems, diameter, problem_keys(0, torch.arange(1)))
    needed = 0.5 * (diameter[:, None] + diameter)
    distance = torch.cdist(pos, pos).fill_diagonal_(torch.inf)
    assert float((distance / needed).min()) > 0.99


def test_periodic_cells_are_respected() -> None:
    systems = silicon(20)
    for sampler in (BoxStart(), SphereStart(), HarmonicStart(steps=0)):
        share = torch.linalg.solve(systems.cell[systems.batch].mT, draw(sampler, systems, 2.3)[:, :, None])
        assert float(share.min()) >= -1e-12 and float(share.max()) <= 1.0 + 1e-12
        assert float(share.max()) > 0.95
    apart = shortest(systems, draw(HarmonicStart(), systems, 2.3))
    assert float(apart.min()) > 0.75 * 2.3
    slab = Systems(
        systems.pos, systems.z, systems.ptr, systems.cell, systems.pbc & torch.tensor([True, True, False])
    )
    pos = draw(BoxStart(edge=1.0), slab, 2.3)
    assert float(pos[:, 2].abs().max()) < 0.5 * 2.3 + 0.8  # along c only the cube; b is tilted by 0.7


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_fixed_atoms_stay(sampler: StartSampler) -> None:
    cluster = Systems.cluster([18] * 10, 2)
    fixed = torch.zeros(20, dtype=torch.bool)
    fixed[[0, 3, 15]] = True
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(20, 3, dtype=torch.float64, generator=generator)
    systems = Systems(given, cluster.z, cluster.ptr, fixed=fixed)
    pos = draw(sampler, systems)
    assert torch.equal(pos[fixed], given[fixed])
    assert not bool((pos[~fixed] == given[~fixed]).any())


def test_given_start_is_what_was_given() -> None:
    systems = Systems.cluster([18] * 4)
    systems = systems.with_pos(torch.rand(4, 3, dtype=torch.float32))
    assert torch.equal(draw(GivenStart(), systems), systems.pos)
    assert draw(GivenStart(rattle=0.1), systems).dtype == torch.float32
    noise = draw(GivenStart(rattle=0.1), Systems.cluster([18] * 1000, 3), 2.0)
    assert float(noise.std()) == pytest.approx(0.2, rel=0.05)


def test_refusals() -> None:
    systems = Systems.cluster([18] * 4, 2)
    keys = problem_keys(0, torch.arange(2))
    with pytest.raises(
        InputError, match=r"BoxStart: `diameter` and `key` must have shapes \(8,\) and \(2,\)"
    ):
        BoxStart().sample(systems, torch.ones(4), keys)
    with pytest.raises(InputError, match="every `diameter` must be positive"):
        BoxStart().sample(systems, torch.zeros(8), keys)
