"""Functions that every target compiles as they stand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def isfinite(x: Any) -> Any:
    """Return whether x is finite.

    Numba's own test is ``x - x == x - x``. Where sums may be reordered, the compiler takes that to be always true.
    """
    return abs(x) < np.inf


def uniform(key: Any, counter: Any) -> Any:
    """Return a number in [0, 1), bit for bit that of `mlopt.core.batch.random.uniform`."""
    value = np.uint64(key) + np.uint64(counter) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((value ^ (value >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


def box_muller(first: Any, second: Any) -> Any:
    """Return a standard normal number from two uniform ones."""
    radius = math.sqrt(-2.0 * math.log1p(-first))
    return radius * math.cos(2.0 * math.pi * second)
