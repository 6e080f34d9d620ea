"""Functions that kernels may call besides ``math``, here in plain Python for one lane.

The fused engine puts its own versions in their place. On CUDA a block of threads works on each system.
"""

from __future__ import annotations

import math
from typing import Any

_MASK = (1 << 64) - 1


def lane() -> int:
    """Return the number of this lane, from 0."""
    return 0


def lanes() -> int:
    """Return the number of lanes that work on this system."""
    return 1


def sync() -> None:
    """Wait for the other lanes, so that this lane can read what they have written."""


def total(value: float) -> float:
    """Return the sum of ``value`` over all lanes, to each of them."""
    return value


def highest(value: float) -> float:
    """Return the largest ``value`` of all lanes, to each of them; NaN if one lane has NaN."""
    return value


def uniform(key: int, counter: int) -> float:
    """Return number ``counter`` of the stream ``key``, in [0, 1); the first is 1. See `mlopt.core.batch.random`."""
    value = (int(key) + int(counter) * 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((value ^ (value >> 31)) >> 11) * 2.0**-53


def normal(key: int, counter: int, apart: int) -> float:
    """Return a standard normal number, from uniform ones at ``counter`` and ``counter + apart`` (Box & Muller)."""
    radius = math.sqrt(-2.0 * math.log1p(-uniform(key, counter)))
    return radius * math.cos(2.0 * math.pi * uniform(key, counter + apart))


def theta_of(settings: Any) -> Any:
    """Return `Kernel.theta` of this kernel and problem, an array (p,). In Python it is the last of ``settings``."""
    return settings[-1]


def numbers_of(table: Any, pair: int) -> Any:
    """Return row ``pair`` of a potential's table as a tuple, whose length is known when it is compiled."""
    return tuple(table[pair])
