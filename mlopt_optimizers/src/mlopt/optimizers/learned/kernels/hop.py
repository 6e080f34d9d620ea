"""The hop of a learned search, for one system: a small network chooses after each quench.

The quench, the Metropolis test, the container and the moves are those of
`mlopt.optimizers.searches.kernels.basin_hopping`.
"""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import highest, lane, lanes, sync, theta_of, total, uniform
from mlopt.core.kernels.records import Proposal, Step, diameter_of, is_movable, species_of
from mlopt.optimizers.moves.kernels.basic import made, outermost, put_away
from mlopt.optimizers.moves.kernels.geometry import COUNTER, HOPS, KEY, centre_of, close_packed
from mlopt.optimizers.searches.kernels.basin_hopping import ENERGY, ROW_ENERGY, TEMPERATURE
from mlopt.optimizers.searches.kernels.basin_hopping import step as hop_on

# the network, as in `mlopt.optimizers.learned.hop.network`, where these are explained
INPUTS = 8
ATOM_INPUTS = 3
HIDDEN = 12
ATOM_HEAD = HIDDEN * (INPUTS + 1)
HEAD = ATOM_HEAD + 2 * (HIDDEN + 1)
STEP = 0.36
TEMPERATURE_UNIT = 0.36
LOOSE = 0.4
SHARPNESS = 40.0
SHORTEST, LONGEST = -4.0, 1.5
COLDEST, HOTTEST = -6.0, 4.0
MARGIN = 1e-3
FLATTEST = 0.02
HIGHEST = 10.0

# of the search: how many moves there are to choose from, bits of those for free clusters alone and for several species,
# and which one is a new start
CHOICES = 1
FOR_CLUSTERS = 0
FOR_KINDS = 0
RESTART = -1
#: of one move: which one it is
WHICH = 0

# numbers and counts: those of basin hopping, then these
BEST, LOWEST, UNIT = 4, 5, 6
SINCE, CALLS, CHOICE = 6, 7, 8

# scratch, in units of n: inputs of atoms, and what is said about each; `made` hands on what is behind 3 n
BINDING, DISTANCE, SIZE, AWAY = 6, 7, 8, 9
HANDED = 3


def step(s: Step, settings: Any) -> None:
    """Take a step as basin hopping does, and count the call."""
    hop_on(s, settings)
    sync()
    if lane() == 0:
        s.counts[CALLS] += 1


def enough2(energy: float, numbers: Any, settings: Any) -> Any:
    """Return the squared tolerance of a quench, which widens with the height. settings: tolerance, widening."""
    height = 0.0
    if math.isfinite(numbers[ENERGY]) and energy > numbers[ENERGY]:
        height = min(HIGHEST, (energy - numbers[ENERGY]) / numbers[UNIT])
    wide = 1.0 + settings[1] * height
    enough = settings[0] * wide * wide
    return enough * enough


def decide(s: Step, sound: bool, settings: Any) -> None:
    """Look at the state of the search, and choose temperature, move, and the size of each atom's step.

    settings: horizon.
    """
    n, rows, numbers, counts, scratch = s.n, s.rows, s.numbers, s.counts, s.scratch
    key, hops = counts[KEY], counts[HOPS]
    lowest, best, since, unit = numbers[LOWEST], numbers[BEST], counts[SINCE], numbers[UNIT]
    if sound and s.energy < lowest - MARGIN * unit:
        since = 0
    else:
        since = since + 1
    if sound:
        lowest, best = min(lowest, s.energy), min(best, s.energy)
    # the scale of energies
    strongest, mean = -math.inf, 0.0
    for i in range(lane(), n, lanes()):
        strongest = max(strongest, -rows[ROW_ENERGY * n + i])
        mean += rows[ROW_ENERGY * n + i]
    strongest, mean = -highest(strongest), total(mean) / float(n)
    unit = max(mean - strongest, FLATTEST * abs(strongest))
    if unit == 0.0:
        unit = 1.0
    a, b, c = centre_of(n, rows)
    radius = close_packed(n)
    several, caged = 0.0, 0.0
    for i in range(lane(), n, lanes()):
        dx, dy, dz = rows[i] - a, rows[n + i] - b, rows[2 * n + i] - c
        scratch[BINDING * n + i] = (rows[ROW_ENERGY * n + i] - strongest) / unit
        scratch[DISTANCE * n + i] = math.sqrt(dx * dx + dy * dy + dz * dz) / (radius * diameter_of(s, i))
        if species_of(s, i) != species_of(s, 0):
            several = 1.0
        if not is_movable(s, i):
            caged = 1.0
    several, caged = highest(several), highest(caged)
    current = numbers[ENERGY]
    height, gap = 0.0, 0.0
    if math.isfinite(current) and math.isfinite(lowest):
        height = math.log1p(max(0.0, current - lowest) / unit)
        gap = math.log1p(max(0.0, lowest - best) / unit)
    stale = math.log1p(float(since)) / 3.0
    share = min(1.0, float(counts[CALLS]) / settings[0])
    first = -(hops * (n + 2))
    noise = 2.0 * uniform(key, first + 2) - 1.0
    sync()
    heat = network(n, height, gap, stale, share, noise, scratch, theta_of(settings))
    # what each atom does
    for i in range(lane(), n, lanes()):
        scratch[SIZE * n + i] = math.exp(min(LONGEST, max(SHORTEST, scratch[SIZE * n + i])))
        ratio = 1.0
        if strongest < 0.0:
            ratio = rows[ROW_ENERGY * n + i] / strongest
        odds = scratch[AWAY * n + i] + SHARPNESS * (LOOSE - ratio)
        away = uniform(key, first + 3 + i) < 1.0 / (1.0 + math.exp(-odds))
        scratch[AWAY * n + i] = 1.0 if away else 0.0
    sync()
    choice = choose(uniform(key, first + 1), several, caged, scratch)
    sync()
    if lane() == 0:
        if choice == RESTART:
            numbers[ENERGY] = math.inf
            lowest = math.inf
            since = 0
        numbers[TEMPERATURE] = TEMPERATURE_UNIT * unit * math.exp(min(HOTTEST, max(COLDEST, heat)))
        numbers[BEST] = best
        numbers[LOWEST] = lowest
        numbers[UNIT] = unit
        counts[SINCE] = since
        counts[CHOICE] = choice
    sync()


def network(
    n: int,
    height: float,
    gap: float,
    stale: float,
    share: float,
    noise: float,
    scratch: Any,
    weights: Any,
) -> Any:
    """Compute the outputs of the network, and return the one for the temperature.

    Outputs for atoms go to ``scratch``, and the odds of moves in front of them.
    """
    for i in range(lane(), n, lanes()):
        scratch[SIZE * n + i] = weights[ATOM_HEAD + 2 * HIDDEN]
        scratch[AWAY * n + i] = weights[ATOM_HEAD + 2 * HIDDEN + 1]
    heat = weights[HEAD + (CHOICES + 1) * HIDDEN]
    if lane() == 0:
        for j in range(CHOICES):
            scratch[j] = weights[HEAD + (CHOICES + 1) * HIDDEN + 1 + j]
    sync()
    for k in range(HIDDEN):
        at = k * INPUTS
        base = weights[HIDDEN * INPUTS + k] + weights[at + 3] * height + weights[at + 4] * gap
        base += weights[at + 5] * stale + weights[at + 6] * share + weights[at + 7] * noise
        pooled = 0.0
        for i in range(lane(), n, lanes()):
            binding, distance = scratch[BINDING * n + i], scratch[DISTANCE * n + i]
            own = weights[at] * binding + weights[at + 1] * distance + weights[at + 2] * binding * distance
            unit = math.tanh(base + own)
            pooled += unit
            scratch[SIZE * n + i] += weights[ATOM_HEAD + k] * unit
            scratch[AWAY * n + i] += weights[ATOM_HEAD + HIDDEN + k] * unit
        pooled = total(pooled) / float(n)
        heat += weights[HEAD + k] * pooled
        if lane() == 0:
            for j in range(CHOICES):
                scratch[j] += weights[HEAD + (j + 1) * HIDDEN + k] * pooled
    sync()
    return heat


def choose(number: float, several: float, caged: float, scratch: Any) -> int:
    """Return the move that a ``number`` in [0, 1) chooses. A move that can do nothing has no odds."""
    most = -math.inf
    for j in range(CHOICES):
        most = max(most, scratch[j])
    whole = 0.0
    for j in range(CHOICES):
        whole += odds_of(j, scratch[j] - most, several, caged)
    choice, reached = 0, 0.0
    for j in range(CHOICES):
        odds = odds_of(j, scratch[j] - most, several, caged)
        if odds > 0.0 and number * whole >= reached:
            choice = j
        reached += odds
    return choice


def odds_of(j: int, logit: float, several: float, caged: float) -> float:
    """Return the odds of move j, whose output is ``logit``; 0 if it can do nothing."""
    if (FOR_KINDS >> j) % 2 == 1 and several == 0.0:
        return 0.0
    if (FOR_CLUSTERS >> j) % 2 == 1 and caged > 0.0:
        return 0.0
    return math.exp(logit)


def chosen(s: Proposal, settings: Any) -> None:
    """Make the move, if it is the chosen one."""
    if s.counts[CHOICE] == WHICH:
        made(s, settings)


def displace(s: Proposal, settings: Any) -> None:
    """Displace each atom by a random vector of its own size, then put some at random places on the surface."""
    n, x, counts, scratch = s.n, s.x, s.counts, s.scratch
    key, counter = counts[KEY], counts[COUNTER]
    for i in range(lane(), n, lanes()):
        size = STEP * s.scale * diameter_of(s, i) * scratch[(SIZE - HANDED) * n + i]
        for k in range(3):
            x[k * n + i] += size * (2.0 * uniform(key, counter + 3 * i + k + 1) - 1.0)
    sync()
    counter += 3 * n
    a, b, c = centre_of(n, x)
    radius = outermost(s, a, b, c)
    for i in range(lane(), n, lanes()):
        if scratch[(AWAY - HANDED) * n + i] > 0.0 and is_movable(s, i):
            put_away(s, i, a, b, c, radius, key, counter + 2 * i)
    sync()
    if lane() == 0:
        counts[COUNTER] = counter + 2 * n
    sync()
