"""Grades of rows, compiled: the largest coefficient of each.

The sums of a row are always done in the same order. A grade therefore does not depend on the other rows of a batch.
BLAS does not promise this for products of matrices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

#: rows that are worked on side by side
_SIDE = 4


@functools.cache
def compiled() -> Callable[..., Any]:
    """Compile `largest`, or load it from Numba's cache."""
    from numba import njit

    found: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})(
        largest
    )
    return found


def largest(
    rows: Any, columns: Any, scale: Any, lu: Any, surplus: Any, own: Any, share: float, out: Any
) -> None:
    """Write the largest size among the coefficients of each row, infinity where there are none; see `ActiveSet`.

    A row is outside of the span if it differs by more than ``share``, in the surplus columns, from its combination of
    active rows.

    rows (k, m): the rows to grade.
    columns (r,), scale (m,), lu (r, r): as in `ActiveSet`.
    surplus (m - r,), own (r, m - r): the other columns, and the active rows in these.
    out (k,): the result.
    """
    k, r, n_surplus = len(rows), len(columns), len(surplus)
    c = np.zeros((_SIDE, r))
    left = np.zeros(n_surplus)
    for first in range(0, k, _SIDE):
        count = min(_SIDE, k - first)
        c[:, :] = 0.0
        for place in range(count):
            for j in range(r):
                c[place, j] = rows[first + place, columns[j]] / scale[columns[j]]
        for q in range(r):
            c0, c1, c2, c3 = c[0, q], c[1, q], c[2, q], c[3, q]
            if c0 == 0.0 and c1 == 0.0 and c2 == 0.0 and c3 == 0.0:
                continue
            pivot = lu[q, q]
            c0, c1, c2, c3 = c0 / pivot, c1 / pivot, c2 / pivot, c3 / pivot
            c[0, q], c[1, q], c[2, q], c[3, q] = c0, c1, c2, c3
            for j in range(q + 1, r):
                w = lu[q, j]
                c[0, j] -= c0 * w
                c[1, j] -= c1 * w
                c[2, j] -= c2 * w
                c[3, j] -= c3 * w
        for q in range(r - 1, 0, -1):
            c0, c1, c2, c3 = c[0, q], c[1, q], c[2, q], c[3, q]
            if c0 == 0.0 and c1 == 0.0 and c2 == 0.0 and c3 == 0.0:
                continue
            for j in range(q):
                w = lu[q, j]
                c[0, j] -= c0 * w
                c[1, j] -= c1 * w
                c[2, j] -= c2 * w
                c[3, j] -= c3 * w
        for place in range(count):
            top = 0.0
            finite = True
            for j in range(r):
                size = abs(c[place, j])
                if not size <= 1e300:
                    finite = False
                top = max(top, size)
            for s in range(n_surplus):
                left[s] = rows[first + place, surplus[s]] / scale[surplus[s]]
            for j in range(r):
                weight = c[place, j]
                for s in range(n_surplus):
                    left[s] -= weight * own[j, s]
            for s in range(n_surplus):
                if not abs(left[s]) <= share * max(1.0, top):
                    finite = False
            out[first + place] = top if finite else np.inf
