"""The active set: the rows of largest volume, and the structures to which they belong.

Coefficients come from the triangles of elimination, not from an inverse. Rows may be nearly dependent, and triangles
then lose fewer digits at the same cost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.optimizers.querying.maxvol import (
    Matrix,
    RankError,
    Start,
    checked,
    column_scale,
    continued,
    independent,
    maxvol,
    triangles,
)

Owners: TypeAlias = NDArray[np.int64]
#: rows (k, m), and of which structure each is (k,)
Block: TypeAlias = tuple[Matrix, Owners]

#: rows that are worked on at a time
BLOCK = 16384
#: a row is outside of the span where this share of it, in columns of equal size, is not made of active rows
OUTSIDE = 1e-8
#: a column has the size of later rows where these are so many times larger: ranks are judged by the largest column
GROWN = 1e3
#: passes over all rows, after which they are given up
_PASSES = 100


@dataclass(frozen=True, eq=False)
class ActiveSet:
    """Rows of a matrix with m columns, chosen by MaxVol, with their decomposition, by which grades are computed.

    The number of rows is their rank r. The set is `initialised` where r is m. Until then, and for good where columns
    depend on each other, the rows span a part of the space. Every row in that part is a unique combination of them,
    which r columns suffice to compute. A row outside of it has no grade; MLIP gives it one that is arbitrarily large.

    rows (r, m) float64: the active rows.
    owners (r,) int64: the structure to which each row belongs.
    scale (m,): sizes of the columns, by which ranks are judged.
    columns (r,) int64: independent columns.
    lu (r, r), order (r,) int64: triangles of the scaled rows in these columns, and the order in which rows are taken.
    The unit diagonal of the lower triangle is left out.
    log_det: logarithm of the absolute determinant of the rows in these columns.
    """

    rows: Matrix
    owners: Owners
    scale: Matrix
    columns: NDArray[np.int64]
    lu: Matrix
    order: NDArray[np.int64]
    log_det: float

    @classmethod
    def empty(cls, columns: int) -> Self:
        """Return the set without rows."""
        none = np.zeros(0, dtype=np.int64)
        return cls(np.zeros((0, columns)), none, np.ones(columns), none, np.zeros((0, 0)), none, 0.0)

    @classmethod
    def of(
        cls, rows: Matrix, owners: Owners | None = None, *, tolerance: float = 1e-3, start: Start = "leverage"
    ) -> Self:
        """Choose from ``rows (k, m)``.

        owners: (k,) int64, by default the number of each row.
        tolerance, start: see `maxvol`.

        Raises:
            InputError: rows are not finite, or there is not one owner for each row.
        """
        matrix, whose = _pair(rows, owners, tolerance)
        first = slice(0, BLOCK)
        found = cls._chosen(matrix[first], whose[first], column_scale(matrix[first]), tolerance, start)
        return found.extended(matrix, whose, tolerance=tolerance, start=start)[0]

    @classmethod
    def of_blocks(
        cls,
        blocks: Callable[[], Iterable[Block]],
        *,
        tolerance: float = 1e-3,
        start: Start = "leverage",
        first: Self | None = None,
    ) -> Self:
        """Choose from rows that are too many for memory: ``blocks()`` yields them, the same at every call.

        ``blocks`` is called until a pass over all rows changes nothing.

        first: a set to begin with.

        Raises:
            InputError: there are no blocks, or as `of`.
        """
        found = first
        for _ in range(_PASSES):
            changed = False
            for rows, owners in blocks():
                matrix, whose = _pair(rows, owners, tolerance)
                if found is None:
                    found, changed = cls.of(matrix, whose, tolerance=tolerance, start=start), True
                    continue
                for one in _parts(matrix, whose):
                    found, news = found._with(*one, tolerance, start)
                    changed |= news
            if found is None:
                raise InputError("active set: there are no blocks of rows")
            if not changed:
                return found
        raise InputError(_UNSETTLED)

    @property
    def rank(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def initialised(self) -> bool:
        """True if there are as many rows as columns."""
        return self.rank == int(self.rows.shape[1])

    @property
    def counts(self) -> dict[int, int]:
        """The number of active rows of each structure that has any, by its number; MLIP weights it so in a fit."""
        whose, counts = np.unique(self.owners, return_counts=True)
        return dict(zip(whose.tolist(), counts.tolist(), strict=True))

    @functools.cached_property
    def surplus(self) -> tuple[NDArray[np.int64], Matrix]:
        """Other columns (m - r,), and the active rows in these (r, m - r), scaled and in the order of ``lu``."""
        others = np.setdiff1d(np.arange(self.rows.shape[1]), self.columns)
        return others, np.ascontiguousarray(self.rows[self.order][:, others] / self.scale[others])

    def coefficients(self, rows: Matrix) -> tuple[Matrix, NDArray[np.bool_]]:
        """Return the coefficients (k, r) of ``rows (k, m)``, and which rows are outside of the span, (k,) bool."""
        from scipy.linalg import solve_triangular

        c = np.zeros((len(rows), self.rank))
        if c.size:
            b = np.asfortranarray((rows[:, self.columns] / self.scale[self.columns]).T)
            b = solve_triangular(self.lu, b, trans=1, check_finite=False)
            c[:, self.order] = solve_triangular(
                self.lu, b, trans=1, lower=True, unit_diagonal=True, overwrite_b=True, check_finite=False
            ).T
        others, own = self.surplus
        if not len(others):
            return c, np.zeros(len(rows), dtype=bool)
        left = np.abs(rows[:, others] / self.scale[others] - c[:, self.order] @ own).max(1)
        largest = np.abs(c).max(1) if self.rank else np.zeros(len(rows))
        return c, left > OUTSIDE * np.maximum(1.0, largest)

    def extended(
        self,
        rows: Matrix,
        owners: Owners | None = None,
        *,
        tolerance: float = 1e-3,
        start: Start = "leverage",
    ) -> tuple[Self, list[int], list[int]]:
        """Return the set of its own and other rows, the owners that have entered, and those that have left.

        By default row i of ``rows (k, m)`` has the owner one beyond the largest before, plus i. An owner leaves with
        the last of its rows. The determinant never decreases while the rank is the same. Memory for coefficients is
        that of some thousand rows.

        Raises:
            InputError: rows are not finite or have another width, or there is not one owner for each row.
        """
        if owners is None:
            owners = np.arange(len(rows)) + (int(self.owners.max()) + 1 if self.rank else 0)
        matrix, whose = _pair(rows, owners, tolerance)
        if matrix.shape[1] != self.rows.shape[1]:
            raise InputError(
                f"active set: its rows have {self.rows.shape[1]} columns, and those to add {matrix.shape[1]}"
            )
        found = self
        for _ in range(_PASSES):
            changed = False
            for part in _parts(matrix, whose):
                found, news = found._with(*part, tolerance, start)
                changed |= news
            if not changed:
                break
        else:
            raise InputError(_UNSETTLED)
        before, after = set(self.owners.tolist()), set(found.owners.tolist())
        return found, sorted(after - before), sorted(before - after)

    def _with(self, rows: Matrix, owners: Owners, tolerance: float, start: Start) -> tuple[Self, bool]:
        """One block more; whether anything has changed."""
        c, outside = self.coefficients(rows)
        if outside.any():
            # a column that was zero so far, or next to it, had no size
            size = column_scale(rows)
            grown = self.rows.any(0) & (size > GROWN * self.scale)
            scale = np.where(self.rows.any(0) & ~grown, self.scale, size)
            found = self._chosen(
                np.concatenate([self.rows, rows]),
                np.concatenate([self.owners, owners]),
                scale,
                tolerance,
                start,
            )
            if found.rank > self.rank or grown.any():
                return found, True
            c[outside] = 0.0
        better = np.flatnonzero((np.abs(c) > 1.0 + tolerance).any(1))
        if not len(better):
            return self, False
        both = np.concatenate([self.rows, rows[better]]), np.concatenate([self.owners, owners[better]])
        chosen = continued(both[0][:, self.columns], np.arange(self.rank), tolerance)
        if not chosen.swaps:
            return self, False
        return self._at(*both, chosen.indices, self.scale, self.columns), True

    @classmethod
    def _chosen(cls, rows: Matrix, owners: Owners, scale: Matrix, tolerance: float, start: Start) -> Self:
        """Return the set of some rows, of any rank."""
        columns = np.arange(rows.shape[1])
        try:
            found = maxvol(rows, tolerance, start)
        except RankError:
            columns = independent(rows / scale)
            if not len(columns):
                return cls.empty(rows.shape[1])
            found = maxvol(rows[:, columns], tolerance, start, least=0.0)
        return cls._at(rows, owners, found.indices, scale, columns)

    @classmethod
    def _at(
        cls,
        rows: Matrix,
        owners: Owners,
        places: NDArray[np.int64],
        scale: Matrix,
        columns: NDArray[np.int64],
    ) -> Self:
        own = np.ascontiguousarray(rows[places])
        lu, order, log_det = triangles(own[:, columns] / scale[columns])
        log_det += float(np.log(scale[columns]).sum())
        return cls(own, owners[places].copy(), scale, columns, lu, order, log_det)

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Return all of the set as tensors, for a checkpoint."""
        found = {name: torch.from_numpy(getattr(self, name).copy()) for name in _ARRAYS}
        return found | {"log_det": torch.tensor(self.log_det, dtype=torch.float64)}

    @classmethod
    def of_tensors(cls, tensors: dict[str, torch.Tensor]) -> Self:
        """Return the set that `to_tensors` was called on, bit for bit."""
        arrays = {name: tensors[name].detach().cpu().numpy().copy() for name in _ARRAYS}
        return cls(**arrays, log_det=float(tensors["log_det"]))


_ARRAYS = ("rows", "owners", "scale", "columns", "lu", "order")
_UNSETTLED = "active set: exchanges do not come to an end; the rows depend on each other to the last digits"


def _pair(rows: Matrix, owners: Owners | None, tolerance: float) -> Block:
    matrix = checked(rows, tolerance)
    whose = np.arange(len(matrix)) if owners is None else np.asarray(owners, dtype=np.int64)
    if whose.shape != (len(matrix),):
        raise InputError(f"active set: {len(matrix)} rows have {len(whose)} owners; give one for each row")
    return matrix, whose


def _parts(rows: Matrix, owners: Owners) -> Iterator[Block]:
    for first in range(0, len(rows), BLOCK):
        yield rows[first : first + BLOCK], owners[first : first + BLOCK]
