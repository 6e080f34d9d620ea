"""Sums over neighbours in cells of any shape: against all images written out, in both engines."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mlopt.core.atoms.neighbours import find_neighbours
from mlopt.core.atoms.systems import Systems
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.stop import Stop
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.optimizers import GradientDescent
from mlopt.potentials import Gupta, LennardJones, StillingerWeber
from mlopt.potentials.spins import Skyrmion, SpinLattice
from mlopt.potentials.sums.few_atoms import find_pairs

Cells = Callable[..., list[tuple[Any, Any]]]
POTENTIALS = {
    "lennard-jones": (LennardJones(cutoff=2.7), 18, 1.0),
    "gupta": (Gupta(preset="cleri-rosato", cutoff=5.0), 79, 2.4),
    "stillinger-weber": (StillingerWeber(), 14, 2.1),
}


def crystals(cells: list[tuple[Any, Any]], number: int, apart: float) -> list[tuple[Any, Any, Any]]:
    """Two atoms in each cell that is wide enough, no two images of them nearer than ``apart``; far from the origin."""
    generator, made = np.random.default_rng(1), []
    steps = np.array(list(itertools.product(range(-4, 5), repeat=3)), dtype=float)
    for cell, pbc in cells:
        shifts = (steps * pbc) @ cell
        lengths = np.linalg.norm(shifts, axis=1)
        if min(lengths[lengths > 0], default=np.inf) < apart:
            continue
        for _ in range(50):
            way = generator.normal(size=3) * apart
            if np.linalg.norm(way + shifts, axis=1).min() > apart:
                first = generator.normal(size=3)
                turns = generator.integers(-5, 6, 3) * pbc
                made.append((cell, pbc, np.stack([first, first + way + turns @ cell])))
                break
        if len(made) == number:
            break
    return made


def as_systems(made: list[tuple[Any, Any, Any]], z: int) -> Systems:
    cell, pbc, pos = (torch.tensor(np.stack(part)) for part in zip(*made, strict=True))
    return Systems(
        pos.reshape(-1, 3), torch.full((2 * len(made),), z), torch.arange(len(made) + 1) * 2, cell, pbc
    )


def piece(cell: Any, pbc: Any, pos: Any, reach: float) -> Any:
    """A free cluster (n, 3) with the two atoms first, and every image within ``reach`` of one of them."""
    near = pos.copy()
    if pbc.any():
        inverse = np.linalg.pinv(cell[pbc])
        near[1] -= np.rint((pos[1] - pos[0]) @ inverse) @ cell[pbc]
        most = np.ceil(reach * np.linalg.norm(inverse, axis=0) + 1.0)
        steps = np.array(list(itertools.product(*(np.arange(-m, m + 1) for m in most))))
        shifts = steps @ cell[pbc]
    else:
        shifts = np.zeros((1, 3))
    images = (near + shifts[:, None]).reshape(-1, 3)
    closest = np.linalg.norm(images[:, None] - near, axis=-1).min(1)
    return np.concatenate([near, images[(closest < reach) & (closest > 1e-6)]])


@pytest.mark.parametrize("name", POTENTIALS)
def test_forces_are_those_in_a_piece_cut_out(name: str, random_cells: Cells) -> None:
    """Down to 20 degrees and to cells that are much smaller than the cutoff."""
    potential, z, apart = POTENTIALS[name]
    reach = potential.reach()
    assert reach is not None
    cells = random_cells(600, seed=6, shortest=apart, longest=3.0 * apart)
    made = crystals(cells, 24, apart)
    assert len(made) == 24 and {int(pbc.sum()) for _, pbc, _ in made} >= {1, 2, 3}
    systems = as_systems(made, z)
    found = potential.evaluate(systems)
    assert found.row_energy is not None
    scale = float(found.force.abs().max())
    for k, (cell, pbc, pos) in enumerate(made):
        # forces on both atoms come from the sites within the reach, which look as far again
        cut = piece(cell, pbc, pos, 2.0 * reach + 1e-6)
        n = len(cut)
        cluster = Systems(torch.tensor(cut), torch.full((n,), z), torch.tensor([0, n]))
        expected = potential.evaluate(cluster)
        assert expected.row_energy is not None
        rows = slice(2 * k, 2 * k + 2)
        torch.testing.assert_close(found.force[rows], expected.force[:2], rtol=1e-9, atol=1e-9 * scale)
        torch.testing.assert_close(found.row_energy[rows], expected.row_energy[:2], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", POTENTIALS)
def test_both_engines_agree_in_any_cell(name: str, random_cells: Cells) -> None:
    potential, z, apart = POTENTIALS[name]
    cells = random_cells(600, seed=6, shortest=apart, longest=3.0 * apart)
    systems = as_systems(crystals(cells, 24, apart), z)
    step = 1e-3 / float(potential.evaluate(systems).force.abs().max())
    landscape = AtomsLandscape(systems, potential)
    ends = [_after_steps(landscape, step, engine) for engine in ("eager", "fused")]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-10)


def _after_steps(landscape: AtomsLandscape, step: float, engine: str) -> torch.Tensor:
    driver = Driver(landscape, GradientDescent(step_size=step), Stop(4), 1, engine)
    keys = torch.arange(landscape.segments.n_problems)
    x: torch.Tensor = driver.advance(driver.begin(landscape.systems.pos, keys)).x
    return x


def test_pairs_are_those_of_all_images(random_cells: Cells) -> None:
    for cell, pbc in random_cells(60, seed=7, shortest=1.0, longest=6.0):
        generator = np.random.default_rng(0)
        pos = generator.normal(size=(3, 3)) * 3.0
        vectors = cell[pbc]
        inverse = np.linalg.pinv(vectors)
        spread = np.ptp(pos @ inverse, axis=0)
        most = np.ceil(2.5 * np.linalg.norm(inverse, axis=0) + spread)
        steps = np.array(list(itertools.product(*(np.arange(-m, m + 1) for m in most))))
        apart = np.linalg.norm((pos[:, None] - pos)[None] + (steps @ vectors)[:, None, None], axis=-1)
        expected = np.sort(apart[(apart < 2.5) & (apart > 0.0)])[::2]
        systems = as_systems([(cell, pbc, pos[:2])], 18)
        systems = Systems(
            torch.tensor(pos), torch.full((3,), 18), torch.tensor([0, 3]), systems.cell, systems.pbc
        )
        for find in (find_neighbours, find_pairs):
            pairs = find(systems, 2.5)
            lengths = torch.linalg.vector_norm(pairs.differences(systems), dim=0).sort().values.numpy()
            np.testing.assert_allclose(lengths, expected, rtol=1e-9)


@pytest.mark.parametrize("angle", [30.0, 60.0, 135.0])
def test_a_skyrmion_goes_around_the_edges_of_a_skewed_lattice(angle: float) -> None:
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    lattice = SpinLattice(
        cell=[[1.0, 0.0, 0.0], [cosine, sine, 0.0], [0.0, 0.0, 1.0]],
        basis=[[0.0, 0.0, 0.0]],
        kind="given",
        repeat=[16, 16, 1],
        periodic=[True, True, False],
        moments=2.0,
    )
    center = np.array([3.3, 0.4])
    x = Skyrmion(radius=2.0, center=center.tolist()).spins(lattice).numpy()
    steps = np.array(list(itertools.product(range(-3, 4), repeat=2)))
    shifts = 16.0 * steps @ lattice.vectors[:2, :2]
    away = np.linalg.norm(lattice.positions[:, None, :2] - center + shifts, axis=-1).min(1)
    order = np.argsort(away)
    assert (np.diff(x[order, 2]) >= -1e-9).all()  # the farther from the centre, the more along the background
    moved = Skyrmion(radius=2.0, center=(center + 2 * shifts[3]).tolist()).spins(lattice).numpy()
    np.testing.assert_allclose(moved, x, rtol=0, atol=1e-9)
