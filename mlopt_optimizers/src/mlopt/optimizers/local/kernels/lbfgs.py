"""L-BFGS without a line search, for one system."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import lane, lanes, sync, total
from mlopt.core.kernels.records import Memory, Start, Step
from mlopt.optimizers.local.kernels.gradient_descent import longest2

#: pairs that are remembered
M = 8
#: a step that raised the energy is shortened at most this many times, then taken as it is with the memory cleared
MAX_SHRINKS = 8
#: a pair of a step s and a change y of the force is learned from where s.y / y.y is greater
LEAST_RATIO = 1e-12

# rows, in units of n: x, force, step, then 2 M vectors of the history
FORCE, STEP, HISTORY = 3, 6, 9
# numbers: energy, then these
SY = 1
SHRINKS = 0
#: the oldest pair: the history is a ring until it is handed back
HEAD = 1


def init(s: Start, settings: Any) -> None:
    """Write the state without memory. settings: max_step, scale, shrink, rise."""
    for k in range(lane(), 3 * s.n, lanes()):
        s.rows[k] = s.x[k]
    for k in range(3 * s.n + lane(), (HISTORY + 6 * M) * s.n, lanes()):
        s.rows[k] = 0.0
    if lane() == 0:
        s.numbers[0] = math.inf
        for k in range(SY, SY + 2 * M * M + 2 * M):
            s.numbers[k] = 0.0
        s.numbers[SY + 2 * M * M + 2 * M] = settings[1]
        s.counts[SHRINKS] = -1
        s.counts[HEAD] = 0


def products(s: Memory, s_at: int, y_at: int, vector: Any, at: int) -> tuple[float, float]:
    """Return the products of a remembered pair (s, y) with the 3 n numbers at ``vector[at:]``."""
    with_s, with_y = 0.0, 0.0
    for k in range(lane(), 3 * s.n, lanes()):
        with_s += s.rows[s_at + k] * vector[at + k]
        with_y += s.rows[y_at + k] * vector[at + k]
    return total(with_s), total(with_y)


def slot_of(pair: int, head: int) -> int:
    """Return the place in the ring of the ``pair``-th oldest pair."""
    slot = pair + head
    return slot - M if slot >= M else slot


def step(s: Step, settings: Any) -> None:
    """Accept the point and take a quasi-Newton step, or go back and try a shorter one."""
    shrink, rise = settings[2], settings[3]
    yy_at, along_at = SY + M * M, SY + 2 * M * M
    scale_at = along_at + 2 * M
    shrinks, head, old = s.counts[SHRINKS], s.counts[HEAD], s.numbers[0]
    began = shrinks >= 0
    back = began and shrinks < MAX_SHRINKS and s.energy > old + rise * (1.0 + abs(old))
    learn = began and not back
    s_at, y_at = (HISTORY + 3 * head) * s.n, (HISTORY + 3 * (M + head)) * s.n
    sync()
    # the new pair takes the place of the oldest
    for k in range(lane(), 3 * s.n, lanes()):
        s.rows[s_at + k] = s.x[k] - s.rows[k]
        s.rows[y_at + k] = 0.0 if back else s.rows[FORCE * s.n + k] - s.force[k]
    sync()
    sy, yy = products(s, s_at, y_at, s.rows, y_at)
    sf, yf = products(s, s_at, y_at, s.force, 0)
    good = learn and shrinks < MAX_SHRINKS and sy > LEAST_RATIO * yy
    head = 0 if head == M - 1 else head + 1
    # products of the remembered pairs with the change of the force
    for pair in range(M - 1):
        slot = slot_of(pair, head)
        with_s, with_y = products(
            s, (HISTORY + 3 * slot) * s.n, (HISTORY + 3 * (M + slot)) * s.n, s.rows, y_at
        )
        if lane() == 0:
            for other in range(M - 1):
                s.numbers[SY + pair * M + other] = s.numbers[SY + (pair + 1) * M + other + 1]
                s.numbers[yy_at + pair * M + other] = s.numbers[yy_at + (pair + 1) * M + other + 1]
            s.numbers[SY + pair * M + M - 1] = with_s if good else 0.0
            s.numbers[yy_at + pair * M + M - 1] = with_y if good else 0.0
            s.numbers[along_at + pair] = s.numbers[along_at + pair + 1] - with_s
            s.numbers[along_at + M + pair] = s.numbers[along_at + M + pair + 1] - with_y
    if not good:
        sync()
        for k in range(lane(), 3 * s.n, lanes()):
            s.rows[s_at + k] = 0.0
            s.rows[y_at + k] = 0.0
    if lane() == 0:
        for pair in range(M - 1):
            s.numbers[SY + (M - 1) * M + pair] = 0.0
            s.numbers[yy_at + (M - 1) * M + pair] = s.numbers[yy_at + pair * M + M - 1]
        s.numbers[SY + M * M - 1] = sy if good else 0.0
        s.numbers[yy_at + M * M - 1] = yy if good else 0.0
        s.numbers[along_at + M - 1] = sf if good else 0.0
        s.numbers[along_at + 2 * M - 1] = yf if good else 0.0
        if good:
            s.numbers[scale_at] = sy / yy
        elif learn:
            s.numbers[scale_at] = max(2.0 * s.numbers[scale_at], settings[1])
        s.counts[HEAD] = head
    if learn and shrinks >= MAX_SHRINKS:
        sync()
        forget(s, settings)
    sync()
    if back:
        for k in range(lane(), 3 * s.n, lanes()):
            s.rows[STEP * s.n + k] = shrink * s.rows[STEP * s.n + k]
            s.x[k] = s.rows[k] + s.rows[STEP * s.n + k]
        if lane() == 0:
            s.counts[SHRINKS] = shrinks + 1
        return
    direct(s, head, settings[0])
    for k in range(lane(), 3 * s.n, lanes()):
        s.rows[k] = s.x[k]
        s.rows[FORCE * s.n + k] = s.force[k]
        s.x[k] += s.rows[STEP * s.n + k]
    if lane() == 0:
        s.numbers[0] = s.energy
        s.counts[SHRINKS] = 0


def forget(s: Memory, settings: Any) -> None:
    """Clear a memory that has led uphill again and again."""
    for k in range(HISTORY * s.n + lane(), (HISTORY + 6 * M) * s.n, lanes()):
        s.rows[k] = 0.0
    if lane() == 0:
        for k in range(SY, SY + 2 * M * M + 2 * M):
            s.numbers[k] = 0.0
        s.numbers[SY + 2 * M * M + 2 * M] = settings[1]


def direct(s: Step, head: int, max_step: float) -> None:
    """Write the step ``H force``, capped, with the inverse Hessian H of Byrd, Nocedal & Schnabel, eq. 3.5."""
    yy_at, along_at = SY + M * M, SY + 2 * M * M
    scale_at = along_at + 2 * M
    u_at, v_at = scale_at + 1, scale_at + 1 + M  # spare numbers
    scale = s.numbers[scale_at]
    if lane() == 0:
        for i in range(M - 1, -1, -1):
            value = s.numbers[along_at + i]
            for j in range(i + 1, M):
                value -= s.numbers[SY + i * M + j] * s.numbers[u_at + j]
            pivot = s.numbers[SY + i * M + i]
            s.numbers[u_at + i] = value / pivot if pivot != 0.0 else value
        for i in range(M):
            inner = -s.numbers[along_at + M + i]
            for j in range(M):
                inner += s.numbers[yy_at + i * M + j] * s.numbers[u_at + j]
            pivot = s.numbers[SY + i * M + i]
            value = pivot * s.numbers[u_at + i] + scale * inner
            for j in range(i):
                value -= s.numbers[SY + j * M + i] * s.numbers[v_at + j]
            s.numbers[v_at + i] = value / pivot if pivot != 0.0 else value
    sync()
    step = STEP * s.n
    for k in range(lane(), 3 * s.n, lanes()):
        s.rows[step + k] = scale * s.force[k]
    for pair in range(M):
        slot = slot_of(pair, head)
        if s.numbers[SY + pair * M + pair] != 0.0:
            combine(
                s,
                step,
                s.numbers[v_at + pair],
                (HISTORY + 3 * slot) * s.n,
                -scale * s.numbers[u_at + pair],
                (HISTORY + 3 * (M + slot)) * s.n,
            )
    downhill = 0.0
    for k in range(lane(), 3 * s.n, lanes()):
        downhill += s.rows[step + k] * s.force[k]
    downhill = total(downhill)
    sync()
    longest = math.sqrt(longest2(s.n, s.rows[step:]))
    factor = max_step / max(longest, max_step)
    if downhill < 0.0:
        factor = -factor
    for k in range(lane(), 3 * s.n, lanes()):
        s.rows[step + k] *= factor
    sync()


def combine(s: Memory, out: int, a: float, a_at: int, b: float, b_at: int) -> None:
    """Add ``a * s + b * y`` to the vector at ``out``; all three are in ``rows``."""
    for k in range(lane(), 3 * s.n, lanes()):
        s.rows[out + k] += a * s.rows[a_at + k] + b * s.rows[b_at + k]


def finish(s: Memory, settings: Any) -> None:
    """Turn the ring by three reversals, so that the oldest pair comes first."""
    head = s.counts[HEAD]
    sync()
    if lane() == 0:
        for half in range(2):
            first = HISTORY + 3 * M * half
            reverse(s.rows, first * s.n, (first + 3 * head) * s.n)
            reverse(s.rows, (first + 3 * head) * s.n, (first + 3 * M) * s.n)
            reverse(s.rows, first * s.n, (first + 3 * M) * s.n)
        s.counts[HEAD] = 0
    sync()


def reverse(rows: Any, start: int, stop: int) -> None:
    """Reverse ``rows[start:stop]`` in place."""
    last = stop - 1
    while start < last:
        rows[start], rows[last] = rows[last], rows[start]
        start += 1
        last -= 1
