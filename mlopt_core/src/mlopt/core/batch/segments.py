"""Segments: the rows of each problem in a batch, and reductions over them.

Problems are concatenated, never padded. A reduction adds the rows of a problem in an order that depends on that problem
alone. On the CPU a problem's result is therefore bit for bit the same in any batch.
"""

from __future__ import annotations

from functools import cached_property

from mlopt.core.errors import InputError
from mlopt.core.lazy import torch


class Segments:
    """The rows ``ptr[i]:ptr[i + 1]`` form problem ``i``.

    ptr: (n_problems + 1,) int64, non-decreasing, starting at 0.

    >>> segments = Segments(torch.tensor([0, 2, 5]))
    >>> segments.sum(torch.ones(5, 3)).tolist(), segments.batch.tolist()
    ([6.0, 9.0], [0, 0, 1, 1, 1])
    >>> segments.rows_of(torch.tensor([10, 20])).tolist()
    [10, 10, 20, 20, 20]
    """

    def __init__(self, ptr: torch.Tensor) -> None:
        if ptr.ndim != 1 or ptr.numel() < 1 or int(ptr[0]) != 0 or bool((ptr.diff() < 0).any()):
            raise InputError(
                f"`ptr` must be a non-decreasing 1-D tensor that starts at 0, got {ptr.tolist()}"
            )
        self.ptr = ptr.to(torch.int64)
        self.n_problems = ptr.numel() - 1
        self.n_rows = int(ptr[-1])
        counts = self.counts
        uniform = self.n_problems > 0 and bool((counts == counts[0]).all())
        #: rows per problem where all have the same number, else None
        self.size: int | None = int(counts[0]) if uniform else None

    @classmethod
    def uniform(cls, n_problems: int, size: int, device: torch.device | str | None = None) -> Segments:
        """Return ``n_problems`` problems of ``size`` rows each."""
        made = cls.__new__(cls)  # no checks: parts of a batch are made at every hop
        made.ptr = torch.arange(n_problems + 1, dtype=torch.int64, device=device) * size
        made.n_problems, made.n_rows, made.size = n_problems, n_problems * size, size if n_problems else None
        return made

    @cached_property
    def counts(self) -> torch.Tensor:
        """(n_problems,) rows of each problem."""
        return self.ptr.diff()

    @cached_property
    def batch(self) -> torch.Tensor:
        """(n_rows,) problem of each row (PyG's ``batch``)."""
        index = torch.arange(self.n_problems, device=self.ptr.device)
        return torch.repeat_interleave(index, self.counts, output_size=self.n_rows)

    @cached_property
    def buckets(self) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
        """Problems grouped by size: ``(size, problems (b,), rows (b * size,))`` for each size that occurs."""
        found = []
        for size in torch.unique(self.counts).tolist():
            problems = torch.nonzero(self.counts == size).flatten()
            offsets = torch.arange(size, device=self.ptr.device)
            found.append((int(size), problems, (self.ptr[problems, None] + offsets).flatten()))
        return found

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum ``values (n_rows, ...)`` over everything that belongs to a problem: (n_problems,)."""
        values = values.contiguous()  # torch sums strided memory in another order
        if self.size is not None:
            return values.reshape(self.n_problems, -1).sum(-1)
        out = values.new_zeros(self.n_problems)
        for _, problems, rows in self.buckets:
            out = out.index_put((problems,), values[rows].reshape(problems.numel(), -1).sum(-1))
        return out

    def sum_stack(self, values: torch.Tensor) -> torch.Tensor:
        """Return `sum` of each of k arrays, ``values (k, n_rows, d)``: (n_problems, k)."""
        k, values = len(values), values.contiguous()
        if self.size is not None:
            return values.reshape(k, self.n_problems, -1).sum(-1).T
        out = values.new_zeros(self.n_problems, k)
        for _, problems, rows in self.buckets:
            out = out.index_put((problems,), values[:, rows].reshape(k, problems.numel(), -1).sum(-1).T)
        return out

    def dot(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return the inner product of ``a, b (n_rows, d)`` in each problem: (n_problems,)."""
        return self.sum(a * b)

    def max(self, values: torch.Tensor) -> torch.Tensor:
        """Return the largest entry of ``values (n_rows, ...)`` in each problem; 0 without rows: (n_problems,)."""
        if self.size:
            return values.reshape(self.n_problems, -1).amax(-1)
        out = values.new_zeros(self.n_problems)
        for size, problems, rows in self.buckets:
            if size:
                out = out.index_put((problems,), values[rows].reshape(problems.numel(), -1).amax(-1))
        return out

    def longest2(self, values: torch.Tensor) -> torch.Tensor:
        """Return the largest squared length of a row of ``values (n_rows, d)`` in each problem: (n_problems,)."""
        squares = values * values
        # torch sums a short last dimension slowly: adding the columns takes a fifth of the time
        columns = squares.unbind(-1)
        return self.max(sum(columns[1:], columns[0]) if len(columns) <= 4 else squares.sum(-1))

    def scale(
        self, per_problem: torch.Tensor, values: torch.Tensor, plus: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Multiply rows of ``values (n_rows, d)`` by their problem's ``per_problem (n_problems,)``; add ``plus``."""
        shape = values.shape
        if self.size is not None:
            values, factor = values.reshape(self.n_problems, -1), per_problem.unsqueeze(1)
            plus = None if plus is None else plus.reshape(self.n_problems, -1)
        else:
            factor = per_problem[self.batch][:, None]
        product = values * factor if plus is None else torch.addcmul(plus, values, factor)
        return product.view(shape)

    def combine(self, weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Sum over k of ``values (k, n_rows, d)`` times ``weights (n_problems, k)``: (n_rows, d).

        Terms are added one by one, because ``sum(0)`` would add in an order that depends on the batch.
        """
        shape = values.shape[1:]
        if self.size is not None:
            values = values.reshape(len(values), self.n_problems, -1)
        else:
            weights = weights[self.batch]
        total = values[0] * weights[:, :1]
        for i in range(1, len(values)):
            total = torch.addcmul(total, values[i], weights[:, i : i + 1])
        return total.reshape(shape)

    def argmax(self, values: torch.Tensor) -> torch.Tensor:
        """Return the row of the largest ``values (n_rows,)`` in each problem, the first of equals: (n_problems,) int64.

        Every problem must have rows.
        """
        if self.size:
            return values.reshape(self.n_problems, -1).argmax(-1) + self.ptr[:-1]
        out = self.ptr[:-1].clone()
        for _, problems, rows in self.buckets:
            out[problems] += values[rows].reshape(problems.numel(), -1).argmax(-1)
        return out

    def mean_rows(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of ``values (n_rows, d)`` over the rows of each problem: (n_problems, d)."""
        columns = [self.sum(column) for column in values.unbind(-1)]
        return torch.stack(columns, -1) / self.counts.clamp(min=1)[:, None].to(values.dtype)

    def spread(self, per_problem: torch.Tensor | float) -> torch.Tensor | float:
        """Give each row its problem's value, ready to broadcast against (n_rows, d).

        A float or a 0-d tensor is returned as it is. A tensor (n_problems,) becomes (n_rows, 1), and (n_problems, d)
        becomes (n_rows, d). A hyper-parameter may therefore be one number, or one number per problem.
        """
        if not isinstance(per_problem, torch.Tensor) or per_problem.ndim == 0:
            return per_problem
        rows = self.rows_of(per_problem)
        return rows[:, None] if per_problem.ndim == 1 else rows

    def rows_of(self, per_problem: torch.Tensor) -> torch.Tensor:
        """Repeat ``per_problem (n_problems, ...)`` for each row of the problem: (n_rows, ...)."""
        if self.size is not None:  # a view would do for elementwise use, but a copy is safe and as fast here
            shape = per_problem.shape[1:]
            expanded = per_problem[:, None].expand(self.n_problems, self.size, *shape)
            return expanded.reshape(self.n_rows, *shape)
        return per_problem[self.batch]

    def blocks(self, most: int) -> list[tuple[int, int]]:
        """Return ranges of problems, first and stop, that have at most ``most`` rows together, or are one problem."""
        found, first, rows = [], 0, 0
        for problem, count in enumerate(self.counts.tolist()):
            if problem > first and rows + count > most:
                found.append((first, problem))
                first, rows = problem, 0
            rows += count
        if self.n_problems:
            found.append((first, self.n_problems))
        return found

    def select(self, problems: torch.Tensor) -> tuple[Segments, torch.Tensor]:
        """Keep ``problems (k,)`` (int64, in that order); return their segments and their rows (int64)."""
        if self.size is not None:
            offsets = torch.arange(self.size, device=problems.device)
            rows = (problems[:, None] * self.size + offsets).flatten()
            return Segments.uniform(problems.numel(), self.size, problems.device), rows
        counts = self.counts[problems]
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        chosen = Segments(ptr)
        starts = self.ptr[problems] - ptr[:-1]
        rows = chosen.rows_of(starts) + torch.arange(chosen.n_rows, device=ptr.device)
        return chosen, rows

    def to(self, device: torch.device | str) -> Segments:
        """Return the segments on another device."""
        return Segments(self.ptr.to(device))
