"""Turn one half of a cluster against the other, for one system."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import lane, sync, uniform
from mlopt.core.kernels.records import Proposal, is_movable
from mlopt.optimizers.moves.kernels.geometry import COUNTER, KEY, centre_of


def direction(key: int, counter: int) -> tuple[float, float, float]:
    """Return a unit vector, uniform on the sphere, from two random numbers."""
    cosine = 2.0 * uniform(key, counter) - 1.0
    angle = 2.0 * math.pi * uniform(key, counter + 1)
    sine = math.sqrt(max(0.0, 1.0 - cosine * cosine))
    return sine * math.cos(angle), sine * math.sin(angle), cosine


def turned(
    x: float, y: float, z: float, u: float, v: float, w: float, cosine: float, sine: float
) -> tuple[float, float, float]:
    """Return the vector (x, y, z) turned about the unit vector (u, v, w), by Rodrigues' formula."""
    along = (u * x + v * y + w * z) * (1.0 - cosine)
    return (
        x * cosine + (v * z - w * y) * sine + u * along,
        y * cosine + (w * x - u * z) * sine + v * along,
        z * cosine + (u * y - v * x) * sine + w * along,
    )


def twist(s: Proposal, settings: Any) -> None:
    """Turn the atoms on one side of a random plane through the centre about its normal. settings: angle."""
    key, counter = s.counts[KEY], s.counts[COUNTER]
    a, b, c = centre_of(s.n, s.x)
    sync()
    if lane() == 0:
        u, v, w = direction(key, counter + 1)
        angle = settings[0] * (2.0 * uniform(key, counter + 3) - 1.0)
        cosine, sine = math.cos(angle), math.sin(angle)
        for i in range(s.n):
            dx, dy, dz = s.x[i] - a, s.x[s.n + i] - b, s.x[2 * s.n + i] - c
            if u * dx + v * dy + w * dz > 0.0 and is_movable(s, i):
                dx, dy, dz = turned(dx, dy, dz, u, v, w, cosine, sine)
                s.x[i] = a + dx
                s.x[s.n + i] = b + dy
                s.x[2 * s.n + i] = c + dz
        s.counts[COUNTER] = counter + 3
    sync()
