"""Adam, for one system."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import lane, lanes, sync


def init(n: int, x: Any, rows: Any, numbers: Any, counts: Any, settings: Any) -> None:
    """Zero moments."""
    for k in range(lane(), 6 * n, lanes()):
        rows[k] = 0.0
    if lane() == 0:
        numbers[0] = 1.0
        numbers[1] = 1.0


def step(
    n: int,
    x: Any,
    energy: float,
    force: Any,
    row_energy: Any,
    atoms: Any,
    rows: Any,
    numbers: Any,
    counts: Any,
    scratch: Any,
    settings: Any,
) -> None:
    """rows: mean, square. numbers: decay1, decay2. settings: step_size, beta1, beta2, epsilon."""
    step_size, beta1, beta2, epsilon = settings[0], settings[1], settings[2], settings[3]
    decay1, decay2 = numbers[0] * beta1, numbers[1] * beta2
    sync()
    if lane() == 0:
        numbers[0] = decay1
        numbers[1] = decay2
    correction = 1.0 / math.sqrt(1.0 - decay2)
    size = step_size / (1.0 - decay1)
    square_at = 3 * n
    for k in range(lane(), 3 * n, lanes()):
        pull = force[k]
        mean = pull + beta1 * (rows[k] - pull)
        square = pull * pull + beta2 * (rows[square_at + k] - pull * pull)
        rows[k] = mean
        rows[square_at + k] = square
        x[k] += size * (mean / (math.sqrt(square) * correction + epsilon))
