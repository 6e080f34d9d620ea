"""Shortest vectors in periodic cells: against ASE, batch against loop, derivatives, and who asks for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase.geometry.geometry import general_find_mic

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.geometry.minimum_image import MinimumImage, shortest_vectors
from mlopt.core.landscapes.manifold import Flat
from mlopt.core.minima.matching import sorted_distances
from mlopt.core.structures.checks import check_structures, coincident_pairs

Cells = Callable[..., list[tuple[Any, Any]]]
HEXAGONAL = np.array([[2.5, 0.0, 0.0], [1.25, 2.165, 0.0], [0.0, 0.0, 6.0]])


def nearest(vectors: Any, cell: Any, pbc: Any) -> Any:
    """ASE's: what `find_mic` does unless it takes a short cut, which is wrong in a skewed cell with a short diagonal.

    It mixes in vectors along which there is no periodicity, unless they are zero.
    """
    return general_find_mic(vectors, cell * pbc[:, None], pbc)


def vectors_of(number: int, seed: int) -> Any:
    """Some short, some many cells long."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(number, 3)) * np.exp(generator.uniform(-2.0, 6.0, (number, 1)))


def flat_of(cells: list[tuple[Any, Any]], rows: int, dtype: torch.dtype = torch.float64) -> Flat:
    cell = torch.tensor(np.stack([cell for cell, _ in cells]), dtype=dtype).repeat_interleave(rows, 0)
    return Flat(cell, torch.tensor(np.stack([pbc for _, pbc in cells])).repeat_interleave(rows, 0))


def test_differences_are_those_of_ase_in_a_thousand_cells(random_cells: Cells) -> None:
    cells, rows = random_cells(1000), 8
    flat = flat_of(cells, rows)
    x, way = torch.from_numpy(vectors_of(8000, 1)), torch.from_numpy(vectors_of(8000, 2))
    found = flat.difference(x, x + way).numpy().reshape(-1, rows, 3)
    long = (x + way - x).numpy().reshape(-1, rows, 3)
    for (cell, pbc), own, whole in zip(cells, found, long, strict=True):
        lengths = nearest(whole, cell, pbc)[1]
        np.testing.assert_allclose(np.linalg.norm(own, axis=1), lengths, rtol=1e-9, atol=1e-10)
        taken = (whole - own) @ np.linalg.pinv(cell[pbc]) if pbc.any() else np.zeros((rows, 0))
        np.testing.assert_allclose(taken, np.rint(taken), rtol=0, atol=1e-7)
        np.testing.assert_allclose(taken @ cell[pbc], whole - own, rtol=0, atol=1e-9)
    assert torch.equal(
        flat.distance(x, x + way), torch.linalg.vector_norm(torch.tensor(found), dim=-1).flatten()
    )


@pytest.mark.parametrize("angle", [20.0, 60.0, 89.0, 120.0, 160.0])
def test_every_image_is_tried(angle: float) -> None:
    """Against all images that can be nearer, in a plane and in space."""
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    cell = np.array([[2.0, 0.0, 0.0], [3.0 * cosine, 3.0 * sine, 0.0], [0.7, 0.9, 2.5]])
    steps = np.array(list(itertools.product(range(-6, 7), repeat=3)), dtype=float)
    for pbc in ([True, True, False], [True, True, True], [False, True, True], [False, True, False]):
        on = np.array(pbc)
        vectors = np.random.default_rng(3).uniform(0.0, 1.0, (300, 3)) @ cell
        every = vectors[:, None] + (steps * on) @ cell
        expected = np.linalg.norm(every, axis=-1).min(1)
        found = np.linalg.norm(shortest_vectors(vectors, cell, on), axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_vector_without_periodicity_makes_no_difference(random_cells: Cells) -> None:
    cells, other = random_cells(100), random_cells(100, seed=9)
    mixed = [(np.where(pbc[:, None], a, b), pbc) for (a, pbc), (b, _) in zip(cells, other, strict=True)]
    x, y = (torch.from_numpy(vectors_of(100, seed)) for seed in (1, 2))
    assert torch.equal(flat_of(cells, 1).difference(x, y), flat_of(mixed, 1).difference(x, y))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bits_do_not_depend_on_the_batch(random_cells: Cells, dtype: torch.dtype) -> None:
    """Cells of all shapes in one batch, some of them with right angles, some not periodic at all."""
    box = (np.diag([4.0, 5.0, 6.0]), np.array([True, True, False]))
    cells = [*random_cells(30), box, *random_cells(10, seed=1), (np.zeros((3, 3)), np.zeros(3, dtype=bool))]
    flat = flat_of(cells, 5, dtype)
    x, y = (torch.from_numpy(vectors_of(len(cells) * 5, seed)).to(dtype) for seed in (1, 2))
    whole = flat.difference(x, y)
    assert whole.dtype == dtype
    assert torch.equal(flat.difference(y, x), -whole)
    generator = torch.Generator().manual_seed(0)
    for number in (1, 1, 2, 7, 100):
        rows = torch.randint(len(x), (number,), generator=generator)
        assert torch.equal(flat.select(rows, rows).difference(x[rows], y[rows]), whole[rows])
    for k, (cell, pbc) in enumerate(cells):
        rows = torch.arange(5 * k, 5 * k + 5)
        assert torch.equal(flat_of([(cell, pbc)], 5, dtype).difference(x[rows], y[rows]), whole[rows])


def test_boxes_keep_their_bits() -> None:
    """Cells along the axes: the rounded share of each edge is taken off, and nothing else is done."""
    edge = torch.tensor([4.1, 5.3, 6.7], dtype=torch.float64)
    flat = Flat(torch.diag(edge).expand(500, 3, 3), torch.ones(500, 3, dtype=torch.bool))
    x, y = (torch.from_numpy(vectors_of(500, seed)) for seed in (1, 2))
    delta = y - x
    assert torch.equal(flat.difference(x, y), delta - (delta * (1.0 / edge)).round() * edge)


def test_a_difference_has_the_derivative_of_a_difference(random_cells: Cells) -> None:
    flat = flat_of(random_cells(20), 1)
    assert flat.cell is not None and flat.pbc is not None
    x, y = (torch.from_numpy(vectors_of(20, seed)).requires_grad_() for seed in (1, 2))
    torch.autograd.gradcheck(flat.difference, (x, y))
    # stretching space stretches the shortest vector
    strain = 1e-3 * torch.from_numpy(np.random.default_rng(0).normal(size=(3, 3)))
    strain.requires_grad_()
    stretched = Flat(flat.cell + flat.cell @ strain, flat.pbc).difference(
        x.detach() @ (torch.eye(3) + strain), y
    )
    (slope,) = torch.autograd.grad(stretched.sum(), strain)
    assert bool(slope.isfinite().all()) and float(slope.abs().max()) > 0


def test_cells_are_reduced_once(random_cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, of = [], MinimumImage.of

    def counted(cells: torch.Tensor, pbc: torch.Tensor) -> MinimumImage:
        asked.append(len(cells))
        return of(cells, pbc)

    monkeypatch.setattr(MinimumImage, "of", counted)
    flat = flat_of(random_cells(3), 50)
    x, y = (torch.from_numpy(vectors_of(150, seed)) for seed in (1, 2))
    for rows in (torch.arange(150), torch.arange(40, 90)):
        part = flat.select(rows, rows)
        part.difference(x[rows], y[rows])
        part.select(rows[:5], rows[:5] - rows[0]).distance(x[rows[:5]], y[rows[:5]])
    assert asked == [3]


def test_a_row_without_a_sensible_cell_spoils_no_other() -> None:
    cell = torch.stack([torch.from_numpy(HEXAGONAL), torch.zeros(3, 3).double(), torch.ones(3, 3).double()])
    flat = Flat(cell, torch.ones(3, 3, dtype=torch.bool))
    x, y = torch.zeros(3, 3).double(), torch.from_numpy(vectors_of(3, 0))
    found = flat.difference(x, y)
    alone = flat_of([(HEXAGONAL, np.ones(3, dtype=bool))], 1).difference(x[:1], y[:1])
    assert torch.equal(found[:1], alone) and torch.equal(found[1], y[1])
    assert Flat(cell[:0], flat.pbc[:0]).difference(x[:0], y[:0]).shape == (0, 3)  # type: ignore[index]


def test_sorted_distances_are_those_of_nearest_images(random_cells: Cells) -> None:
    """Also in slabs whose third vector is tilted, which minima are told apart by."""
    for k, (cell, pbc) in enumerate(random_cells(60, seed=2)):
        pos = vectors_of(5, k)
        i, j = np.triu_indices(5, 1)
        expected = np.sort(nearest(pos[j] - pos[i], cell, pbc)[1])
        np.testing.assert_allclose(
            sorted_distances(pos, [18] * 5, cell, pbc), expected, rtol=1e-9, atol=1e-10
        )


def test_coincident_atoms_are_found_in_any_cell(random_cells: Cells) -> None:
    """Within a distance that may be longer than the cell is wide."""
    generator = np.random.default_rng(0)
    for cell, pbc in random_cells(60, seed=3, shortest=0.3, longest=3.0):
        pos = generator.uniform(-5.0, 5.0, (4, 3))
        i, j = np.triu_indices(4, 1)
        lengths = nearest(pos[j] - pos[i], cell, pbc)[1]
        expected = [(a, b) for a, b, r in zip(i.tolist(), j.tolist(), lengths, strict=True) if r < 0.4]
        found = coincident_pairs(pos, cell, pbc, 0.4)
        assert [(a, b) for a, b, _ in found] == expected
        close = [r for r in lengths if r < 0.4]
        np.testing.assert_allclose([r for _, _, r in found], close, rtol=1e-9, atol=1e-10)


def test_a_cell_that_repeats_too_soon_is_refused() -> None:
    cell = torch.tensor([[[5.0, 0, 0], [5.0, 4e-4, 0], [0, 0, 6.0]]], dtype=torch.float64)
    systems = Systems(
        torch.zeros(1, 3).double(), torch.tensor([18]), torch.tensor([0, 1]), cell, torch.ones(1, 3).bool()
    )
    with pytest.raises(InputError, match=r"repeats every 0\.0004.*image of itself.*Correct the cell vectors"):
        check_structures(systems)


@pytest.mark.gpu
def test_cuda_finds_the_same(random_cells: Cells) -> None:
    flat = flat_of(random_cells(50), 20)
    assert flat.cell is not None and flat.pbc is not None
    x, y = (torch.from_numpy(vectors_of(1000, seed)) for seed in (1, 2))
    there = Flat(flat.cell.cuda(), flat.pbc.cuda()).distance(x.cuda(), y.cuda()).cpu()
    torch.testing.assert_close(there, flat.distance(x, y), rtol=1e-9, atol=1e-10)
