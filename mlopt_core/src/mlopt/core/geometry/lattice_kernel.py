"""The functions of `mlopt.core.geometry.lattice` for kernels."""

from __future__ import annotations

import math
from typing import Any


def complete(cell: Any, at: int, out: Any) -> None:
    """Write nine numbers of the completed cell from ``out[at]`` on, and nine of its reciprocal vectors behind them.

    cell: nine numbers, then three that are nonzero for periodic directions. The other directions get unit vectors
        perpendicular to the periodic ones.
    """
    for k in range(9):
        out[at + k] = cell[k]
    periodic = 0
    for a in range(3):
        if cell[9 + a] != 0.0:
            periodic += 1
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        if periodic == 0:
            for k in range(3):
                out[at + 3 * a + k] = 1.0 if k == a else 0.0
        elif periodic == 1 and cell[9 + a] != 0.0:
            # any vector not along the one there is; then two products
            least = 0
            for k in range(1, 3):
                if abs(cell[3 * a + k]) < abs(cell[3 * a + least]):
                    least = k
            for k in range(3):
                out[at + 3 * c + k] = 1.0 if k == least else 0.0
            cross(at + 3 * c, at + 3 * a, at + 3 * b, 1, out)
            cross(at + 3 * a, at + 3 * b, at + 3 * c, 1, out)
        elif periodic == 2 and cell[9 + a] == 0.0:
            cross(at + 3 * b, at + 3 * c, at + 3 * a, 1, out)
    dual = at + 9
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        cross(at + 3 * b, at + 3 * c, dual + 3 * a, 0, out)
    volume = 0.0
    for k in range(3):
        volume += out[at + k] * out[dual + k]
    for k in range(9):
        out[dual + k] = out[dual + k] / volume


def cross(a: int, b: int, to: int, unit: int, out: Any) -> None:
    """Write the vector product of the vectors at ``a`` and ``b`` in ``out``, scaled to length 1 if ``unit`` is set."""
    u = out[a + 1] * out[b + 2] - out[a + 2] * out[b + 1]
    v = out[a + 2] * out[b] - out[a] * out[b + 2]
    w = out[a] * out[b + 1] - out[a + 1] * out[b]
    length = math.sqrt(u * u + v * v + w * w) if unit == 1 else 1.0
    out[to] = u / length
    out[to + 1] = v / length
    out[to + 2] = w / length
