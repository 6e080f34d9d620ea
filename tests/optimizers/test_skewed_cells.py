"""Ways of atoms through skewed and partly periodic cells: bands, IDPP, starts, spheres pushed apart."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.geometry import get_distances
from ase.geometry.geometry import general_find_mic

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import minimize
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.idpp import PairDistances, idpp
from mlopt.optimizers.bands.initial import linear
from mlopt.optimizers.learned.kernels import radial
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.starts.overlaps import separate
from mlopt.optimizers.starts.starts import BoxStart
from mlopt.potentials import AsePotential

Cells = Callable[..., list[tuple[Any, Any]]]
#: eV, by ASE 3.29: NEB of seven images, climbing, improved tangents, to 0.005 eV/angstrom
BARRIER = 0.0567


@pytest.fixture(scope="module")
def hop() -> tuple[AtomsLandscape, torch.Tensor, torch.Tensor]:
    """An adatom on Cu(111), relaxed in a hollow, and in the next one, which the file gives a cell farther on."""
    start = fcc111("Cu", (2, 2, 2), a=3.61, vacuum=8.0)
    add_adsorbate(start, "Cu", 1.9, "fcc")
    start.set_constraint(FixAtoms([atom.index for atom in start if atom.tag == 2]))
    end = start.copy()
    end.positions[-1] += 0.5 * (end.cell[0] + end.cell[1])
    both = Systems.from_atoms([start, end])
    landscape = AtomsLandscape(both, AsePotential.wrap(EMT()))  # type: ignore[no-untyped-call]
    relaxed = minimize(landscape, LBFGS(), both.pos, fmax=1e-3, force_calls=200)
    assert float(relaxed.energy[0]) == pytest.approx(float(relaxed.energy[1]), abs=1e-5)
    return landscape.select(torch.tensor([0])), *relaxed.x.chunk(2)  # type: ignore[return-value]


def test_an_adatom_goes_to_the_next_hollow(hop: tuple[AtomsLandscape, torch.Tensor, torch.Tensor]) -> None:
    """By 2.55 angstrom; around the corner of the cell it would be 4.42. The barrier is that of ASE's climbing band."""
    landscape, start, end = hop
    assert float(torch.linalg.vector_norm(end - start, dim=-1)[-1]) == pytest.approx(4.42, abs=0.01)
    beside = end.clone()
    beside[-1] -= 0.01 * (
        landscape.systems.cell[0, 0] + landscape.systems.cell[0, 1]
    )  # no edge case of rounding
    band = Band(landscape, start, beside, 5)
    assert float(band.arc_length(linear(band))[-1]) == pytest.approx(2.555, abs=0.01)
    band = Band(landscape, start, end, 7)
    x = linear(band)
    assert float(band.arc_length(x)[-1]) == pytest.approx(2.554, abs=0.001)
    found = minimize(band, LBFGS(max_step=0.1), x, fmax=0.02, force_calls=100)
    assert float(band.arc_length(found.x)[-1]) < 3.1
    images = band.inner.evaluate(found.x).energy - band.at_start.energy
    assert float(images.max()) == pytest.approx(BARRIER, abs=0.002)


def test_idpp_keeps_nearest_distances(hop: tuple[AtomsLandscape, torch.Tensor, torch.Tensor]) -> None:
    landscape, start, end = hop
    cell, pbc = (one[0].numpy() for one in (landscape.systems.cell, landscape.systems.pbc))
    band = Band(landscape, start, end, 3)
    surface = PairDistances.of(band, linear(band))
    first, second = surface.first.numpy(), surface.second.numpy()
    at = [get_distances(one.numpy(), cell=cell * pbc[:, None], pbc=pbc)[1] for one in (start, end)]
    n = len(start)
    pairs = len(first) // 3
    for image in range(3):
        rows = slice(image * pairs, (image + 1) * pairs)
        i, j = first[rows] - image * n, second[rows] - image * n
        share = (image + 1) / 4
        expected = (1.0 - share) * at[0][i, j] + share * at[1][i, j]
        np.testing.assert_allclose(surface.target[rows] * float(surface.unit), expected, rtol=1e-9)
    relaxed = band.arc_length(idpp(band))[-1]
    assert float(relaxed) < 3.2


def box_of(cells: list[tuple[Any, Any]], n: int) -> Systems:
    return Systems(
        torch.zeros(len(cells) * n, 3, dtype=torch.float64),
        torch.full((len(cells) * n,), 18),
        torch.arange(len(cells) + 1) * n,
        torch.tensor(np.stack([cell for cell, _ in cells])),
        torch.tensor(np.stack([pbc for _, pbc in cells])),
    )


def test_starts_fill_the_room_beside_a_lattice(random_cells: Cells) -> None:
    """A wire along z once left a box without volume to its atoms."""
    wire = (np.array([[0.0, 0.0, 6.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), np.array([True, False, False]))
    cells = [wire, *random_cells(30, seed=4)]
    systems = box_of(cells, 50)
    diameter = torch.ones(len(systems.z), dtype=torch.float64)
    pos = BoxStart(edge=2.0).sample(systems, diameter, problem_keys(0, torch.arange(len(cells))))
    for (cell, pbc), own in zip(cells, pos.reshape(len(cells), 50, 3).numpy(), strict=True):
        share = own @ np.linalg.pinv(cell[pbc])
        assert share.min(initial=0.0) > -1e-9 and share.max(initial=1.0) < 1.0 + 1e-9
        beside = own - share @ cell[pbc]
        spread = np.linalg.svd(beside, compute_uv=False)
        assert (spread > 1.0).sum() == 3 - pbc.sum()
        assert np.abs(beside).max() < np.sqrt(3.0) + 1e-9


def test_kernels_of_features_bring_atoms_into_any_cell(random_cells: Cells) -> None:
    """A wire along z once gave them a cell without volume, and features that were no numbers."""
    wire = (np.array([[0.0, 0.0, 6.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), np.array([True, False, False]))
    x = np.random.default_rng(0).normal(size=(3, 4)) * 9.0
    for cell, pbc in [wire, *random_cells(40, seed=8)]:
        atoms, scratch = np.concatenate([np.ones(20), cell.ravel(), pbc]), np.full(30, np.nan)
        radial.stand(SimpleNamespace(n=4, x=x.ravel(), atoms=atoms, scratch=scratch), 0, 18)
        standing = scratch[18:].reshape(3, 4).T
        share, taken = (one @ np.linalg.pinv(cell[pbc]) for one in (standing, x.T - standing))
        assert share.min(initial=0.0) > -1e-9 and share.max(initial=0.0) < 1.0 + 1e-9
        np.testing.assert_allclose(np.rint(taken) @ cell[pbc], x.T - standing, rtol=0, atol=1e-8)


def test_spheres_part_across_any_face(random_cells: Cells) -> None:
    """Two spheres that overlap through a face, however the cell is skewed: the nearest images are moved apart."""
    cells = random_cells(80, seed=5, shortest=2.5, longest=6.0)
    systems = box_of(cells, 2)
    generator = np.random.default_rng(0)
    pos, expected, step = [], [], 0.05
    for cell, pbc in cells:
        apart = generator.normal(size=3)
        apart *= 0.6 / np.linalg.norm(apart)
        shift = (generator.integers(-3, 4, 3) * pbc) @ cell
        nearest = general_find_mic(apart[None], cell * pbc[:, None], pbc)[0][0]
        pos.append([np.zeros(3), apart + shift])
        way = np.linalg.norm(nearest)
        push = step * min((1.0 - way), 0.1 / step) * nearest / way
        expected.append([-push, apart + shift + push])
    at = torch.tensor(np.array(pos)).reshape(-1, 3)
    moved = separate(systems, at, torch.ones(len(at), dtype=torch.float64), steps=1, step=step)
    torch.testing.assert_close(moved, torch.tensor(np.array(expected)).reshape(-1, 3), rtol=0, atol=1e-9)
    alone = systems[7]
    assert torch.equal(separate(alone, at[14:16], torch.ones(2).double(), steps=1, step=step), moved[14:16])
