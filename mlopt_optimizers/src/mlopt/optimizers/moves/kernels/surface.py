"""Put loosely bound atoms at the best places on the surface, for one system."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import lane, sync, uniform
from mlopt.core.kernels.records import Proposal, diameter_of, is_movable
from mlopt.optimizers.moves.kernels.geometry import COUNTER, KEY
from mlopt.optimizers.moves.kernels.symmetrise import distance2

#: in diameters: neighbours are nearer than the first, and nobody may be nearer than the second
NEAR = 1.35
CLOSE = 0.8


def surface(s: Proposal, settings: Any) -> None:
    """Put each of the most loosely bound atoms where it touches most others. settings: most atoms, trials."""
    if lane() == 0:
        key, counter = s.counts[KEY], s.counts[COUNTER]
        diameter, whole = 0.0, s.n > 4
        for i in range(s.n):
            diameter += diameter_of(s, i) / float(s.n)
            s.scratch[i] = s.row_energy[i]
            if not is_movable(s, i):
                whole = False
        many = 1 + int(uniform(key, counter + 1) * settings[0])
        counter += 1
        if whole:
            for _ in range(min(many, s.n // 3)):
                worst = 0
                for i in range(s.n):
                    if s.scratch[i] > s.scratch[worst]:
                        worst = i
                s.scratch[worst] = -math.inf
                counter = place(s.n, s.x, worst, diameter, key, counter, int(settings[1]))
        s.counts[COUNTER] = counter
    sync()


def place(n: int, x: Any, moved: int, diameter: float, key: int, counter: int, trials: int) -> int:
    """Put an atom at the best of some random places that touch three atoms, and return the counter."""
    near2, close2 = NEAR * NEAR * diameter * diameter, CLOSE * CLOSE * diameter * diameter
    best, ba, bb, bc = 0.0, x[moved], x[n + moved], x[2 * n + moved]
    for _ in range(trials):
        i = int(uniform(key, counter + 1) * float(n))
        j = neighbour(n, x, i, moved, i, near2, uniform(key, counter + 2))
        if i != moved and j >= 0:
            k = neighbour(n, x, i, moved, j, near2, uniform(key, counter + 3))
            if k >= 0 and distance2(n, x, k, x[j], x[n + j], x[2 * n + j]) < near2:
                # the two points at one diameter from all three
                ax, ay, az = x[j] - x[i], x[n + j] - x[n + i], x[2 * n + j] - x[2 * n + i]
                cx, cy, cz = x[k] - x[i], x[n + k] - x[n + i], x[2 * n + k] - x[2 * n + i]
                nx, ny, nz = ay * cz - az * cy, az * cx - ax * cz, ax * cy - ay * cx
                length = math.sqrt(nx * nx + ny * ny + nz * nz)
                if length > 0.2 * diameter * diameter:
                    sign = 1.0 if uniform(key, counter + 4) < 0.5 else -1.0
                    height = sign * 0.8165 * diameter / length
                    pa = x[i] + (ax + cx) / 3.0 + height * nx
                    pb = x[n + i] + (ay + cy) / 3.0 + height * ny
                    pc = x[2 * n + i] + (az + cz) / 3.0 + height * nz
                    score = uniform(key, counter + 5) * 0.5
                    for other in range(n):
                        if other != moved:
                            there = distance2(n, x, other, pa, pb, pc)
                            if there < close2:
                                score = -1.0
                                break
                            if there < near2:
                                score += 1.0
                    if score > best:
                        best, ba, bb, bc = score, pa, pb, pc
        counter += 5
    x[moved] = ba
    x[n + moved] = bb
    x[2 * n + moved] = bc
    return counter


def neighbour(n: int, x: Any, i: int, not_this: int, nor_this: int, near2: float, share: float) -> int:
    """Return a random neighbour of atom i, the first from a random place in the list on, or -1 if there is none."""
    start = int(share * float(n))
    for step in range(n):
        j = start + step
        j = j - n if j >= n else j
        if (
            j != i
            and j != not_this
            and j != nor_this
            and distance2(n, x, j, x[i], x[n + i], x[2 * n + i]) < near2
        ):
            return j
    return -1
