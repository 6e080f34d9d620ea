"""Where bands begin: geodesics, key images, pair distances, noise; and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.checks import check_same_atoms
from mlopt.optimizers.bands.idpp import PairDistances, idpp
from mlopt.optimizers.bands.initial import geodesic, linear, perturb, through
from mlopt.optimizers.bands.string import String
from mlopt.potentials.classical.lennard_jones import LennardJones


def up(x: torch.Tensor, segments: Segments) -> torch.Tensor:
    return segments.sum(x[:, 2])


def spins(*rows: list[float]) -> torch.Tensor:
    x = torch.tensor(rows, dtype=torch.float64)
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def sphere(start: torch.Tensor, end: torch.Tensor, images: int = 4) -> Band:
    return Band(FunctionLandscape(up, Segments.uniform(1, len(start)), UnitSphere()), start, end, images)


def atoms(start: torch.Tensor, end: torch.Tensor, images: int = 5, **fields: torch.Tensor) -> Band:
    ptr = torch.tensor([0, len(start)])
    systems = Systems(start, torch.full((len(start),), 18), ptr, **fields)
    return Band(AtomsLandscape(systems, LennardJones(cutoff=2.5)), start, end, images)


def test_straight_lines_and_great_circles_are_even() -> None:
    start = torch.tensor([[0.0, 0, 0], [2.0, 0, 0]], dtype=torch.float64)
    end = start + torch.tensor([[0.0, 1, 0], [0.0, 2, 0]], dtype=torch.float64)
    path = atoms(start, end, 3).unpack(linear(atoms(start, end, 3)))[0]
    expected = torch.stack([start + t * (end - start) for t in (0.0, 0.25, 0.5, 0.75, 1.0)])
    assert torch.allclose(path, expected, atol=1e-15)
    band = sphere(spins([1, 0, 0], [0, 0, 1]), spins([0, 1, 0], [0, 0, 1]), 2)
    path = band.unpack(geodesic(band))[0]
    assert torch.allclose(path[1, 0], torch.tensor([math.cos(math.pi / 6), 0.5, 0]).double(), atol=1e-7)
    assert torch.equal(path[:, 1], band.start[1:].expand(4, 3))


def test_periodic_atoms_take_the_short_way() -> None:
    cell = 10.0 * torch.eye(3, dtype=torch.float64)[None]
    pbc = torch.ones(1, 3, dtype=torch.bool)
    start = torch.tensor([[9.5, 1, 1], [5.0, 5, 5]], dtype=torch.float64)
    end = torch.tensor([[0.5, 1, 1], [5.0, 5, 5]], dtype=torch.float64)
    band = atoms(start, end, 3, cell=cell, pbc=pbc)
    x = geodesic(band).reshape(3, 2, 3)
    assert torch.allclose(x[:, 0, 0], torch.tensor([9.75, 10.0, 10.25], dtype=torch.float64))
    assert torch.allclose(band.arc_length(x.reshape(-1, 3))[-1], torch.tensor(1.0, dtype=torch.float64))


def test_opposite_spins_turn_about_the_axis() -> None:
    start = spins([1, 0, 0], [0, 1, 1], [0, 0, 1])
    end = torch.stack([-start[0], spins([1, 1, 0])[0], -start[2]])
    band = sphere(start, end, 3)
    with pytest.raises(InputError, match=r"opposite directions at row 0, row 2, so there"):
        geodesic(band)
    x = geodesic(band, [0.0, 1.0, 1.0]).reshape(3, 3, 3)
    half = math.sqrt(0.5)
    assert torch.allclose(x[1, 0], torch.tensor([0.0, half, -half], dtype=torch.float64))  # (y + z) x x
    assert torch.allclose(
        x[1, 2], torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), atol=1e-15
    )  # (y + z) x z
    shortest = geodesic(sphere(start[1:2], end[1:2], 3)).reshape(3, 3)
    assert torch.allclose(x[:, 1], shortest)  # rows that have a shortest path keep it
    each = torch.tensor([[0.0, 0, 1], [0, 0, 0], [1.0, 0, 0]], dtype=torch.float64)
    x = geodesic(band, each).reshape(3, 3, 3)
    assert torch.allclose(x[1, 0], torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), atol=1e-15)
    assert torch.allclose(x[1, 2], torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64), atol=1e-15)
    with pytest.raises(InputError, match="`axis` points along row 2"):
        geodesic(band, [0.0, 0.0, 1.0])
    with pytest.raises(InputError, match=r"`axis` must have shape \(3,\) or \(3, 3\).*got \(2,\)"):
        geodesic(band, [0.0, 1.0])


def test_nearly_opposite_spins_are_no_excuse() -> None:
    """Ends that a relaxation left 1e-6 away from opposite must not choose the path by their last digits."""
    start = spins([1, 0, 0])
    end = spins([-1, 3e-6, -4e-6])
    with pytest.raises(InputError, match="opposite directions"):
        geodesic(sphere(start, end))
    x = geodesic(sphere(start, end, 3), [0.0, 0.0, 1.0])
    assert torch.allclose(x[1], torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), atol=1e-5)


def test_key_images_are_passed_and_do_not_matter_to_the_spacing() -> None:
    start = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    key = torch.tensor([[3.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    end = torch.tensor([[3.0, 1.0], [4.0, 2.0]], dtype=torch.float64)
    landscape = FunctionLandscape(lambda x, segments: segments.sum(x), Segments.uniform(2, 1))
    band = Band(landscape, start, end, [3, 7])
    first, second = band.unpack(through(band, [key]))
    assert torch.allclose(first[:, 0], torch.tensor([[0.0, 0], [1, 0], [2, 0], [3, 0], [3, 1]]).double())
    assert torch.allclose(second[2, 0], key[1]) and torch.allclose(
        second[:, 0].diff(dim=0).norm(dim=-1), torch.full((8,), 0.5, dtype=torch.float64)
    )
    fine = Band(
        landscape.select(torch.tensor([0])), start[:1], end[:1], 9
    )  # images just before and after the key
    corner = fine.unpack(through(fine, [key[:1]]))[0][:, 0]
    assert torch.allclose(corner[7:9], torch.tensor([[2.8, 0.0], [3.0, 0.2]], dtype=torch.float64))
    # what another program left, with another number of images, is a list of keys
    given = [path[1:-1, 0] for path in (first, first)]
    again = Band(landscape.select(torch.tensor([0])), start[:1], end[:1], 7)
    longer = again.unpack(through(again, [one[None] for one in given[0]]))[0]
    assert torch.allclose(longer[::2, 0], first[:, 0])
    with pytest.raises(
        InputError, match=r"key image 1 must have shape \(2, 2\), like the ends, got \(1, 2\)"
    ):
        through(band, [key, key[:1]])
    with pytest.raises(InputError, match="key image 0 and the end have opposite directions"):
        away = spins([0, 0, 1])
        through(sphere(spins([1, 0, 0]), -away), [away])
    with pytest.raises(InputError, match="is not finite"):
        through(band, [key * torch.nan])


def test_noise_is_a_function_of_the_key() -> None:
    landscape = FunctionLandscape(up, Segments(torch.tensor([0, 2, 5])), UnitSphere())
    start = spins([1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 1, 1])
    band = Band(landscape, start, spins([0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1]), [3, 4])
    x, keys = geodesic(band), problem_keys(5, torch.tensor([7, 9]))
    shaken = perturb(band, x, keys, 0.05)
    assert torch.allclose(torch.linalg.vector_norm(shaken, dim=-1), torch.ones(18, dtype=torch.float64))
    assert torch.equal(perturb(band, x, keys, 0.05), shaken)
    assert not torch.allclose(perturb(band, x, keys, 0.05, counter=1000), shaken)
    part = band.select(torch.tensor([1]))
    assert torch.equal(perturb(part, x[6:], keys[1:], 0.05), shaken[6:])
    length = band.arc_length(x)[[4, 10]]
    moved = band.layout.frames.sum(band.manifold.distance(x, shaken) ** 2).sqrt()
    share = moved / band.layout.chain.rows_of(length)
    assert 0.02 < float(share.mean()) < 0.06 and float(share.max()) < 0.05 * math.sqrt(3)
    # spread evenly over +-5 percent of the length, along each of the two directions of a sphere
    one = Band(landscape.select(torch.tensor([0])).select(torch.tensor([0] * 400)), *[
        end[:2].repeat(400, 1) for end in (band.start, band.end)
    ], 3)  # fmt: skip
    many = perturb(one, geodesic(one), problem_keys(0, torch.arange(400)), 0.05)
    size = one.manifold.distance(geodesic(one), many).pow(2).mean() * 2 / length[0] ** 2
    assert abs(float(size) / (2 * 0.05**2 / 3) - 1.0) < 0.05


# -- pair distances ------------------------------------------------------------------------------------------------


def exchange() -> tuple[torch.Tensor, torch.Tensor]:
    """Two atoms of five change places: on the straight line they all but meet."""
    start = torch.tensor(
        [[-0.6, 0, 0.05], [0.6, 0, -0.05], [0, 1.2, 0.3], [0, -1.2, 0.2], [0, 0.1, 1.3]], dtype=torch.float64
    )
    end = start[[1, 0, 2, 3, 4]]
    end[0, 1] += 0.2
    return start, end


def closest(band: Band, x: torch.Tensor) -> float:
    return min(float(torch.pdist(image).min()) for image in band.unpack(x)[0])


def test_idpp_goes_around() -> None:
    band = atoms(*exchange())
    straight, around = linear(band), idpp(band)
    assert closest(band, straight) < 0.2 and closest(band, around) > 0.85
    misfit = PairDistances.of(band, straight)
    assert float(misfit.evaluate(around / misfit.unit).energy.max()) < 0.1
    string = String(band.landscape, band.start, band.end, 5)
    assert torch.equal(idpp(string), around)


def test_idpp_has_no_units_and_no_batch() -> None:
    start, end = exchange()
    around = idpp(atoms(start, end))
    assert torch.allclose(idpp(atoms(3.7 * start, 3.7 * end)), 3.7 * around, rtol=1e-9)
    systems = Systems.cluster([18] * 5, 2)
    more = torch.cat([start, start + 0.3]), torch.cat([end, end + torch.tensor([0.3, 0.4, 0.1])])
    both = Band(AtomsLandscape(systems, LennardJones()), *more, [5, 3])
    assert torch.equal(idpp(both)[:25], around)


def test_idpp_forces_are_the_gradient() -> None:
    band = atoms(*exchange())
    surface = PairDistances.of(band, geodesic(band))
    generator = torch.Generator().manual_seed(0)
    x = geodesic(band) + 0.2 * torch.randn(25, 3, dtype=torch.float64, generator=generator)
    force = surface.evaluate(x).force
    for row, axis in ((0, 0), (7, 1), (24, 2)):
        shift = torch.zeros_like(x)
        shift[row, axis] = 1e-6
        rise = (surface.evaluate(x + shift).energy - surface.evaluate(x - shift).energy).sum() / 2e-6
        assert abs(float(rise + force[row, axis])) < 1e-6 * (1.0 + abs(float(rise)))


def test_idpp_sees_periodic_images_and_leaves_fixed_atoms() -> None:
    cell = torch.diag(torch.tensor([4.0, 12.0, 12.0], dtype=torch.float64))[None]
    pbc = torch.tensor([[True, False, False]])
    start, end = exchange()
    fixed = torch.tensor([False, False, True, True, True])
    shifted = start.clone()
    shifted[0, 0] += 4.0  # the same atom, written a cell away
    inside = idpp(atoms(start, end, cell=cell, pbc=pbc, fixed=fixed))
    band = atoms(shifted, end, cell=cell, pbc=pbc, fixed=fixed)
    x = idpp(band)
    off = (x - inside) / 4.0
    assert torch.allclose(off[:, 0], off[:, 0].round(), atol=1e-7)
    assert torch.allclose(x[:, 1:], inside[:, 1:], atol=1e-7)
    assert torch.equal(x.reshape(5, 5, 3)[:, 2:], start[2:].expand(5, 3, 3))


def test_idpp_refuses_what_has_no_distances() -> None:
    with pytest.raises(InputError, match="IDPP interpolates distances between atoms; for spins use"):
        idpp(sphere(spins([1, 0, 0]), spins([0, 1, 0])))
    start, end = exchange()
    end[4] = end[3] + 1e-12
    systems = Systems(start, torch.full((5,), 18), torch.tensor([0, 5]))
    with pytest.raises(InputError, match="an end has two atoms at the same place"):
        idpp(Band(AtomsLandscape(systems, Level()), start, end))


class Level(LennardJones):
    """Finite where atoms meet, so that a band can be made."""

    def evaluate(self, systems: Systems, stress: bool = False) -> Evaluation:
        return Evaluation(systems.pos.new_zeros(len(systems)), torch.zeros_like(systems.pos))


# -- the same atoms ------------------------------------------------------------------------------------------------


def slab(**changes: torch.Tensor) -> Systems:
    fields = {
        "pos": torch.arange(18, dtype=torch.float64).reshape(6, 3),
        "z": torch.tensor([78, 78, 79, 47, 79, 47]),
        "ptr": torch.tensor([0, 2, 6]),
        "cell": 9.0 * torch.eye(3, dtype=torch.float64).repeat(2, 1, 1),
        "pbc": torch.tensor([[True, True, False]] * 2),
        "fixed": torch.tensor([False] * 6),
    }
    return Systems(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"z": torch.tensor([78, 78, 79, 47, 47, 79])},
            r"the end of path 1: atom 2 is Ag, in its start it is Au \(2 atoms differ\); the composition is the same",
        ),
        (
            {"z": torch.tensor([78, 46, 79, 47, 79, 47])},
            "the end of path 0: atom 1 is Pd, in its start it is Pt",
        ),
        (
            {"ptr": torch.tensor([0, 3, 6])},
            "the end of path 0 has 3 atoms and its start 2; a path keeps its atoms: remove 1",
        ),
        (
            {"pbc": torch.tensor([[True, True, False], [True, True, True]])},
            r"path 1: periodic directions are \[True",
        ),
        (
            {"cell": torch.stack([9.0 * torch.eye(3), 9.1 * torch.eye(3)]).double()},
            "the end of path 1: its cell differs from that of its start by up to 0.1",
        ),
        (
            {"fixed": torch.tensor([False, False, False, True, False, False])},
            r"the end of path 1: atom 1 \(Ag\): fixed there and free in its start",
        ),
    ],
)
def test_ends_must_be_the_same_atoms(changes: dict[str, torch.Tensor], message: str) -> None:
    check_same_atoms(slab(), slab(pos=torch.rand(6, 3, dtype=torch.float64)))
    with pytest.raises(InputError, match=message):
        check_same_atoms(slab(), slab(**changes))


def test_as_many_starts_as_ends() -> None:
    with pytest.raises(InputError, match="there are 2 starts of a path but 1 ends"):
        check_same_atoms(slab(), slab()[0])
