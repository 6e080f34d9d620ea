"""Basin hopping, for one system: a quench, and at its end Metropolis, moves and the container."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import highest, lane, lanes, sync, total, uniform
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


def quench_init(n: int, x: Any, rows: Any, numbers: Any, counts: Any, settings: Any) -> None:
    """Stands for the inner optimizer's."""


def quench_step(
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
    """Stands for the inner optimizer's."""


def quench_finish(n: int, rows: Any, numbers: Any, counts: Any, settings: Any) -> None:
    """Stands for the inner optimizer's."""


def moves(
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
    """Stands for the moves, which are made in turn."""


def enough2(energy: float, numbers: Any, settings: Any) -> Any:
    """The mean squared force component below which a quench ends; a search may put its own in this place."""
    return settings[0] * settings[0]


def decide(
    n: int,
    energy: float,
    sound: bool,
    atoms: Any,
    rows: Any,
    numbers: Any,
    counts: Any,
    scratch: Any,
    settings: Any,
) -> None:
    """Between judging and moving: for a search that chooses its moves."""


def init(n: int, x: Any, rows: Any, numbers: Any, counts: Any, settings: Any) -> None:
    """Never called: a search is not started anew within a rollout."""


def finish(n: int, rows: Any, numbers: Any, counts: Any, settings: Any) -> None:
    """The quench's."""
    quench_finish(n, rows[INNER_ROWS * n :], numbers[INNER_NUMBERS:], counts[INNER_COUNTS:], settings)


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
    """One step of the quench; where it has ended, a hop instead.

    settings: quench_tolerance, quench_calls, container, acceptance.
    """
    mean2 = 0.0
    for k in range(lane(), 3 * n, lanes()):
        mean2 += force[k] * force[k]
        rows[FOUND_X * n + k] = x[k]
    mean2 = total(mean2) / float(3 * n)
    sound = math.isfinite(energy + mean2)
    calls = counts[QUENCH_CALLS] + 1
    ended = not sound or mean2 <= enough2(energy, numbers, settings) or calls >= settings[1]
    sync()
    if lane() == 0:
        numbers[FOUND_ENERGY] = energy
        counts[QUENCH_CALLS] = 0 if ended else calls
        counts[ARRIVED] = 1 if ended and sound else 0
    inner_rows, inner_numbers, inner_counts = (
        rows[INNER_ROWS * n :],
        numbers[INNER_NUMBERS:],
        counts[INNER_COUNTS:],
    )
    if not ended:
        quench_step(
            n, x, energy, force, row_energy, atoms, inner_rows, inner_numbers, inner_counts, scratch, settings
        )
        return
    sync()
    judge(n, x, energy, sound, row_energy, rows, numbers, counts, settings)
    sync()
    decide(n, energy, sound, atoms, rows, numbers, counts, scratch, settings)
    sync()
    for k in range(lane(), 3 * n, lanes()):
        x[k] = rows[k]
    sync()
    moves(n, x, rows[ROW_ENERGY * n :], numbers[SCALE], atoms, rows, counts, scratch, settings)
    sync()
    if CONTAINED:
        contain(n, x, atoms, settings[2])
    sync()
    quench_init(n, x, inner_rows, inner_numbers, inner_counts, settings)


def judge(
    n: int,
    x: Any,
    energy: float,
    sound: bool,
    row_energy: Any,
    rows: Any,
    numbers: Any,
    counts: Any,
    settings: Any,
) -> None:
    """Metropolis, and adaptation."""
    key, counter = counts[KEY], counts[COUNTER]
    rise = energy - numbers[ENERGY]
    accept = False
    if sound:
        accept = rise <= 0.0 or uniform(key, counter + 1) < math.exp(-rise / max(numbers[TEMPERATURE], 1e-37))
    hops = counts[HOPS] + 1
    accepted = counts[ACCEPTED] + (1 if accept else 0)
    scale, temperature = numbers[SCALE], numbers[TEMPERATURE]
    if (ADAPT_STEP or ADAPT_TEMPERATURE) and hops % WINDOW == 0:
        factor = FACTOR if accepted > settings[3] * float(WINDOW) else 1.0 / FACTOR
        if ADAPT_STEP:
            scale = scale * factor
        if ADAPT_TEMPERATURE:
            temperature = temperature / factor
        accepted = 0
    sync()
    if accept:
        for k in range(lane(), 3 * n, lanes()):
            rows[k] = x[k]
        for i in range(lane(), n, lanes()):
            rows[ROW_ENERGY * n + i] = row_energy[i]
    if lane() == 0:
        if accept:
            numbers[ENERGY] = energy
        numbers[SCALE] = scale
        numbers[TEMPERATURE] = temperature
        counts[HOPS] = hops
        counts[ACCEPTED] = accepted
        counts[COUNTER] = counter + 1


def contain(n: int, x: Any, atoms: Any, container: float) -> None:
    """Pull evaporated rows back."""
    diameter = 0.0
    for i in range(lane(), n, lanes()):
        diameter = max(diameter, atoms[i])
    diameter = highest(diameter)
    limit = container * diameter * (1.0 + close_packed(n))
    a, b, c = centre_of(n, x)
    sync()
    for i in range(lane(), n, lanes()):
        dx, dy, dz = x[i] - a, x[n + i] - b, x[2 * n + i] - c
        distance = math.sqrt(dx * dx + dy * dy + dz * dz)
        if distance > limit and atoms[n + i] > 0.0:
            back = 1.0 - limit / distance
            x[i] -= dx * back
            x[n + i] -= dy * back
            x[2 * n + i] -= dz * back
