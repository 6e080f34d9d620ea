"""MaxVol: the rows of a matrix whose square submatrix has a determinant that no exchange of one row raises.

Let A be the chosen rows and ``C = rows @ inv(A)``. An exchange of chosen row j for row i multiplies the determinant by
``C[i, j]``. The method ends where no ``|C[i, j]|`` is above ``1 + tolerance``. That is a local optimum, which depends
on the start.

Source: Goreinov, Oseledets, Savostyanov, Tyrtyshnikov & Zamarashkin, "How to find a good submatrix" (2010).

Exchanges are made in a block of the few rows with the largest ``|C|``, and then applied to all rows at once. Then k
exchanges are one update of rank k, which BLAS does at full speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlopt.core.errors import InputError

Matrix: TypeAlias = NDArray[np.float64]
Start: TypeAlias = Literal["leverage", "lu"]

#: rows that exchange one by one, and rows (in units of m) that are brought to their optimum before all are
_FEW, _SOME = 96, 4
#: rows of the largest leverage (in units of m) that are decomposed for a start
_HIGH = 8
#: a pivot this much smaller than the largest one, with columns of equal size, is zero
RANK = 1e-11
#: how often coefficients are computed anew before the rows are given up
_ROUNDS = 20


class RankError(InputError):
    """The error for rows that span fewer dimensions than they have columns."""


@dataclass(frozen=True, eq=False)
class MaxVol:
    """Rows of large volume.

    indices (m,) int64: the chosen rows.
    coefficients (k, m): ``rows @ inv(rows[indices])``, at most ``1 + tolerance`` in size.
    log_det: logarithm of the absolute determinant of the chosen rows.
    swaps: number of exchanges after the start.
    """

    indices: NDArray[np.int64]
    coefficients: Matrix
    log_det: float
    swaps: int


def maxvol(
    rows: Matrix, tolerance: float = 1e-3, start: Start = "leverage", *, least: float = RANK
) -> MaxVol:
    """Choose m of the ``rows (k, m)``, float64.

    Coefficients and determinant are computed from the rows in the end, and checked.

    start: ``lu`` begins with the pivots of Gaussian elimination, and is faster. ``leverage`` begins with the pivots of
        an orthogonal decomposition of the 8 m rows of the largest leverage. It most often ends at a larger determinant.
    least: pivots below this share of the largest one count as zero, with columns scaled to equal size.

    Raises:
        RankError: the rank of the rows is below m, for example because there are fewer rows.
        InputError: rows are not finite.
    """
    matrix = checked(rows, tolerance)
    k, m = matrix.shape
    if k < m:
        raise RankError(f"maxvol: {k} rows cannot span {m} columns; give at least as many rows")
    scale = column_scale(matrix)
    scaled = np.asfortranarray(matrix / scale)
    found = _eliminated(scaled, least)
    if found is None:
        rank = len(independent(scaled))
        raise RankError(
            f"maxvol: the rows have rank {rank}, and {m} columns; leave out the columns that depend on others"
        )
    order, c = found
    if start == "leverage":
        return _finished(scaled, order[_by_leverage(c, 1.0 + tolerance)], tolerance, scale)
    chosen, swaps = _improve(c, order, order[:m], 1.0 + tolerance)
    return _finished(scaled, chosen, tolerance, scale, swaps)


def continued(rows: Matrix, chosen: NDArray[np.int64], tolerance: float = 1e-3) -> MaxVol:
    """Go on from rows that are ``chosen (m,)`` already; see `maxvol`.

    Raises:
        InputError: rows are not finite, or those that are chosen depend on each other.
    """
    matrix = checked(rows, tolerance)
    scale = column_scale(matrix[chosen])
    return _finished(np.asfortranarray(matrix / scale), chosen, tolerance, scale)


def checked(rows: Matrix, tolerance: float) -> Matrix:
    """Return rows as float64.

    Raises:
        InputError: they are no matrix or not finite, or the tolerance is not above 0.
    """
    matrix = np.asarray(rows, dtype=np.float64)
    if matrix.ndim != 2:
        raise InputError(f"maxvol: rows must be a matrix (k, m), got the shape {matrix.shape}")
    if not tolerance > 0:
        raise InputError(f"maxvol: `tolerance` must be above 0, got {tolerance:g}")
    if not np.isfinite(matrix).all():
        first = int(np.flatnonzero(~np.isfinite(matrix).all(1))[0])
        raise InputError(f"maxvol: row {first} is not finite")
    return matrix


def column_scale(rows: Matrix) -> Matrix:
    """Return the root mean square of each column (m,), that of the smallest one for columns of zeros."""
    size = np.sqrt(np.einsum("km,km->m", rows, rows) / max(len(rows), 1))
    some = size > 0
    return np.where(some, size, size[some].min() if some.any() else 1.0)


def independent(scaled: Matrix) -> NDArray[np.int64]:
    """Return columns (r,) that are independent and span all others; columns of ``scaled (k, m)`` have the size 1."""
    from scipy.linalg import qr

    if not scaled.size:
        return np.zeros(0, dtype=np.int64)
    upper = np.linalg.qr(scaled, mode="r") if len(scaled) > scaled.shape[1] else scaled
    triangle, order = qr(upper, mode="r", pivoting=True)
    size = np.abs(np.diag(triangle))
    # a direction may be that of one row among k
    rank = int((size > RANK * max(1.0, size[0] / np.sqrt(len(scaled)))).sum())
    return np.sort(order[:rank]).astype(np.int64)


def triangles(square: Matrix) -> tuple[Matrix, NDArray[np.int64], float]:
    """Return both triangles of elimination in one matrix, the order of rows, and the log of the absolute determinant.

    Raises:
        RankError: the rows depend on each other.
    """
    from scipy.linalg.lapack import dgetrf

    order = np.arange(len(square))
    if not len(square):
        return np.zeros((0, 0)), order, 0.0
    lu, pivots, info = dgetrf(square)
    if info != 0:
        raise RankError("maxvol: the chosen rows depend on each other; they have no volume")
    for place, other in enumerate(pivots.tolist()):
        order[place], order[other] = order[other], order[place]
    return np.ascontiguousarray(lu), order, float(np.log(np.abs(np.diag(lu))).sum())


def inverted(square: Matrix) -> tuple[Matrix, float]:
    """Return the inverse, and the logarithm of the absolute determinant.

    Raises:
        RankError: the rows depend on each other.
    """
    from scipy.linalg.lapack import dtrtri

    lu, order, log_det = triangles(square)
    if not len(lu):
        return lu, log_det
    upper, _ = dtrtri(lu)
    lower, _ = dtrtri(lu, lower=1, unitdiag=1)
    found = np.empty_like(lu)
    found[:, order] = np.triu(upper) @ (np.tril(lower, -1) + np.eye(len(lu)))
    return found, log_det


def _eliminated(scaled: Matrix, least: float) -> tuple[NDArray[np.int64], Matrix] | None:
    """Return the order of rows by pivots, and coefficients of rows in that order; None if their rank is too low."""
    from scipy.linalg.blas import dtrsm
    from scipy.linalg.lapack import dgetrf

    k, m = scaled.shape
    lu, pivots, _ = dgetrf(scaled)
    size = np.abs(np.diag(lu))
    if m and not size.min() > least * size.max():
        return None
    order = np.arange(k)
    for place, other in enumerate(pivots.tolist()):
        order[place], order[other] = order[other], order[place]
    c = np.zeros((k, m), order="F")
    c[:m] = np.eye(m)
    if k > m:
        c[m:] = dtrsm(1.0, lu[:m], lu[m:], side=1, lower=1, diag=1)
    return order, c


def _by_leverage(c: Matrix, limit: float) -> NDArray[np.int64]:
    """Rows (m,) of ``c (k, m)``, among which some are the unit matrix."""
    from scipy.linalg import cholesky, qr, solve_triangular

    m = c.shape[1]
    # the unit matrix is in C, so the smallest eigenvalue is at least 1
    lower = cholesky(c.T @ c, lower=True)
    white = solve_triangular(lower, c.T, lower=True)
    leverage = np.einsum("mk,mk->k", white, white)
    kept = np.sort(np.argsort(-leverage, kind="stable")[: _HIGH * m])
    pivots = qr(white[:, kept], mode="r", pivoting=True)[-1][:m]
    part = np.asfortranarray(c[kept])
    own = np.asfortranarray(part @ inverted(part[pivots])[0])
    return _improve(own, kept, kept[pivots], limit)[0]


def _improve(
    c: Matrix, rows: NDArray[np.int64], chosen: NDArray[np.int64], limit: float
) -> tuple[NDArray[np.int64], int]:
    """Exchange until no coefficient of ``c``, of the ``rows (k,)``, is above the limit; return what is chosen."""
    entered, swaps = improved(c, limit)
    chosen = chosen.copy()
    for column, row in entered.items():
        chosen[column] = rows[row]
    return chosen, swaps


def improved(c: Matrix, limit: float) -> tuple[dict[int, int], int]:
    """Exchange in place in ``c (k, m)`` until no coefficient is above the limit.

    Return the row that has entered at each column, and the number of exchanges.
    """
    k, m = c.shape
    if k <= _FEW:
        return _one_by_one(c, limit)
    entered: dict[int, int] = {}
    swaps = 0
    most = _SOME * m if k > 2 * _SOME * m > 4 * _FEW else _FEW
    while True:
        top = np.maximum(c.max(1), -c.min(1)) if m else np.zeros(k)
        bad = np.flatnonzero(top > limit)
        if len(bad) > most:
            bad = np.sort(bad[np.argsort(-top[bad], kind="stable")[:most]])
        inner, count = improved(np.asfortranarray(c[bad]), limit)
        if not count:
            return entered, swaps
        rows, columns = bad[list(inner.values())], np.array(list(inner), dtype=np.int64)
        _apply(c, rows, columns)
        entered.update(zip(columns.tolist(), rows.tolist(), strict=True))
        swaps += count


def _one_by_one(c: Matrix, limit: float) -> tuple[dict[int, int], int]:
    """Exchange the largest coefficient until none is above the limit."""
    entered: dict[int, int] = {}
    swaps = 0
    if not c.size:
        return entered, swaps
    own = np.ascontiguousarray(c)
    while True:
        i, j = divmod(int(np.abs(own).argmax()), own.shape[1])
        if not abs(own[i, j]) > limit:
            break
        row = own[i].copy()
        row[j] -= 1.0
        own -= np.outer(own[:, j] / own[i, j], row)
        own[i] = 0.0
        own[i, j] = 1.0
        entered[j] = i
        swaps += 1
    return entered, swaps


def _apply(c: Matrix, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
    """Change ``c`` as ``rows`` take the places ``columns``: one update of their number's rank (Woodbury)."""
    from scipy.linalg.blas import dgemm

    unit = np.zeros((len(rows), c.shape[1]))
    unit[np.arange(len(rows)), columns] = 1.0
    left = np.asfortranarray(c[:, columns])
    right = np.linalg.solve(left[rows], c[rows] - unit)
    if c.flags.f_contiguous:
        dgemm(-1.0, left, np.asfortranarray(right), 1.0, c, overwrite_c=1)
    else:
        c -= left @ right
    c[rows] = unit


def _coefficients(scaled: Matrix, chosen: NDArray[np.int64]) -> tuple[Matrix, float]:
    """Return all rows as combinations of those chosen, and the log of the absolute determinant of these.

    Triangles, because an inverse of rows that are nearly dependent loses all digits, and exchanges would not settle.
    """
    from scipy.linalg.blas import dtrsm

    lu, order, log_det = triangles(scaled[chosen])
    c = np.zeros(scaled.shape, order="F")
    if c.size:
        triangle = np.asfortranarray(lu)
        c[:, order] = dtrsm(1.0, triangle, dtrsm(1.0, triangle, scaled, side=1), side=1, lower=1, diag=1)
        c[chosen] = np.eye(len(chosen))
    return c, log_det


def _finished(
    scaled: Matrix, chosen: NDArray[np.int64], tolerance: float, scale: Matrix, swaps: int = 0
) -> MaxVol:
    """Compute all from scratch, and exchange until what is computed from scratch is below the limit."""
    for _ in range(_ROUNDS):
        c, log_det = _coefficients(scaled, chosen)
        if not c.size or max(c.max(), -c.min()) <= 1.0 + tolerance:
            return MaxVol(chosen, c, log_det + float(np.log(scale).sum()), swaps)
        # a little below the limit, so that rounding does not undo it
        limit = 1.0 + 0.999 * tolerance
        chosen, count = _improve(np.asfortranarray(c), np.arange(len(c)), chosen, limit)
        swaps += count
    raise InputError(
        "maxvol: coefficients do not settle: the rows depend on each other to the last digits; leave out columns"
    )
