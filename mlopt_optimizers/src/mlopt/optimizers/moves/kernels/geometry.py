"""Tools of all moves, for one system: places of the random numbers, and size and middle of a cluster."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import lane, lanes, total

#: places in the ``counts`` of a search
KEY, COUNTER, HOPS = 0, 1, 4


def centre_of(n: int, x: Any) -> tuple[float, float, float]:
    """Return the mean of all rows of ``x (3 n,)``."""
    a, b, c = 0.0, 0.0, 0.0
    for i in range(lane(), n, lanes()):
        a += x[i]
        b += x[n + i]
        c += x[2 * n + i]
    count = float(n)
    return total(a) / count, total(b) / count, total(c) / count


def close_packed(n: int) -> float:
    """Return the radius, in diameters, of a ball of n close-packed spheres."""
    return math.exp(math.log(float(n) * (3.0 / (4.0 * math.pi * math.sqrt(2.0)))) / 3.0)
