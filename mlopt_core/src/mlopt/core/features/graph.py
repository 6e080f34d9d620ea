"""The graph of neighbouring rows, over which features sum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from mlopt.core.atoms.neighbours import find_neighbours
from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.segments import Segments
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch


@dataclass(frozen=True)
class Graph:
    """Directed edges between the rows of a batch: both directions of each pair, in PyG's convention.

    edge_index: (2, n_edges) int64, sources above targets, sorted by target, source and shift. The order fixes the
        rounding of sums. It depends neither on the batch nor on when the graph was made.
    segments: the rows of each problem; no edge leaves a problem.
    shift: (n_edges, 3) number of cells by which the image of the source is shifted; None if nothing is periodic.
    cell: (n_problems, 3, 3) lattice vectors as rows, needed with ``shift``.
    lost: (n_problems,) bool, problems without edges because a position is not finite or the cell has no volume; None
        for none.
    complete: True if every row is joined to every other row of its problem, and to nothing else.
    cutoff: distance up to which no pair is missing, in equilibrium distances; None if unknown. Features with a longer
        cutoff refuse the graph.
    """

    edge_index: torch.Tensor
    segments: Segments
    shift: torch.Tensor | None = None
    cell: torch.Tensor | None = None
    lost: torch.Tensor | None = None
    complete: bool = False
    cutoff: float = math.inf

    @staticmethod
    def complete_of(segments: Segments) -> Graph:
        """Return the graph of all pairs in each problem. It does not depend on positions."""
        ptr, counts = segments.ptr, segments.counts
        row = torch.arange(segments.n_rows, device=ptr.device)
        start, degree = segments.rows_of(ptr[:-1]), segments.rows_of(counts) - 1
        target = torch.repeat_interleave(row, degree)
        slot = torch.arange(len(target), device=ptr.device) - (degree.cumsum(0) - degree)[target]
        source = slot + (slot >= (row - start)[target])  # count past the target itself
        return Graph(torch.stack([source + start[target], target]), segments, complete=True)

    @staticmethod
    def within(systems: Systems, reach: float) -> Graph:
        """Return the graph of all pairs closer than ``reach`` (in the length of ``pos``), with all periodic images.

        Raises:
            InputError: the reach is not positive.
        """
        if not reach > 0:
            raise InputError(f"Graph.within: `reach` must be a positive length, got {reach}")
        found = find_neighbours(systems, reach)
        source = torch.cat([found.second, found.first])
        target = torch.cat([found.first, found.second])
        shift = torch.cat([found.shift, -found.shift]) if systems.periodic else None
        order = torch.arange(len(target), device=target.device)
        for key in (*(() if shift is None else reversed(shift.unbind(1))), source, target):
            order = order[key[order].argsort(stable=True)]
        edges = torch.stack([source[order], target[order]])
        if shift is not None:
            shift = shift[order]
        return Graph(edges, systems.segments, shift, None if shift is None else systems.cell, found.lost)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.segments.n_rows

    @property
    def n_edges(self) -> int:
        """Number of directed edges."""
        return self.edge_index.shape[1]

    @cached_property
    def lost_rows(self) -> torch.Tensor | None:
        """(n_rows,) bool, the rows of lost problems; None if no problem is lost."""
        if self.lost is None or not bool(self.lost.any()):
            return None
        return self.segments.rows_of(self.lost)

    @cached_property
    def offset(self) -> torch.Tensor | None:
        """(3, n_edges) vector by which the image of the source is shifted; None if nothing is periodic."""
        if self.shift is None or self.cell is None:
            return None
        count = self.shift.T.to(self.cell.dtype)[:, None]
        cell = self.cell[self.segments.batch[self.edge_index[1]]].permute(1, 2, 0)
        return count[0] * cell[0] + count[1] * cell[1] + count[2] * cell[2]

    @cached_property
    def _uniform(self) -> int | None:
        """The number of rows of each problem in a complete graph of equal problems, else None."""
        size = self.segments.size
        return size if self.complete and size is not None and size > 1 else None

    def squares(self, x: torch.Tensor, diameter: torch.Tensor | None = None) -> torch.Tensor:
        """Return the squared distance of each edge of ``x (n_rows, d)``: (n_edges,), twice differentiable.

        diameter: (n_rows,); if given, distances are in units of the mean diameter of both ends.
        """
        columns = x.T.contiguous()
        size = self._uniform
        if size is not None:  # three times as fast as looking up both ends, with its derivative more so
            block = columns.reshape(len(columns), -1, size)
            total = _squared_length(block[:, :, None, :] - block[:, :, :, None])
            if diameter is not None:
                width = diameter.to(x.dtype).reshape(-1, size)
                total = total / (0.5 * (width[:, None, :] + width[:, :, None])).square()
            return _off_diagonal(total).reshape(-1)
        source, target = self.edge_index
        difference = columns.index_select(1, source) - columns.index_select(1, target)
        if self.offset is not None:
            difference = difference + self.offset.to(x.dtype)
        total = _squared_length(difference)
        if diameter is not None:
            width = diameter.to(x.dtype)
            total = total / (0.5 * (width[source] + width[target])).square()
        return total

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum ``values (k, n_edges)`` over the edges of each target: (k, n_rows).

        On the CPU the sum is bit for bit independent of the batch. A complete graph is summed along the rows of a
        matrix, any other graph edge by edge.
        """
        k = len(values)
        if self._uniform is not None:
            return values.reshape(k, self.n_rows, self._uniform - 1).sum(-1)
        out = values.new_zeros(k, self.n_rows)
        if self.complete:
            stop = (self.segments.rows_of(self.segments.counts) - 1).cumsum(0)
            for size, _, rows in self.segments.buckets:
                if size < 2:
                    continue
                slots = torch.arange(1 - size, 0, device=rows.device)
                edges = (stop[rows, None] + slots).flatten()
                out = out.index_copy(1, rows, values[:, edges].reshape(k, len(rows), -1).sum(-1))
            return out
        target, zero = self.edge_index[1], values.new_zeros(self.n_rows)
        # one component at a time: on the CPU, 1-D index_add is a plain loop, fast and in a fixed order
        return torch.stack([zero.index_add(0, target, one) for one in values.unbind(0)]) if k else out


def _squared_length(difference: torch.Tensor) -> torch.Tensor:
    """Return the sum of the squared components, which are the first dimension."""
    total = difference[0] * difference[0]
    for component in difference[1:]:
        total = torch.addcmul(total, component, component)
    return total


def _off_diagonal(square: torch.Tensor) -> torch.Tensor:
    """Return ``(b, n, n)`` without the diagonals, row by row: (b, n, n - 1)."""
    b, n, _ = square.shape
    return square.reshape(b, n * n)[:, 1:].reshape(b, n - 1, n + 1)[:, :, :-1].reshape(b, n, n - 1)
