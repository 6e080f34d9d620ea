"""Velocity Verlet with places for a thermostat, for one system. Fields are those of `DynamicsState`.

Functions of thermostats take the velocities at the beginning of ``rows``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlopt.core.kernels.lanes import lane, lanes, sync, total
from mlopt.core.kernels.records import Start, Step, inertia_of

# rows, in units of n: velocity, then the one of the half step
HALF = 3
# numbers; those of a thermostat follow
KICK, HEAT, CONSERVED, FREEDOM, OWN = 0, 1, 2, 3, 4
# counts
KEY, COUNTER = 0, 1


def init(s: Start, settings: Any) -> None:
    """Do nothing: dynamics are never started anew within a rollout."""


def end_step(s: Step, time: float, settings: Any) -> None:
    """Stand for a thermostat that acts for ``time`` at the end of a step; without one nothing happens."""


def begin_step(s: Step, time: float, settings: Any) -> None:
    """Stand for a thermostat that acts for ``time`` at the beginning of a step."""


def drift(s: Step, time: float, settings: Any) -> None:
    """Move for ``time``. A thermostat may replace it."""
    for k in range(lane(), 3 * s.n, lanes()):
        s.x[k] += time * s.rows[k]


def kinetic(s: Step) -> float:
    """Return the kinetic energy of the velocities."""
    twice = 0.0
    for i in range(lane(), s.n, lanes()):
        a, b, c = s.rows[i], s.rows[s.n + i], s.rows[2 * s.n + i]
        twice += inertia_of(s, i) * (a * a + b * b + c * c)
    return 0.5 * total(twice)


def step(s: Step, settings: Any) -> None:
    """Complete the last step, and make the next up to its second half kick. settings: time step."""
    n, kick, half = s.n, s.numbers[KICK], 0.5 * settings[0]
    for i in range(lane(), n, lanes()):
        light = 1.0 / inertia_of(s, i)
        for c in range(3):
            k = c * n + i
            s.rows[k] = s.rows[HALF * n + k] + kick * (s.force[k] * light)
    sync()
    end_step(s, kick, settings)
    sync()
    energy = s.energy + (kinetic(s) - s.numbers[HEAT])
    for k in range(lane(), 3 * n, lanes()):
        s.rows[HALF * n + k] = s.rows[k]
    sync()
    if lane() == 0:
        s.numbers[CONSERVED] = energy
        s.numbers[KICK] = half
    sync()
    onward = replace(s, rows=s.rows[HALF * n :])
    begin_step(onward, half, settings)
    sync()
    for i in range(lane(), n, lanes()):
        light = 1.0 / inertia_of(s, i)
        for c in range(3):
            k = c * n + i
            s.rows[HALF * n + k] += half * (s.force[k] * light)
    sync()
    drift(onward, settings[0], settings)
    sync()
