"""Gradient descent, for one system."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import highest, lane, lanes
from mlopt.core.kernels.records import Start, Step

CAPPED = 0


def init(s: Start, settings: Any) -> None:
    """Write nothing, because there is no state."""


def step(s: Step, settings: Any) -> None:
    """Step along the force. settings: step_size, max_step."""
    size = settings[0]
    if CAPPED:
        longest = abs(size) * math.sqrt(longest2(s.n, s.force))
        if longest > settings[1]:
            size = size * (settings[1] / longest)
    for k in range(lane(), 3 * s.n, lanes()):
        s.x[k] += size * s.force[k]


def longest2(n: int, vector: Any) -> float:
    """Return the squared length of the longest row of ``vector (3 n,)``."""
    found = 0.0
    for i in range(lane(), n, lanes()):
        square = vector[i] * vector[i] + vector[n + i] * vector[n + i] + vector[2 * n + i] * vector[2 * n + i]
        if square > found or square != square:  # NaN passes, and stays: nothing is greater
            found = square
    return highest(found)
