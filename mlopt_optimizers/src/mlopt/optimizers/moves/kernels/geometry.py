"""What all moves need: where a search keeps its random numbers; size and middle of a cluster, for one system."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import lane, lanes, total

#: places in the ``counts`` of a search
KEY, COUNTER, HOPS = 0, 1, 4


def centre_of(n: int, x: Any) -> tuple[float, float, float]:
    """The mean of all rows."""
    a, b, c = 0.0, 0.0, 0.0
    for i in range(lane(), n, lanes()):
        a += x[i]
        b += x[n + i]
        c += x[2 * n + i]
    count = float(n)
    return total(a) / count, total(b) / count, total(c) / count


def close_packed(n: int) -> float:
    """Radius, in diameters, of a ball of n close-packed spheres."""
    return math.exp(math.log(float(n) * (3.0 / (4.0 * math.pi * math.sqrt(2.0)))) / 3.0)
