"""What every target compiles as it stands."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def isfinite(x: Any) -> Any:
    """Numba's is ``x - x == x - x``, and where sums may be reordered the compiler finds that to be always true."""
    return abs(x) < np.inf


def uniform(key: Any, counter: Any) -> Any:
    """As `mlopt.core.batch.random.uniform`, bit for bit."""
    value = np.uint64(key) + np.uint64(counter) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((value ^ (value >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


def box_muller(first: Any, second: Any) -> Any:
    """A standard normal number from two uniform ones."""
    radius = math.sqrt(-2.0 * math.log1p(-first))
    return radius * math.cos(2.0 * math.pi * second)
