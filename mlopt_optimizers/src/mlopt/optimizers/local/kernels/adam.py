"""Adam, for one system."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import lane, lanes, sync
from mlopt.core.kernels.records import Start, Step


def init(s: Start, settings: Any) -> None:
    """Write zero moments."""
    for k in range(lane(), 6 * s.n, lanes()):
        s.rows[k] = 0.0
    if lane() == 0:
        s.numbers[0] = 1.0
        s.numbers[1] = 1.0


def step(s: Step, settings: Any) -> None:
    """Update the moments, correct their bias, and step.

    rows: mean, square. numbers: decay1, decay2. settings: step_size, beta1, beta2, epsilon.
    """
    step_size, beta1, beta2, epsilon = settings[0], settings[1], settings[2], settings[3]
    decay1, decay2 = s.numbers[0] * beta1, s.numbers[1] * beta2
    sync()
    if lane() == 0:
        s.numbers[0] = decay1
        s.numbers[1] = decay2
    correction = 1.0 / math.sqrt(1.0 - decay2)
    size = step_size / (1.0 - decay1)
    square_at = 3 * s.n
    for k in range(lane(), 3 * s.n, lanes()):
        pull = s.force[k]
        mean = pull + beta1 * (s.rows[k] - pull)
        square = pull * pull + beta2 * (s.rows[square_at + k] - pull * pull)
        s.rows[k] = mean
        s.rows[square_at + k] = square
        s.x[k] += size * (mean / (math.sqrt(square) * correction + epsilon))
