"""Moves, for one system. Each changes ``x`` and returns nothing; ``counts`` hold the key and the counter.

In every move the numbers that a row draws are those that the eager version draws for it.
"""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import highest, lane, lanes, normal, sync, total, uniform
from mlopt.optimizers.moves.kernels.geometry import COUNTER, HOPS, KEY, centre_of, close_packed

ONE = 0
NORMAL = 0
PAIRS = 1


def propose(
    n: int,
    x: Any,
    row_energy: Any,
    scale: float,
    atoms: Any,
    rows: Any,
    counts: Any,
    scratch: Any,
    settings: Any,
) -> None:
    """Stands for a move."""


def sometimes(
    n: int,
    x: Any,
    row_energy: Any,
    scale: float,
    atoms: Any,
    rows: Any,
    counts: Any,
    scratch: Any,
    settings: Any,
) -> None:
    """A move that a share of the hops makes. settings: the share, or where ONE the bounds of one number a hop."""
    key, counter = counts[KEY], counts[COUNTER]
    if ONE:
        number = uniform(key, -counts[HOPS])
        chosen = settings[0] <= number and number < settings[1]
    else:
        chosen = True
        if settings[0] < 1.0:
            chosen = uniform(key, counter + 1) < settings[0]
            sync()
            if lane() == 0:
                counts[COUNTER] = counter + 1
    sync()
    if chosen:
        made(n, x, row_energy, scale, atoms, rows, counts, scratch, settings)


def made(
    n: int,
    x: Any,
    row_energy: Any,
    scale: float,
    atoms: Any,
    rows: Any,
    counts: Any,
    scratch: Any,
    settings: Any,
) -> None:
    """The move, after which fixed atoms are where they were."""
    for k in range(lane(), 3 * n, lanes()):
        scratch[k] = x[k]
    sync()
    propose(n, x, row_energy, scale, atoms, rows, counts, scratch[3 * n :], settings)
    sync()
    for i in range(lane(), n, lanes()):
        if atoms[2 * n + i] == 0.0:
            x[i] = scratch[i]
            x[n + i] = scratch[n + i]
            x[2 * n + i] = scratch[2 * n + i]
    sync()


def displacement(
    n: int,
    x: Any,
    row_energy: Any,
    scale: float,
    atoms: Any,
    rows: Any,
    counts: Any,
    scratch: Any,
    settings: Any,
) -> None:
    """Displace every row at random. settings: step."""
    key, counter = counts[KEY], counts[COUNTER]
    for i in range(lane(), n, lanes()):
        size = settings[0] * scale * atoms[i]
        for c in range(3):
            if NORMAL:
                kick = normal(key, counter + 6 * i + c + 1, 3)
            else:
                kick = 2.0 * uniform(key, counter + 3 * i + c + 1) - 1.0
            x[c * n + i] += size * kick
    sync()
    if lane() == 0:
        counts[COUNTER] = counter + (6 if NORMAL else 3) * n
    sync()


def angular(
    n: int,
    x: Any,
    row_energy: Any,
    scale: float,
    atoms: Any,
    rows: Any,
    counts: Any,
    scratch: Any,
    settings: Any,
) -> None:
    """Put loosely bound rows at random places on the surface. settings: threshold."""
    key, counter = counts[KEY], counts[COUNTER]
    strongest = -math.inf
    for i in range(lane(), n, lanes()):
        strongest = max(strongest, -row_energy[i])
    limit = settings[0] * -highest(strongest)
    a, b, c = centre_of(n, x)
    radius = outermost(n, x, a, b, c)
    sync()
    for i in range(lane(), n, lanes()):
        if row_energy[i] > limit and atoms[n + i] > 0.0:
            put_away(n, x, i, a, b, c, radius, key, counter + 2 * i)
    sync()
    if lane() == 0:
        counts[COUNTER] = counter + 2 * n
    sync()


def outermost(n: int, x: Any, a: float, b: float, c: float) -> float:
    """The largest distance of a row from a point."""
    radius = 0.0
    for i in range(lane(), n, lanes()):
        dx, dy, dz = x[i] - a, x[n + i] - b, x[2 * n + i] - c
        radius = max(radius, dx * dx + dy * dy + dz * dz)
    return math.sqrt(highest(radius))


def put_away(
    n: int, x: Any, i: int, a: float, b: float, c: float, radius: float, key: int, counter: int
) -> None:
    """Put row i at a distance from a point, in a direction from the next two numbers."""
    cosine = 2.0 * uniform(key, counter + 1) - 1.0
    angle = 2.0 * math.pi * uniform(key, counter + 2)
    sine = math.sqrt(1.0 - cosine * cosine)
    x[i] = a + radius * (sine * math.cos(angle))
    x[n + i] = b + radius * (sine * math.sin(angle))
    x[2 * n + i] = c + radius * cosine


def exchange(
    n: int,
    x: Any,
    row_energy: Any,
    scale: float,
    atoms: Any,
    rows: Any,
    counts: Any,
    scratch: Any,
    settings: Any,
) -> None:
    """Exchange the places of rows of different species."""
    if lane() == 0:
        key = counts[KEY]
        for _ in range(PAIRS):
            counter = counts[COUNTER]
            first, most = 0, -2.0
            for i in range(n):
                share = uniform(key, counter + 2 * i + 1) if atoms[2 * n + i] > 0.0 else -1.0
                if share > most:
                    first, most = i, share
            second, most = first, -1.0
            for i in range(n):
                if atoms[3 * n + i] != atoms[3 * n + first] and atoms[2 * n + i] > 0.0:
                    share = uniform(key, counter + 2 * i + 2)
                    if share > most:
                        second, most = i, share
            for c in range(3):
                x[c * n + first], x[c * n + second] = x[c * n + second], x[c * n + first]
            counts[COUNTER] = counter + 2 * n
    sync()


def restart(
    n: int,
    x: Any,
    row_energy: Any,
    scale: float,
    atoms: Any,
    rows: Any,
    counts: Any,
    scratch: Any,
    settings: Any,
) -> None:
    """Put every row at a random place in a ball. settings: margin."""
    key, counter = counts[KEY], counts[COUNTER]
    a, b, c = centre_of(n, x)
    diameter = 0.0
    for i in range(lane(), n, lanes()):
        diameter += atoms[i]
    radius = total(diameter) / float(n) * (settings[0] + close_packed(n))
    sync()
    for i in range(lane(), n, lanes()):
        if atoms[n + i] > 0.0:
            length = radius * math.exp(math.log(uniform(key, counter + 3 * i + 3)) / 3.0)
            put_away(n, x, i, a, b, c, length, key, counter + 3 * i)
    sync()
    if lane() == 0:
        counts[COUNTER] = counter + 3 * n
    sync()
