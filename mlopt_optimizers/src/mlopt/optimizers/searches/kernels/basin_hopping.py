"""Basin hopping, for one system: a quench, and at its end Metropolis, moves and the container."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from mlopt.core.kernels.lanes import highest, lane, lanes, sync, total, uniform
from mlopt.core.kernels.records import Memory, Proposal, Start, Step, diameter_of, is_movable
from mlopt.optimizers.moves.kernels.geometry import COUNTER, HOPS, KEY, centre_of, close_packed

ADAPT_STEP = 0
ADAPT_TEMPERATURE = 0
CONTAINED = 1
#: hops between two adaptations, and the factor of each, as in GMIN
WINDOW = 50
FACTOR = 1.05

# rows, in units of n; then those of the quench
FOUND_X, ROW_ENERGY, INNER_ROWS = 3, 6, 7
# numbers
ENERGY, FOUND_ENERGY, SCALE, TEMPERATURE, INNER_NUMBERS = 0, 1, 2, 3, 4
# counts, besides those that moves know
ARRIVED, QUENCH_CALLS, ACCEPTED, INNER_COUNTS = 2, 3, 5, 6


def quench_init(s: Start, settings: Any) -> None:
    """Stand for the function of the inner optimizer."""


def quench_step(s: Step, settings: Any) -> None:
    """Stand for the function of the inner optimizer."""


def quench_finish(s: Memory, settings: Any) -> None:
    """Stand for the function of the inner optimizer."""


def moves(s: Proposal, settings: Any) -> None:
    """Stand for the moves, which are made in turn."""


def enough2(energy: float, numbers: Any, settings: Any) -> Any:
    """Return the mean squared force component at which a quench ends. A search may replace it."""
    return settings[0] * settings[0]


def decide(s: Step, sound: bool, settings: Any) -> None:
    """Do nothing between judging and moving. A search that chooses its moves replaces it."""


def init(s: Start, settings: Any) -> None:
    """Do nothing: a search is never started anew within a rollout."""


def finish(s: Memory, settings: Any) -> None:
    """Finish the quench."""
    inner = replace(
        s,
        rows=s.rows[INNER_ROWS * s.n :],
        numbers=s.numbers[INNER_NUMBERS:],
        counts=s.counts[INNER_COUNTS:],
    )
    quench_finish(inner, settings)


def step(s: Step, settings: Any) -> None:
    """Take a step of the quench, or a hop where the quench has ended.

    settings: quench_tolerance, quench_calls, container, acceptance.
    """
    mean2 = 0.0
    for k in range(lane(), 3 * s.n, lanes()):
        mean2 += s.force[k] * s.force[k]
        s.rows[FOUND_X * s.n + k] = s.x[k]
    mean2 = total(mean2) / float(3 * s.n)
    sound = math.isfinite(s.energy + mean2)
    calls = s.counts[QUENCH_CALLS] + 1
    ended = not sound or mean2 <= enough2(s.energy, s.numbers, settings) or calls >= settings[1]
    sync()
    if lane() == 0:
        s.numbers[FOUND_ENERGY] = s.energy
        s.counts[QUENCH_CALLS] = 0 if ended else calls
        s.counts[ARRIVED] = 1 if ended and sound else 0
    inner = replace(
        s,
        rows=s.rows[INNER_ROWS * s.n :],
        numbers=s.numbers[INNER_NUMBERS:],
        counts=s.counts[INNER_COUNTS:],
    )
    if not ended:
        quench_step(inner, settings)
        return
    sync()
    judge(s, sound, settings)
    sync()
    decide(s, sound, settings)
    sync()
    for k in range(lane(), 3 * s.n, lanes()):
        s.x[k] = s.rows[k]
    sync()
    proposal = Proposal(
        n=s.n,
        x=s.x,
        row_energy=s.rows[ROW_ENERGY * s.n :],
        scale=s.numbers[SCALE],
        atoms=s.atoms,
        rows=s.rows,
        counts=s.counts,
        scratch=s.scratch,
    )
    moves(proposal, settings)
    sync()
    if CONTAINED:
        contain(s, settings[2])
    sync()
    quench_init(inner, settings)


def judge(s: Step, sound: bool, settings: Any) -> None:
    """Accept or reject the minimum by Metropolis, and adapt."""
    key, counter = s.counts[KEY], s.counts[COUNTER]
    rise = s.energy - s.numbers[ENERGY]
    accept = False
    if sound:
        hotter = max(s.numbers[TEMPERATURE], 1e-37)
        accept = rise <= 0.0 or uniform(key, counter + 1) < math.exp(-rise / hotter)
    hops = s.counts[HOPS] + 1
    accepted = s.counts[ACCEPTED] + (1 if accept else 0)
    scale, temperature = s.numbers[SCALE], s.numbers[TEMPERATURE]
    if (ADAPT_STEP or ADAPT_TEMPERATURE) and hops % WINDOW == 0:
        factor = FACTOR if accepted > settings[3] * float(WINDOW) else 1.0 / FACTOR
        if ADAPT_STEP:
            scale = scale * factor
        if ADAPT_TEMPERATURE:
            temperature = temperature / factor
        accepted = 0
    sync()
    if accept:
        for k in range(lane(), 3 * s.n, lanes()):
            s.rows[k] = s.x[k]
        for i in range(lane(), s.n, lanes()):
            s.rows[ROW_ENERGY * s.n + i] = s.row_energy[i]
    if lane() == 0:
        if accept:
            s.numbers[ENERGY] = s.energy
        s.numbers[SCALE] = scale
        s.numbers[TEMPERATURE] = temperature
        s.counts[HOPS] = hops
        s.counts[ACCEPTED] = accepted
        s.counts[COUNTER] = counter + 1


def contain(s: Step, container: float) -> None:
    """Pull evaporated rows back."""
    n, x = s.n, s.x
    diameter = 0.0
    for i in range(lane(), n, lanes()):
        diameter = max(diameter, diameter_of(s, i))
    diameter = highest(diameter)
    limit = container * diameter * (1.0 + close_packed(n))
    a, b, c = centre_of(n, x)
    sync()
    for i in range(lane(), n, lanes()):
        dx, dy, dz = x[i] - a, x[n + i] - b, x[2 * n + i] - c
        distance = math.sqrt(dx * dx + dy * dy + dz * dz)
        if distance > limit and is_movable(s, i):
            back = 1.0 - limit / distance
            x[i] -= dx * back
            x[n + i] -= dy * back
            x[2 * n + i] -= dz * back
