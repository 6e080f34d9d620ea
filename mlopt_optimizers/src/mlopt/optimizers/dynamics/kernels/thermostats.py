"""Thermostats, for one system: parts of the kernel of an integrator. Random numbers are those of the eager ones."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import lane, lanes, normal, sync, total
from mlopt.core.kernels.records import Step, boltzmann_of, inertia_of, is_free
from mlopt.optimizers.dynamics.kernels.integrator import COUNTER, FREEDOM, HEAT, KEY, OWN, kinetic

#: thermostats of a chain
CHAIN = 3


def langevin(s: Step, time: float, settings: Any) -> None:
    """Move for half of ``time``, apply friction and noise, and move for the other half.

    settings: friction, temperature.
    """
    n, key, counter = s.n, s.counts[KEY], s.counts[COUNTER]
    half, decay = 0.5 * time, math.exp(-settings[0] * time)
    width = math.sqrt((1.0 - decay * decay) * (boltzmann_of(s) * settings[1]))
    before = kinetic(s)
    sync()
    for i in range(lane(), n, lanes()):
        size = width / math.sqrt(inertia_of(s, i)) if is_free(s, i) else 0.0
        for c in range(3):
            k = c * n + i
            s.x[k] += half * s.rows[k]
            s.rows[k] = decay * s.rows[k] + size * normal(key, counter + 6 * i + c + 1, 3)
            s.x[k] += half * s.rows[k]
    sync()
    after = kinetic(s)
    if lane() == 0:
        s.numbers[HEAT] += after - before
        s.counts[COUNTER] = counter + 6 * n
    sync()


def bussi(s: Step, time: float, settings: Any) -> None:
    """Scale the velocities of a full step by a random factor. time: half of it, or 0 at the start.

    settings: temperature, relaxation time.
    """
    n, key, counter, freedom = s.n, s.counts[KEY], s.counts[COUNTER], s.numbers[FREEDOM]
    squares = 0.0
    for i in range(lane(), n, lanes()):
        for c in range(3):
            if i + c > 0 and float(3 * i + c) < freedom:
                number = normal(key, counter + 6 * i + c + 1, 3)
                squares += number * number
    squares = total(squares)
    energy = kinetic(s)
    factor, heat = 1.0, 0.0
    if energy > 0.0 and freedom > 0.0 and time > 0.0:
        decay = math.exp(-2.0 * time / settings[1])
        size2 = (1.0 - decay) * 0.5 * (boltzmann_of(s) * settings[0]) / energy
        along = math.sqrt(decay) + math.sqrt(size2) * normal(key, counter + 1, 3)
        square = along * along + size2 * squares
        factor = -math.sqrt(square) if along < 0.0 else math.sqrt(square)
        heat = (square - 1.0) * energy
    sync()
    for k in range(lane(), 3 * n, lanes()):
        s.rows[k] *= factor
    if lane() == 0:
        s.numbers[HEAT] += heat
        s.counts[COUNTER] = counter + 6 * n
    sync()


def nose_hoover(s: Step, time: float, settings: Any) -> None:
    """Let a chain of thermostats act for ``time``. settings: temperature, relaxation time."""
    energy = kinetic(s)
    sync()
    if lane() == 0:
        thermal, stiffness = boltzmann_of(s) * settings[0], 1.0 / (settings[1] * settings[1])
        weight = 1.0 / (2.0 - math.exp(math.log(2.0) / 3.0))
        twice, factor = 2.0 * energy, 1.0
        for third in range(3):
            part = time * ((1.0 - 2.0 * weight) if third == 1 else weight)
            for j in range(CHAIN):
                turn(s, CHAIN - 1 - j, twice / thermal, stiffness, part)
            shrink = math.exp(-part * s.numbers[OWN])
            factor = factor * shrink
            twice = twice * shrink * shrink
            for j in range(CHAIN):
                turn(s, j, twice / thermal, stiffness, part)
        s.numbers[HEAT] += 0.5 * twice - energy
        s.scratch[0] = factor
    sync()
    for k in range(lane(), 3 * s.n, lanes()):
        s.rows[k] *= s.scratch[0]
    sync()


def turn(s: Step, j: int, ratio: float, stiffness: float, part: float) -> None:
    """Turn thermostat ``j`` on by half of ``part``. ratio: twice the kinetic energy over kT."""
    many = max(s.numbers[FREEDOM], 1.0)
    rate = s.numbers[OWN + j]
    if j == 0:
        push = (ratio - s.numbers[FREEDOM]) / many * stiffness
    else:
        before = s.numbers[OWN + j - 1]
        push = (many if j == 1 else 1.0) * before * before - stiffness
    drag = 1.0
    if j + 1 < CHAIN:
        drag = math.exp(-0.25 * part * s.numbers[OWN + j + 1])
    s.numbers[OWN + j] = (rate * drag + 0.5 * part * push) * drag
