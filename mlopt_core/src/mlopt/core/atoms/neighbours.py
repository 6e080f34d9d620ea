"""Neighbour lists of periodic and of large systems, by vesin (https://github.com/Luthaf/vesin)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.systems import Systems
from mlopt.core.lazy import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# vesin counts images in int32; beyond this many cells it would silently drop neighbours
_FARTHEST_CELL = 2.0**30


@dataclass(frozen=True)
class Neighbours:
    """The pairs of atoms closer than a cutoff, each once, system by system.

    first, second: (n_pairs,) int64 atoms of the batch, sorted by system and then by ``first``. An atom may be paired
        with its own images.
    shift: (n_pairs, 3) number of cells by which the image of ``second`` is shifted, in the dtype of ``pos``.
    lost: (n_systems,) bool, systems without pairs, because a position is not finite or the cell has no volume.
    """

    first: torch.Tensor
    second: torch.Tensor
    shift: torch.Tensor
    lost: torch.Tensor

    def differences(self, systems: Systems) -> torch.Tensor:
        """Return ``x_first - x_second`` of each pair: (3, n_pairs), differentiable in ``pos`` and ``cell``.

        It is computed component by component, because matrix products round differently in batches of another size.
        """
        pos = systems.pos.T.contiguous()
        delta = pos.index_select(1, self.first) - pos.index_select(1, self.second)
        if not systems.periodic:
            return delta
        cell = systems.cell[systems.batch[self.first]].permute(1, 2, 0)  # (3 vectors, 3 components, n_pairs)
        count = self.shift.T[:, None]
        return delta - (count[0] * cell[0] + count[1] * cell[1] + count[2] * cell[2])


def find_neighbours(systems: Systems, cutoff: float) -> Neighbours:
    """Return all pairs closer than ``cutoff`` (in the length of ``pos``), including all periodic images within it.

    The result is a pure function of the positions. No skin is used and nothing is cached, so a resumed run sees the
    same pairs in the same order. A system with a non-finite position, or a cell without volume, gets no pairs and is
    marked as lost. The others are not affected.
    """
    import numpy as np

    pairs, shifts = [np.empty((0, 2), dtype=np.int64)], [np.empty((0, 3), dtype=np.int32)]
    lost = np.ones(len(systems), dtype=bool)
    for index, start, pair, shift in _searched(systems, cutoff, full=False):
        lost[index] = False
        pairs.append(pair + start)
        shifts.append(shift)
    device, dtype = systems.pos.device, systems.pos.dtype
    both = torch.from_numpy(np.concatenate(pairs).T.copy()).to(device)
    moved = torch.from_numpy(np.concatenate(shifts)).to(device, dtype)
    return Neighbours(both[0], both[1], moved, torch.from_numpy(lost).to(device))


def find_all_neighbours(
    systems: Systems, cutoff: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], torch.Tensor]:
    """Return all pairs closer than ``cutoff``, each from both of its atoms, as arrays without a graph.

    first, second: (n_pairs,) atoms of the batch, sorted by the first. vector: (n_pairs, 3), from the first atom to the
        second, in the length of ``pos``.
    lost: (n_systems,) as in `Neighbours`.
    """
    import numpy as np

    points = systems.pos.detach().to("cpu", torch.float64).numpy()
    cells = systems.cell.detach().to("cpu", torch.float64).numpy()
    periodic = systems.pbc.cpu().numpy()
    pairs, vectors = [np.empty((0, 2), dtype=np.int64)], [np.empty((0, 3))]
    lost = np.ones(len(systems), dtype=bool)
    for index, start, pair, shift in _searched(systems, cutoff, full=True):
        lost[index] = False
        vector = points[start + pair[:, 1]] - points[start + pair[:, 0]]
        if periodic[index].any():
            cell = cells[index]
            # without a matrix product, which rounds differently in batches of other sizes
            vector = vector + (shift[:, :1] * cell[0] + shift[:, 1:2] * cell[1] + shift[:, 2:] * cell[2])
        pairs.append(pair + start)
        vectors.append(vector)
    both = np.concatenate(pairs)
    first, second = np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])
    return first, second, np.concatenate(vectors), torch.from_numpy(lost).to(systems.pos.device)


def _searched(
    systems: Systems, cutoff: float, full: bool
) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int32]]]:
    """Yield for each system that is sound its index, first atom, pairs (n, 2) of its own atoms, and shifts (n, 3)."""
    import numpy as np
    from vesin import NeighborList

    # one thread: the order of the pairs, and so the rounding of sums over them, must not depend on the machine
    search = NeighborList(cutoff=float(cutoff), full_list=full, sorted=True, n_threads=1)
    points = systems.pos.detach().to("cpu", torch.float64).numpy()
    cells = systems.cell.detach().to("cpu", torch.float64).numpy()
    periodic = systems.pbc.cpu().numpy()
    for index, (start, stop) in enumerate(pairwise(systems.ptr.tolist())):
        found = _pairs_of(search, points[start:stop], cells[index], periodic[index])
        if found is not None:
            yield index, start, found[0].astype(np.int64), found[1]


def _pairs_of(
    search: Any, points: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
) -> tuple[NDArray[np.uint64], NDArray[np.int32]] | None:
    """Return pairs (n, 2) and cell shifts (n, 3) of one system, or None where a position or the cell makes no sense."""
    import numpy as np
    from ase.geometry import complete_cell

    if not (np.isfinite(points).all() and np.isfinite(cell).all()):
        return None
    if pbc.any():
        # a direction without periodicity may have no vector, but vesin wants an invertible matrix
        cell = complete_cell(cell * pbc[:, None])
        try:
            fractional = points @ np.linalg.inv(cell)
        except np.linalg.LinAlgError:
            return None
        if np.abs(fractional).max(initial=0.0) > _FARTHEST_CELL:
            return None
    else:
        cell = np.zeros((3, 3))
    try:
        pairs, shifts = search.compute(points, cell, pbc, "PS")
    except RuntimeError:  # an almost flat cell
        return None
    return pairs, shifts
