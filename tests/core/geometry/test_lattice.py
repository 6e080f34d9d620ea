"""Lattices: reduced, completed and reciprocal vectors, in tensors and in kernels."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase.geometry import minkowski_reduce

from mlopt.core.geometry import lattice_kernel
from mlopt.core.geometry.lattice import complete, reciprocal, reduced_vectors, reduction

Cells = Callable[..., list[tuple[Any, Any]]]


def stacked(cells: list[tuple[Any, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(np.stack(part)) for part in zip(*cells, strict=True))  # type: ignore[return-value]


def test_reduced_vectors_are_a_shortest_basis(random_cells: Cells) -> None:
    """Minkowski's conditions, the same lattice, and the lengths that ASE finds."""
    cells = random_cells(400)
    numbers = reduction(*stacked(cells)).numpy()
    for (cell, pbc), own in zip(cells, numbers, strict=True):
        assert (own == np.rint(own)).all() and not own[~pbc].any() and not own[:, ~pbc].any()
        if not pbc.any():
            continue
        inside = own[np.ix_(pbc, pbc)]
        assert abs(np.linalg.det(inside)) == pytest.approx(1.0)
        reduced = reduced_vectors(cell, pbc)
        np.testing.assert_allclose(reduced, inside @ cell[pbc], rtol=0, atol=1e-9)
        lengths = np.linalg.norm(reduced, axis=1)
        assert (np.diff(lengths) >= -1e-9).all()
        for k in range(1, len(reduced)):
            steps = np.array(list(itertools.product((-1, 0, 1), repeat=k)))
            others = np.linalg.norm(reduced[k] + steps @ reduced[:k], axis=1)
            assert (others >= lengths[k] * (1.0 - 1e-9)).all()
        expected = np.linalg.norm(minkowski_reduce(cell, pbc)[0][pbc], axis=1)
        np.testing.assert_allclose(lengths, np.sort(expected), rtol=1e-9)


def test_a_very_skewed_cell_is_recognised() -> None:
    generator = np.random.default_rng(0)
    cell = np.diag([3.0, 4.0, 5.0])
    for _ in range(6):
        first, second = generator.permutation(3)[:2]
        cell[first] += generator.integers(-9, 10) * cell[second]
    lengths = np.linalg.norm(reduced_vectors(cell, np.ones(3, dtype=bool)), axis=1)
    np.testing.assert_allclose(lengths, [3.0, 4.0, 5.0], rtol=1e-12)


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.ones((3, 3)), np.full((3, 3), np.nan)])
def test_cells_without_volume_end_and_spoil_no_other(cell: Any) -> None:
    good = np.array([[4.0, 0.0, 0.0], [39.0, 5.0, 0.0], [0.0, 0.0, 6.0]])
    both = torch.from_numpy(np.stack([cell, good]))
    on = torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(reduction(both, on)[1], reduction(both[1:], on[1:])[0])


def test_a_cell_is_completed_at_right_angles(random_cells: Cells) -> None:
    cells, pbc = stacked(random_cells(200))
    whole = complete(cells, pbc)
    assert torch.equal(whole[pbc], cells[pbc])
    shape = whole / torch.linalg.vector_norm(whole, dim=-1, keepdim=True)
    beside = (shape @ shape.mT)[~pbc]
    expected = torch.eye(3, dtype=torch.float64).expand(200, 3, 3)[~pbc]
    torch.testing.assert_close(beside, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(whole[~pbc], shape[~pbc], rtol=0, atol=1e-12)
    dual = reciprocal(whole)
    torch.testing.assert_close(
        whole @ dual.mT, torch.eye(3, dtype=torch.float64).expand(200, 3, 3), rtol=0, atol=1e-10
    )
    # what stands in place of a vector without periodicity does not matter
    other = torch.where(pbc[:, :, None], cells, torch.full_like(cells, float("nan")))
    assert torch.equal(complete(other, pbc), whole)


def test_axes_complete_vectors_along_axes() -> None:
    """Starts in slabs and wires along the axes are what they always were."""
    cell = torch.diag(torch.tensor([3.0, 4.0, 5.0])).repeat(8, 1, 1)
    pbc = torch.tensor(list(itertools.product([False, True], repeat=3)))
    assert torch.equal(complete(cell, pbc), torch.where(pbc[:, :, None], cell, torch.eye(3)))


def test_kernels_complete_a_cell_too(random_cells: Cells) -> None:
    for cell, pbc in random_cells(100):
        out = np.full(20, np.nan)
        lattice_kernel.complete(np.concatenate([cell.ravel(), pbc]), 1, out)
        whole, dual = out[1:10].reshape(3, 3), out[10:19].reshape(3, 3)
        np.testing.assert_array_equal(whole[pbc], cell[pbc])
        np.testing.assert_allclose(whole @ dual.T, np.eye(3), rtol=0, atol=1e-10)
        np.testing.assert_allclose((whole @ whole.T)[~pbc], np.eye(3)[~pbc], rtol=0, atol=1e-9)
