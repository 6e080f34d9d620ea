"""Moves, for one system. Each changes ``x`` and returns nothing. ``counts`` hold the key and the counter.

In every move a row draws the same random numbers as in the eager version.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from mlopt.core.kernels.lanes import highest, lane, lanes, normal, sync, total, uniform
from mlopt.core.kernels.records import Proposal, diameter_of, is_free, is_movable, species_of
from mlopt.optimizers.moves.kernels.geometry import COUNTER, HOPS, KEY, centre_of, close_packed

ONE = 0
NORMAL = 0
PAIRS = 1


def propose(s: Proposal, settings: Any) -> None:
    """Stand for a move."""


def sometimes(s: Proposal, settings: Any) -> None:
    """Make the move in a share of the hops.

    settings: the share; where ONE is set, lower and upper bound of the hop's number for which this move is chosen.
    """
    key, counter = s.counts[KEY], s.counts[COUNTER]
    if ONE:
        number = uniform(key, -s.counts[HOPS])
        chosen = settings[0] <= number and number < settings[1]
    else:
        chosen = True
        if settings[0] < 1.0:
            chosen = uniform(key, counter + 1) < settings[0]
            sync()
            if lane() == 0:
                s.counts[COUNTER] = counter + 1
    sync()
    if chosen:
        made(s, settings)


def made(s: Proposal, settings: Any) -> None:
    """Make the move, and put fixed atoms back where they were."""
    for k in range(lane(), 3 * s.n, lanes()):
        s.scratch[k] = s.x[k]
    sync()
    propose(replace(s, scratch=s.scratch[3 * s.n :]), settings)
    sync()
    for i in range(lane(), s.n, lanes()):
        if not is_free(s, i):
            s.x[i] = s.scratch[i]
            s.x[s.n + i] = s.scratch[s.n + i]
            s.x[2 * s.n + i] = s.scratch[2 * s.n + i]
    sync()


def displacement(s: Proposal, settings: Any) -> None:
    """Displace every row at random. settings: step."""
    key, counter = s.counts[KEY], s.counts[COUNTER]
    for i in range(lane(), s.n, lanes()):
        size = settings[0] * s.scale * diameter_of(s, i)
        for c in range(3):
            if NORMAL:
                kick = normal(key, counter + 6 * i + c + 1, 3)
            else:
                kick = 2.0 * uniform(key, counter + 3 * i + c + 1) - 1.0
            s.x[c * s.n + i] += size * kick
    sync()
    if lane() == 0:
        s.counts[COUNTER] = counter + (6 if NORMAL else 3) * s.n
    sync()


def angular(s: Proposal, settings: Any) -> None:
    """Put loosely bound rows at random places on the surface. settings: threshold."""
    key, counter = s.counts[KEY], s.counts[COUNTER]
    strongest = -math.inf
    for i in range(lane(), s.n, lanes()):
        strongest = max(strongest, -s.row_energy[i])
    limit = settings[0] * -highest(strongest)
    a, b, c = centre_of(s.n, s.x)
    radius = outermost(s, a, b, c)
    sync()
    for i in range(lane(), s.n, lanes()):
        if s.row_energy[i] > limit and is_movable(s, i):
            put_away(s, i, a, b, c, radius, key, counter + 2 * i)
    sync()
    if lane() == 0:
        s.counts[COUNTER] = counter + 2 * s.n
    sync()


def outermost(s: Proposal, a: float, b: float, c: float) -> float:
    """Return the largest distance of a row from the point (a, b, c)."""
    radius = 0.0
    for i in range(lane(), s.n, lanes()):
        dx, dy, dz = s.x[i] - a, s.x[s.n + i] - b, s.x[2 * s.n + i] - c
        radius = max(radius, dx * dx + dy * dy + dz * dz)
    return math.sqrt(highest(radius))


def put_away(
    s: Proposal, i: int, a: float, b: float, c: float, radius: float, key: int, counter: int
) -> None:
    """Put row i at ``radius`` from the point (a, b, c), in a direction that the next two random numbers give."""
    cosine = 2.0 * uniform(key, counter + 1) - 1.0
    angle = 2.0 * math.pi * uniform(key, counter + 2)
    sine = math.sqrt(1.0 - cosine * cosine)
    s.x[i] = a + radius * (sine * math.cos(angle))
    s.x[s.n + i] = b + radius * (sine * math.sin(angle))
    s.x[2 * s.n + i] = c + radius * cosine


def exchange(s: Proposal, settings: Any) -> None:
    """Exchange the places of rows of different species."""
    if lane() == 0:
        key = s.counts[KEY]
        for _ in range(PAIRS):
            counter = s.counts[COUNTER]
            first, most = 0, -2.0
            for i in range(s.n):
                share = uniform(key, counter + 2 * i + 1) if is_free(s, i) else -1.0
                if share > most:
                    first, most = i, share
            second, most = first, -1.0
            for i in range(s.n):
                if species_of(s, i) != species_of(s, first) and is_free(s, i):
                    share = uniform(key, counter + 2 * i + 2)
                    if share > most:
                        second, most = i, share
            for c in range(3):
                s.x[c * s.n + first], s.x[c * s.n + second] = s.x[c * s.n + second], s.x[c * s.n + first]
            s.counts[COUNTER] = counter + 2 * s.n
    sync()


def restart(s: Proposal, settings: Any) -> None:
    """Put every row at a random place in a ball. settings: margin."""
    key, counter = s.counts[KEY], s.counts[COUNTER]
    a, b, c = centre_of(s.n, s.x)
    diameter = 0.0
    for i in range(lane(), s.n, lanes()):
        diameter += diameter_of(s, i)
    radius = total(diameter) / float(s.n) * (settings[0] + close_packed(s.n))
    sync()
    for i in range(lane(), s.n, lanes()):
        if is_movable(s, i):
            length = radius * math.exp(math.log(uniform(key, counter + 3 * i + 3)) / 3.0)
            put_away(s, i, a, b, c, length, key, counter + 3 * i)
    sync()
    if lane() == 0:
        s.counts[COUNTER] = counter + 3 * s.n
    sync()
