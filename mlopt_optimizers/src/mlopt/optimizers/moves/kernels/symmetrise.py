"""Make a cluster symmetric about an axis of its own, for one system."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import lane, sync, uniform
from mlopt.core.kernels.records import Proposal, diameter_of, is_movable
from mlopt.optimizers.moves.kernels.geometry import COUNTER, KEY, centre_of
from mlopt.optimizers.moves.kernels.twist import direction, turned

#: atoms closer than this, in diameters, cannot both stay
CLOSE = 0.75
#: atoms within this distance of the axis, in diameters, lie on it
ON_AXIS = 0.35


def distance2(n: int, x: Any, i: int, a: float, b: float, c: float) -> Any:
    """Return the squared distance of atom i from the point (a, b, c)."""
    dx, dy, dz = x[i] - a, x[n + i] - b, x[2 * n + i] - c
    return dx * dx + dy * dy + dz * dz


def free_of(n: int, placed: Any, count: int, a: float, b: float, c: float, limit2: float) -> bool:
    """Return whether no placed atom is nearer to the point (a, b, c) than the limit."""
    for i in range(count):  # noqa: SIM110, kernels have no generators
        if distance2(n, placed, i, a, b, c) < limit2:
            return False
    return True


def put(n: int, placed: Any, count: int, a: float, b: float, c: float) -> int:
    """Place an atom at (a, b, c), and return how many there are then."""
    placed[count] = a
    placed[n + count] = b
    placed[2 * n + count] = c
    return count + 1


def nearest(n: int, x: Any, a: float, b: float, c: float) -> int:
    """Return the atom that is nearest to the point (a, b, c)."""
    best, least = 0, math.inf
    for i in range(n):
        there = distance2(n, x, i, a, b, c)
        if there < least:
            best, least = i, there
    return best


def symmetrise(s: Proposal, settings: Any) -> None:
    """Put one sector about an axis, or one half, in the place of the others.

    settings: highest order, share of inversions, share of mirror planes. Does nothing to a system with atoms that
    may not be put elsewhere.
    """
    key, counter = s.counts[KEY], s.counts[COUNTER]
    a, b, c = centre_of(s.n, s.x)
    sync()
    if lane() == 0:
        diameter, whole = 0.0, s.n > 3
        for i in range(s.n):
            diameter += diameter_of(s, i) / float(s.n)
            if not is_movable(s, i):
                whole = False
        if whole:
            build(s, key, counter, a, b, c, diameter, settings)
        s.counts[COUNTER] = counter + 16
    sync()


def build(
    s: Proposal, key: int, counter: int, a: float, b: float, c: float, diameter: float, settings: Any
) -> None:
    """Choose an axis and its order, fill all sectors from one, and place the atoms that are then missing."""
    n, x, row_energy, placed = s.n, s.x, s.row_energy, s.scratch
    limit2 = CLOSE * CLOSE * diameter * diameter
    order = 2 + int(uniform(key, counter + 1) * (settings[0] - 1.0))
    through = uniform(key, counter + 2)
    if uniform(key, counter + 3) < 0.5:  # the centre of symmetry may be an atom
        middle = nearest(n, x, a, b, c)
        a, b, c = x[middle], x[n + middle], x[2 * n + middle]
    u, v, w = direction(key, counter + 4)
    # an axis through the atom, the bond or the face that a random direction points at
    reach = 0.0
    for i in range(n):
        reach = max(reach, distance2(n, x, i, a, b, c))
    reach = math.sqrt(reach)
    pa, pb, pc = a + 0.7 * reach * u, b + 0.7 * reach * v, c + 0.7 * reach * w
    if through < 0.9:
        first = nearest(n, x, pa, pb, pc)
        sa, sb, sc, members = x[first], x[n + first], x[2 * n + first], 1.0
        second, third = -1, -1
        if through >= 0.3:
            least = math.inf
            for i in range(n):
                there = distance2(n, x, i, pa, pb, pc)
                if i != first and there < least:
                    second, least = i, there
            sa, sb, sc, members = sa + x[second], sb + x[n + second], sc + x[2 * n + second], 2.0
        if through >= 0.6:
            least = math.inf
            for i in range(n):
                there = distance2(n, x, i, pa, pb, pc)
                if i not in (first, second) and there < least:
                    third, least = i, there
            sa, sb, sc, members = sa + x[third], sb + x[n + third], sc + x[2 * n + third], 3.0
        du, dv, dw = sa / members - a, sb / members - b, sc / members - c
        length = math.sqrt(du * du + dv * dv + dw * dw)
        if length > 0.1 * diameter:
            u, v, w = du / length, dv / length, dw / length
    # an axis across it, to measure angles from
    ru, rv, rw = direction(key, counter + 6)
    along = ru * u + rv * v + rw * w
    ru, rv, rw = ru - along * u, rv - along * v, rw - along * w
    length = math.sqrt(ru * ru + rv * rv + rw * rw) + 1e-6
    ru, rv, rw = ru / length, rv / length, rw / length
    tu, tv, tw = v * rw - w * rv, w * ru - u * rw, u * rv - v * ru
    kind = uniform(key, counter + 8)
    halves = kind < settings[1] + settings[2]
    # the image of a vector d of one half is -d, or d - 2 (r.d) r
    keep, across = (-1.0, 0.0) if kind < settings[1] else (1.0, -2.0)
    energies = placed[3 * n :]
    count = 0
    if halves:
        # the half that is bound more strongly, and its image
        upper, lower = 0.0, 0.0
        for i in range(n):
            side = ru * (x[i] - a) + rv * (x[n + i] - b) + rw * (x[2 * n + i] - c)
            if side > 0.0:
                upper += row_energy[i]
            else:
                lower += row_energy[i]
        sign = 1.0 if upper < lower else -1.0
        for i in range(n):
            dx, dy, dz = x[i] - a, x[n + i] - b, x[2 * n + i] - c
            side = sign * (ru * dx + rv * dy + rw * dz)
            if side > -0.1 * diameter:
                if count < n and free_of(n, placed, count, a + dx, b + dy, c + dz, limit2):
                    count = put(n, placed, count, a + dx, b + dy, c + dz)
                flip = across * sign * side
                dx, dy, dz = keep * dx + flip * ru, keep * dy + flip * rv, keep * dz + flip * rw
                if count < n and free_of(n, placed, count, a + dx, b + dy, c + dz, limit2):
                    count = put(n, placed, count, a + dx, b + dy, c + dz)
    else:
        for k in range(order):
            energies[k] = 0.0
        for i in range(n):
            dx, dy, dz = x[i] - a, x[n + i] - b, x[2 * n + i] - c
            energies[sector(dx, dy, dz, ru, rv, rw, tu, tv, tw, order)] += row_energy[i]
        chosen = 0
        for k in range(1, order):
            if energies[k] < energies[chosen]:
                chosen = k
        for i in range(n):
            dx, dy, dz = x[i] - a, x[n + i] - b, x[2 * n + i] - c
            p, q = ru * dx + rv * dy + rw * dz, tu * dx + tv * dy + tw * dz
            if p * p + q * q < ON_AXIS * ON_AXIS * diameter * diameter and count < n:
                height = u * dx + v * dy + w * dz
                if free_of(n, placed, count, a + height * u, b + height * v, c + height * w, limit2):
                    count = put(n, placed, count, a + height * u, b + height * v, c + height * w)
        for i in range(n):
            dx, dy, dz = x[i] - a, x[n + i] - b, x[2 * n + i] - c
            p, q = ru * dx + rv * dy + rw * dz, tu * dx + tv * dy + tw * dz
            if p * p + q * q < ON_AXIS * ON_AXIS * diameter * diameter:
                continue
            if sector(dx, dy, dz, ru, rv, rw, tu, tv, tw, order) == chosen:
                for k in range(order):
                    angle = 2.0 * math.pi * float(k) / float(order)
                    ex, ey, ez = turned(dx, dy, dz, u, v, w, math.cos(angle), math.sin(angle))
                    if count < n and free_of(n, placed, count, a + ex, b + ey, c + ez, limit2):
                        count = put(n, placed, count, a + ex, b + ey, c + ez)
    # what is missing: atoms that were there before, the most strongly bound first, then anywhere on the surface
    while count < n:
        best, least = -1, math.inf
        for i in range(n):
            if row_energy[i] < least and free_of(n, placed, count, x[i], x[n + i], x[2 * n + i], limit2):
                best, least = i, row_energy[i]
        if best < 0:
            break
        count = put(n, placed, count, x[best], x[n + best], x[2 * n + best])
    extra = 0
    while count < n:
        du, dv, dw = direction(key, counter + 1000 + 2 * extra)
        extra += 1
        count = put(n, placed, count, a + reach * du, b + reach * dv, c + reach * dw)
    for k in range(3 * n):
        x[k] = placed[k]


def sector(
    dx: float,
    dy: float,
    dz: float,
    ru: float,
    rv: float,
    rw: float,
    tu: float,
    tv: float,
    tw: float,
    order: int,
) -> int:
    """Return the number of the sector about the axis in which a vector lies."""
    angle = math.atan2(tu * dx + tv * dy + tw * dz, ru * dx + rv * dy + rw * dz)
    found = int((angle / (2.0 * math.pi) + 0.5) * float(order))
    return min(order - 1, max(0, found))
