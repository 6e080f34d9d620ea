"""FIRE in its three versions, for one system."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import lane, lanes, sync, total
from mlopt.core.kernels.records import Start, Step
from mlopt.optimizers.local.kernels.gradient_descent import longest2

# values of VARIANT
ORIGINAL = 0
SECOND = 1
ASE = 2

VARIANT = 0
CAPPED = 1
DELAY = 5

# numbers and counts
DT, KICK, ALPHA = 0, 1, 2
DOWNHILL, AGE = 0, 1

#: below this |F|^2 or |v|^2 mixing is without effect; keeps ratios finite where nothing pulls or moves
TINY = 1e-30


def init(s: Start, settings: Any) -> None:
    """Write the state at rest. settings: dt, dt_max, dt_min, max_step, alpha, grow, cut, fade."""
    for k in range(lane(), 3 * s.n, lanes()):
        s.rows[k] = 0.0
    if lane() == 0:
        s.numbers[DT] = settings[0] if VARIANT == SECOND else settings[0] / settings[6]
        s.numbers[KICK] = 0.0
        s.numbers[ALPHA] = settings[4]
        s.counts[DOWNHILL] = 0
        s.counts[AGE] = 0


def ratio(vv: float, ff: float) -> float:
    """Return |v| / |F|, a finite number where nothing pulls or moves."""
    return math.sqrt(max(vv, TINY) / (ff + TINY))


def step(s: Step, settings: Any) -> None:
    """Steer, kick, and drift. rows: velocity. settings: as in `init`."""
    dt_max, dt_min, max_step, alpha_start = settings[1], settings[2], settings[3], settings[4]
    grow, cut, fade = settings[5], settings[6], settings[7]
    ff, fw, ww = 0.0, 0.0, 0.0
    for k in range(lane(), 3 * s.n, lanes()):
        ff += s.force[k] * s.force[k]
        fw += s.force[k] * s.rows[k]
        ww += s.rows[k] * s.rows[k]
    ff, fw, ww = total(ff), total(fw), total(ww)
    dt, kick, alpha = s.numbers[DT], s.numbers[KICK], s.numbers[ALPHA]
    downhill, age = s.counts[DOWNHILL], s.counts[AGE]
    power = fw
    if VARIANT == ORIGINAL:
        power = fw + kick * ff
        ww = ww + kick * (fw + power)
    ahead = power > 0.0
    on = 1.0 if ahead else 0.0
    downhill = downhill + 1 if ahead else 0
    fast = downhill > DELAY + (1 if VARIANT == ASE else 0)
    slower = dt * cut
    held = ahead
    if VARIANT == SECOND:
        slower = max(slower, dt_min)
        held = ahead or age < DELAY
        age = age + 1
    if fast:
        dt = min(dt * grow, dt_max)
    elif not held:
        dt = slower
    old_alpha = alpha
    if fast:
        alpha = alpha * fade
    elif not ahead:
        alpha = alpha_start
    if VARIANT == SECOND:
        kicked = ww * on + dt * (dt * ff + 2.0 * fw * on)
        a = (1.0 - alpha) * on
        b = (1.0 - alpha) * dt + alpha * ratio(kicked, ff)
    else:
        a = (1.0 - old_alpha) * on
        b = old_alpha * ratio(ww, ff) * on + dt
        if VARIANT == ORIGINAL:
            b = b + (a * kick - 0.5 * dt)
            kick = 0.5 * dt
    back = 0.0
    if VARIANT == SECOND:
        back = (0.5 * on - 0.5) * dt
    for k in range(lane(), 3 * s.n, lanes()):
        s.x[k] += back * s.rows[k]
        s.rows[k] = a * s.rows[k] + b * s.force[k]
    length, shorter = dt, 1.0
    if CAPPED:
        if VARIANT == ASE:
            vv = 0.0
            for k in range(lane(), 3 * s.n, lanes()):
                vv += s.rows[k] * s.rows[k]
            length = min(dt, max_step / math.sqrt(max(total(vv), TINY)))
        else:
            sync()
            shorter = min(1.0, max_step / dt / math.sqrt(max(longest2(s.n, s.rows), TINY)))
    sync()
    for k in range(lane(), 3 * s.n, lanes()):
        s.rows[k] = shorter * s.rows[k]
        s.x[k] += length * s.rows[k]
    if lane() == 0:
        s.numbers[DT] = dt
        s.numbers[KICK] = kick
        s.numbers[ALPHA] = alpha
        s.counts[DOWNHILL] = downhill
        s.counts[AGE] = age
