"""What kernel functions may call besides ``math``; here in plain Python, for one lane.

The fused engine puts its own versions in their place: on CUDA a system is worked on by a block of threads.
"""

from __future__ import annotations

import math
from typing import Any

_MASK = (1 << 64) - 1


def lane() -> int:
    """Which of the lanes this is."""
    return 0


def lanes() -> int:
    """How many lanes work on this system."""
    return 1


def sync() -> None:
    """Wait for the other lanes: what they wrote before can be read after."""


def total(value: float) -> float:
    """The sum over lanes, known to all of them."""
    return value


def highest(value: float) -> float:
    """The largest value of all lanes; NaN where one has it."""
    return value


def uniform(key: int, counter: int) -> float:
    """Number ``counter`` of the stream ``key``, in [0, 1): the first has counter 1. See `mlopt.core.batch.random`."""
    value = (int(key) + int(counter) * 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((value ^ (value >> 31)) >> 11) * 2.0**-53


def normal(key: int, counter: int, apart: int) -> float:
    """A standard normal number from the uniform ones ``counter`` and ``counter + apart`` (Box & Muller)."""
    radius = math.sqrt(-2.0 * math.log1p(-uniform(key, counter)))
    return radius * math.cos(2.0 * math.pi * uniform(key, counter + apart))


def theta_of(settings: Any) -> Any:
    """The `Kernel.theta` of this kernel and problem, an array (p,); called in Python, the last of ``settings``."""
    return settings[-1]


def numbers_of(table: Any, pair: int) -> Any:
    """Row ``pair`` of a potential's table, as a tuple of known length."""
    return tuple(table[pair])
