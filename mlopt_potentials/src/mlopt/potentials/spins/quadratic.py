"""Energies ``1/2 S.A.S + b.S`` of many copies of a system at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlopt.core.lazy import torch

if TYPE_CHECKING:
    from mlopt.potentials.spins.shells import Floats, Integers


@dataclass(frozen=True)
class QuadraticForm:
    """A sparse symmetric matrix A, and a vector b, over the ``3 n`` components of n spins.

    A table for each component holds the components that it couples to. Exchange, anisotropy and DM interaction of any
    direction are entries of one kind. Zeros among them cost nothing.

    index: (m, 3 n) int64, the m components that each one couples to.
    weight: (m, 3 n), the entries of A; a component that couples to fewer has itself with weight 0.
    linear: (n, 3), b.
    """

    index: torch.Tensor
    weight: torch.Tensor
    linear: torch.Tensor

    @property
    def n_spins(self) -> int:
        """The number of spins of one copy."""
        return len(self.linear)

    @classmethod
    def from_blocks(
        cls, blocks: Sequence[tuple[Integers, Integers, Floats]], linear: Floats
    ) -> QuadraticForm:
        """Make the form from 3 x 3 blocks of A; blocks at the same place are added.

        blocks: rows (q,), columns (q,) and values (q, 3, 3) each. linear: (n, 3).
        """
        size = 3 * len(linear)
        inner = np.arange(3)
        rows, columns, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
        for i, j, block in blocks:
            rows.append(np.broadcast_to(3 * i[:, None, None] + inner[:, None], block.shape).ravel())
            columns.append(np.broadcast_to(3 * j[:, None, None] + inner, block.shape).ravel())
            values.append(block.ravel())
        value = np.concatenate(values)
        there = value != 0.0
        place = (np.concatenate(rows) * size + np.concatenate(columns))[there]
        unique, inverse = np.unique(place, return_inverse=True)
        total = np.bincount(inverse, value[there], len(unique))
        unique, total = unique[total != 0.0], total[total != 0.0]
        row, column = np.divmod(unique, size)
        slot = np.arange(len(row)) - np.searchsorted(row, row)  # index of each entry within its row
        width = int(slot.max(initial=-1)) + 1
        index = np.tile(np.arange(size), (width, 1))
        weight = np.zeros((width, size))
        index[slot, row], weight[slot, row] = column, total
        return cls(
            torch.from_numpy(index), torch.from_numpy(weight), torch.from_numpy(linear.astype(np.float64))
        )

    def to(self, device: torch.device | str | None, dtype: torch.dtype) -> QuadraticForm:
        """Return the form on another device, with numbers of another dtype."""
        return QuadraticForm(
            self.index.to(device), self.weight.to(device, dtype), self.linear.to(device, dtype)
        )

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``A x`` for ``x (n, 3, ...)``, where the last dimensions number copies of the system: the same shape.

        Products are added entry by entry, so that the bits of a copy do not depend on the number of copies.
        """
        copies = x.reshape(self.index.shape[1], -1)
        total = torch.zeros_like(copies)
        for index, weight in zip(self.index, self.weight, strict=True):
            # in place, but only in new tensors: memory access limits the speed
            total += copies.index_select(0, index).mul_(weight[:, None])
        return total.view(x.shape)
