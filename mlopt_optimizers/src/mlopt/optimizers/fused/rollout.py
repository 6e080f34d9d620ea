"""The loop of the driver for one system, in the part of Python that kernels are written in.

It does for one system what `Driver.advance` and `Tally` do for a batch, and must change with them.
"""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.driver.progress import SAME_ENERGY
from mlopt.core.driver.stop import Reason
from mlopt.core.kernels.lanes import lane, lanes, sync
from mlopt.core.kernels.records import Memory, Step, is_free
from mlopt.optimizers.local.kernels.gradient_descent import longest2

#: 1 for a search
SEARCHING = 0
#: whether the tally keeps the lowest point: of searches, and of what wanders
LOWEST = 0
#: minima that are remembered
KEEP = 0
#: consecutive non-finite evaluations after which a system is given up, from the second call on
PATIENCE = 1
#: offsets of a search's fields: found_x in rows, found_energy in numbers, arrived in counts
FOUND_X = 0
FOUND_ENERGY = 0
ARRIVED = 0
CONVERGED, BUDGET = Reason.CONVERGED.code, Reason.BUDGET.code
TARGET, NON_FINITE = Reason.TARGET.code, Reason.NON_FINITE.code

# tally: rows are x, then the pool; numbers and counts as here, then those of the pool
ENERGY, FORCE2, POOL_ENERGY = 0, 1, 2
FIRST_HIT, UNSOUND, QUENCHES, POOL_CALLS = 0, 1, 2, 3
# conditions: floating-point, then integers
TARGET_ENERGY, FMAX2 = 0, 1
FORCE_CALLS, HAS_TARGET, ENDS_ON_TARGET, HAS_FMAX = 0, 1, 2, 3


def evaluate(
    n: int,
    x: Any,
    force: Any,
    row_energy: Any,
    kinds: Any,
    runs: Any,
    table: Any,
    cell: Any,
    reals: Any,
    integers: Any,
    settings: Any,
) -> float:
    """Stand for the potential."""
    return 0.0


def step(s: Step, settings: Any) -> None:
    """Stand for the function of the optimizer."""


def finish(s: Memory, settings: Any) -> None:
    """Stand for the function of the optimizer."""


def rollout(
    n: int,
    calls: int,
    steps: int,
    x: Any,
    rows: Any,
    numbers: Any,
    counts: Any,
    best: Any,
    tally_numbers: Any,
    tally_counts: Any,
    atoms: Any,
    kinds: Any,
    runs: Any,
    table: Any,
    cell: Any,
    conditions: Any,
    limits: Any,
    trace_calls: Any,
    trace: Any,
    scratch: Any,
    reals: Any,
    integers: Any,
    ended: Any,
    settings: Any,
) -> None:
    """Take ``steps`` steps, or fewer if the system ends before.

    calls: force calls that the system has used.
    best: rows of the tally.
    trace_calls (t,): numbers of calls at which ``trace (t,)`` takes the energy of the tally.
    ended (2,): the code of the reason, or 0, and the force calls used.
    """
    force, row_energy, work = scratch[: 3 * n], scratch[3 * n : 4 * n], scratch[4 * n :]
    reason, traced = 0, 0
    if lane() == 0:
        integers[0] = 0  # the potential has seen nothing of this system yet
    for taken in range(steps):
        sync()
        energy = evaluate(n, x, force, row_energy, kinds, runs, table, cell, reals, integers, settings)
        s = Step(
            n=n,
            x=x,
            energy=energy,
            force=force,
            row_energy=row_energy,
            atoms=atoms,
            rows=rows,
            numbers=numbers,
            counts=counts,
            scratch=work,
        )
        sync()
        for i in range(lane(), n, lanes()):
            if not is_free(s, i):
                force[i] = 0.0
                force[n + i] = 0.0
                force[2 * n + i] = 0.0
        sync()
        calls += 1
        force2 = longest2(n, force)
        finite = math.isfinite(energy + force2)
        # the tally
        unsound = 0 if finite else tally_counts[UNSOUND] + 1
        given_up = unsound >= (PATIENCE if calls > 1 else 1)
        tallied, hit_at = tally_numbers[ENERGY], tally_counts[FIRST_HIT]
        better = finite and energy < tallied if LOWEST else True
        if better:
            tallied = energy
        hit = limits[HAS_TARGET] == 1 and tallied <= conditions[TARGET_ENERGY]
        if given_up:
            reason = NON_FINITE
        elif hit and limits[ENDS_ON_TARGET] == 1:
            reason = TARGET
        elif limits[HAS_FMAX] == 1 and force2 < conditions[FMAX2]:
            reason = CONVERGED
        elif calls >= limits[FORCE_CALLS]:
            reason = BUDGET
        sync()
        if better and (LOWEST or reason != 0 or taken == steps - 1):
            for k in range(lane(), 3 * n, lanes()):
                best[k] = x[k]
        if lane() == 0:
            tally_counts[UNSOUND] = unsound
            if better:
                tally_numbers[ENERGY] = energy
                tally_numbers[FORCE2] = force2
            if hit and hit_at < 0:
                tally_counts[FIRST_HIT] = calls
        while traced < len(trace_calls) and trace_calls[traced] <= calls:
            if lane() == 0:
                trace[traced] = tallied
            traced += 1
        if reason != 0:
            break
        step(s, settings)
        sync()
        if SEARCHING and counts[ARRIVED] == 1:
            remember(n, numbers[FOUND_ENERGY], calls, rows[FOUND_X * n :], best, tally_numbers, tally_counts)
    while traced < len(trace_calls):
        if lane() == 0:
            trace[traced] = tally_numbers[ENERGY]
        traced += 1
    sync()
    finish(Memory(n=n, rows=rows, numbers=numbers, counts=counts), settings)
    if lane() == 0:
        ended[0] = reason
        ended[1] = calls


def remember(
    n: int, energy: float, calls: int, found: Any, best: Any, tally_numbers: Any, tally_counts: Any
) -> None:
    """Put a minimum into the pool, as `Tally.add_minima` does."""
    near, near_gap, high, highest = 0, math.inf, 0, -math.inf
    for slot in range(KEEP):
        there = tally_numbers[POOL_ENERGY + slot]
        gap = abs(there - energy)
        if gap < near_gap:
            near, near_gap = slot, gap
        if there > highest:
            high, highest = slot, there
    slot = near if near_gap < SAME_ENERGY else high
    lower = KEEP > 0 and energy < tally_numbers[POOL_ENERGY + slot]
    sync()
    if lane() == 0:
        if KEEP > 0:
            tally_counts[QUENCHES] += 1
        if lower:
            tally_numbers[POOL_ENERGY + slot] = energy
            tally_counts[POOL_CALLS + slot] = calls
    if lower:
        for i in range(lane(), n, lanes()):
            for c in range(3):
                best[(3 + 3 * slot + c) * n + i] = found[c * n + i]
    sync()
