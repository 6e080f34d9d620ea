"""The neighbours of each atom, with the vector to each, over which fitted potentials sum."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlopt.core.atoms.neighbours import find_all_neighbours, find_neighbours
from mlopt.core.atoms.systems import Systems
from mlopt.core.lazy import torch


@dataclass(frozen=True)
class Neighbourhoods:
    """Pairs of each centre, one centre after the other.

    centre, other (n_pairs,) int64: atoms of the batch.
    vector (n_pairs, 3): from the centre to the other atom, differentiable in positions and cells.
    begin (n_atoms + 1,) int64: where the pairs of each centre begin.
    lost (n_systems,) bool: systems without pairs because a position is not finite or the cell has no volume.
    """

    centre: torch.Tensor
    other: torch.Tensor
    vector: torch.Tensor
    begin: torch.Tensor
    lost: torch.Tensor

    @classmethod
    def of(cls, systems: Systems, cutoff: float) -> Neighbourhoods:
        """Find all pairs nearer than ``cutoff``, each from both of its atoms."""
        half = find_neighbours(systems, cutoff)
        delta = half.differences(systems).T  # x_first - x_second
        centre = torch.cat([half.first, half.second])
        other = torch.cat([half.second, half.first])
        vector = torch.cat([-delta, delta])
        order = torch.sort(centre, stable=True).indices
        counts = torch.bincount(centre, minlength=len(systems.pos))
        begin = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(centre[order], other[order], vector[order], begin, half.lost)


def arrays(systems: Systems, cutoff: float) -> tuple[Any, Any, Any, torch.Tensor]:
    """Return begin, other and vector as arrays, without a graph, and lost (n_systems,); float64."""
    import numpy as np

    first, second, vector, lost = find_all_neighbours(systems, cutoff)
    begin = np.concatenate([[0], np.bincount(first, minlength=len(systems.pos)).cumsum()])
    return begin, second, vector, lost


@functools.cache
def gather() -> Callable[..., Any]:
    """Compile `gathered`, or load it from Numba's cache."""
    from numba import njit

    found: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy")(gathered)
    return found


def gathered(
    begin: Any, neighbour: Any, system: Any, vector: Any, pull: Any, out_force: Any, out_virial: Any
) -> None:
    """Add the contribution of each pair to the forces (n_atoms, 3) and virials dE/dstrain (n_systems, 3, 3)."""
    for i in range(len(begin) - 1):
        for pair in range(begin[i], begin[i + 1]):
            j = neighbour[pair]
            for c in range(3):
                out_force[i, c] += pull[pair, c]
                out_force[j, c] -= pull[pair, c]
                for a in range(3):
                    out_virial[system[i], a, c] += vector[pair, a] * pull[pair, c]
