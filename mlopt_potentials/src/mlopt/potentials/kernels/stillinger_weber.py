"""Stillinger-Weber silicon over the pairs that `near` finds, by the identity of the eager version."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.kernel import PotentialKernel
from mlopt.core.kernels.lanes import lane, lanes, sync, total
from mlopt.potentials.kernels.near import (
    ALIGN,
    BEGIN,
    END,
    HEAD,
    begun_at,
    block_count,
    block_of,
    field,
    fill,
    fillings,
    integers_of,
    neighbours,
    reals_of,
    refresh,
    restart,
    row_integers,
    row_of,
    spoil,
    widths,
)

#: whole exponents of repulsion and attraction, or -1; constants of `near`
P, Q, LIST, ROOM, FIELDS = 4, 0, 64, 32, 8
#: columns of the table
CUTOFF, SIGMA, BOND, BIG_B, EXPONENT_P, EXPONENT_Q, GAMMA, COSINE, STRENGTH, GAP = (
    0,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
)
# the buffer: unit vectors (3), pair term, its slope, g, its slope, 1/r
PAIR, SLOPE, WEIGHT, WEIGHT_SLOPE, INVERSE = 3, 4, 5, 6, 7
# of each atom: V (3), T (6: xx, xy, xz, yy, yz, zz) and S
MOMENTS = 10


def stillinger_weber(
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
    """Compute the energy and fill force and row energies; see `mlopt.core.kernels.kernel.PotentialKernel`."""
    if not refresh(n, x, cell, table, reals, integers):
        return spoil(n, force, row_energy)
    start = HEAD + 6 * n + 3 * n * LIST + FIELDS * (n * ROOM + ALIGN)
    moments = reals[start : start + MOMENTS * n]
    c, strength = table[0, COSINE], table[0, STRENGTH]
    energy = 0.0
    for stage in range(2):  # first what belongs to atoms, then forces
        for block in range(lane(), block_count(n), lanes()):
            first, last, low, room = block_of(block, n)
            for i in range(first, last):
                for a in range(3):
                    force[a * n + i] = 0.0
                if stage == 0:
                    row_energy[i] = 0.0
                    for k in range(MOMENTS):
                        moments[i * MOMENTS + k] = 0.0
            there = stage == 1 and fillings(first, n, integers) == 1
            if not there:
                restart(first, n, integers)
            while there or row_of(first, n, integers) < last:
                if not there:
                    entries = fill(first, last, low, room, n, x, cell, table, reals, integers)
                    functions(low, entries, n, table, reals)
                there = False
                if stage == 0:
                    add_moments(first, last, n, row_energy, moments, c, strength, reals, integers)
                else:
                    pulls(first, last, n, force, moments, c, strength, reals, integers)
            if stage == 0:
                for i in range(first, last):
                    row_energy[i] = 0.5 * (row_energy[i] + strength * angles(i * MOMENTS, c, moments))
                    energy += row_energy[i]
        sync()
    return total(energy)


def angles(at: int, c: float, moments: Any) -> float:
    """Return ``|T|^2 + 2 c |V|^2 + c^2 S^2`` of the atom whose moments begin ``at``."""
    vx, vy, vz, s = moments[at], moments[at + 1], moments[at + 2], moments[at + 9]
    xx, xy, xz = moments[at + 3], moments[at + 4], moments[at + 5]
    yy, yz, zz = moments[at + 6], moments[at + 7], moments[at + 8]
    t2 = xx * xx + yy * yy + zz * zz + 2.0 * (xy * xy + xz * xz + yz * yz)
    found: float = t2 + 2.0 * c * (vx * vx + vy * vy + vz * vz) + c * c * (s * s)
    return found


def power(base: float, whole: int, exponent: float) -> float:
    """Return ``base ** exponent``; whole: the exponent if it is one of 0 to 12, else -1."""
    if whole < 0:
        return math.exp(exponent * math.log(base))
    found = 1.0
    for _ in range(whole):
        found = found * base
    return found


def functions(low: int, entries: int, n: int, table: Any, reals: Any) -> None:
    """Compute all functions of single pairs; unit vectors take the place of differences."""
    high = low + entries
    dx, dy, dz = field(0, n, reals)[low:high], field(1, n, reals)[low:high], field(2, n, reals)[low:high]
    pair, slope = field(PAIR, n, reals)[low:high], field(SLOPE, n, reals)[low:high]
    g, g_slope = field(WEIGHT, n, reals)[low:high], field(WEIGHT_SLOPE, n, reals)[low:high]
    inverses = field(INVERSE, n, reals)[low:high]
    cutoff, sigma, gamma = table[0, CUTOFF], table[0, SIGMA], table[0, GAMMA]
    depth, big_b, least = table[0, BOND], table[0, BIG_B], table[0, GAP]
    p, q = table[0, EXPONENT_P], table[0, EXPONENT_Q]
    # a loop that writes to many arrays is not vectorised
    for k in range(entries):
        r = math.sqrt(pair[k])
        gap = r - cutoff
        inverses[k] = 1.0 / r
        slope[k] = least if gap > least else gap
    for k in range(entries):
        over = gamma * sigma / slope[k]
        weight = math.exp(over)
        g[k] = weight
        g_slope[k] = -over / slope[k] * weight
    for k in range(entries):
        inverse, over = inverses[k], sigma / slope[k]
        bond = depth * math.exp(over)
        x = sigma * inverse
        repulsion, attraction = big_b * power(x, P, p), power(x, Q, q)
        shared = bond * (repulsion - attraction)
        pair[k] = shared
        slope[k] = -shared * over / slope[k] - bond * (p * repulsion - q * attraction) * inverse
    for k in range(entries):
        dx[k] *= inverses[k]
    for k in range(entries):
        dy[k] *= inverses[k]
    for k in range(entries):
        dz[k] *= inverses[k]


def add_moments(
    first: int,
    last: int,
    n: int,
    row_energy: Any,
    moments: Any,
    c: float,
    strength: float,
    reals: Any,
    integers: Any,
) -> None:
    """Add the pairs in the buffer to the moments of their atoms."""
    ux, uy, uz = field(0, n, reals), field(1, n, reals), field(2, n, reals)
    pair, weights = field(PAIR, n, reals), field(WEIGHT, n, reals)
    begin, end = row_integers(BEGIN, n, integers), row_integers(END, n, integers)
    itself = strength * (1.0 + c) * (1.0 + c)
    for i in range(begun_at(first, n, integers), min(last, row_of(first, n, integers) + 1)):
        energy, s = 0.0, 0.0
        vx, vy, vz = 0.0, 0.0, 0.0
        xx, xy, xz, yy, yz, zz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(begin[i], end[i]):
            g, a, b, d = weights[k], ux[k], uy[k], uz[k]
            ga, gb, gd = g * a, g * b, g * d
            energy += pair[k] - itself * (g * g)
            s += g
            vx += ga
            vy += gb
            vz += gd
            xx += ga * a
            xy += ga * b
            xz += ga * d
            yy += gb * b
            yz += gb * d
            zz += gd * d
        row_energy[i] += energy
        at = i * MOMENTS
        moments[at] += vx
        moments[at + 1] += vy
        moments[at + 2] += vz
        moments[at + 3] += xx
        moments[at + 4] += xy
        moments[at + 5] += xz
        moments[at + 6] += yy
        moments[at + 7] += yz
        moments[at + 8] += zz
        moments[at + 9] += s


def pulls(
    first: int,
    last: int,
    n: int,
    force: Any,
    moments: Any,
    c: float,
    strength: float,
    reals: Any,
    integers: Any,
) -> None:
    """Add the pairs in the buffer to the force.

    It is linear in the moments of both atoms, so these are added first.
    """
    ux, uy, uz = field(0, n, reals), field(1, n, reals), field(2, n, reals)
    slope, weights = field(SLOPE, n, reals), field(WEIGHT, n, reals)
    weight_slopes, inverses = field(WEIGHT_SLOPE, n, reals), field(INVERSE, n, reals)
    atoms = neighbours(0, n, integers)
    begin, end = row_integers(BEGIN, n, integers), row_integers(END, n, integers)
    itself = 2.0 * (1.0 + c) * (1.0 + c)
    for i in range(begun_at(first, n, integers), min(last, row_of(first, n, integers) + 1)):
        fx, fy, fz = 0.0, 0.0, 0.0
        at = i * MOMENTS
        v0, v1, v2, s0 = moments[at], moments[at + 1], moments[at + 2], moments[at + 9]
        t0, t1, t2 = moments[at + 3], moments[at + 4], moments[at + 5]
        t3, t4, t5 = moments[at + 6], moments[at + 7], moments[at + 8]
        for k in range(begin[i], end[i]):
            to = atoms[k] * MOMENTS
            g, a, b, d = weights[k], ux[k], uy[k], uz[k]
            vx, vy, vz = v0 - moments[to], v1 - moments[to + 1], v2 - moments[to + 2]
            xx, xy, xz = t0 + moments[to + 3], t1 + moments[to + 4], t2 + moments[to + 5]
            yy, yz, zz = t3 + moments[to + 6], t4 + moments[to + 7], t5 + moments[to + 8]
            wx = xx * a + xy * b + xz * d + c * vx
            wy = xy * a + yy * b + yz * d + c * vy
            wz = xz * a + yz * b + zz * d + c * vz
            inward = wx * a + wy * b + wz * d
            by_g = inward + c * (vx * a + vy * b + vz * d) + c * c * (s0 + moments[to + 9]) - itself * g
            across = 2.0 * g * inverses[k]
            radial = slope[k] + strength * (by_g * weight_slopes[k] - across * inward)
            across *= strength
            fx -= radial * a + across * wx
            fy -= radial * b + across * wy
            fz -= radial * d + across * wz
        force[i] += fx
        force[n + i] += fy
        force[2 * n + i] += fz


def stillinger_weber_kernel(
    *,
    reach: float,
    sigma: float,
    bond: float,
    big_b: float,
    p: float,
    q: float,
    gamma: float,
    cosine: float,
    strength: float,
) -> PotentialKernel:
    """Return a kernel. bond: epsilon A; cosine: minus the cosine of theta0; strength: epsilon lambda."""
    skin = 0.15 * reach
    width, room = widths(reach, skin, 1.1 * sigma)
    least = -1e-3 * sigma * min(1.0, gamma)
    ours = reals_of(width, room, 8)
    return PotentialKernel(
        function=stillinger_weber,
        table=(((reach, skin, sigma, bond, big_b, p, q, gamma, cosine, strength, least),),),
        cutoff=reach,
        reals=lambda n: ours(n) + MOMENTS * n,
        integers=integers_of(width, room),
        constants={
            "LIST": width,
            "ROOM": room,
            "FIELDS": 8,
            "P": int(p) if p in range(13) else -1,
            "Q": int(q) if q in range(13) else -1,
        },
    )
