"""Moment tensor potentials over the pairs that `near` finds, for one system on one lane: the CPU.

First come the sums over the neighbours of all atoms. Then the products are computed for blocks of atoms side by side,
forwards and backwards. Last come the forces of all pairs. Tables and coefficients are weights, so that another fit with
the same basis is not compiled anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlopt.core.kernels.kernel import PotentialKernel
from mlopt.core.kernels.lanes import theta_of
from mlopt.potentials.kernels.near import (
    ALIGN,
    BEGIN,
    END,
    HEAD,
    begun_at,
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

#: constants of `near`, and sizes of the basis: species, sets of radial functions, their functions and polynomials
LIST, ROOM, FIELDS = 64, 32, 4
KINDS, SETS, FUNCTIONS, DEGREES, RADIAL, MONOMIALS, SUMS, VALUES, PRODUCTS, SCALARS = (
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
)
#: pairs of an atom that are worked on together, and atoms whose products are
TILE, SIDE = 32, 16
# weights: coefficients of each species (constant first); radial functions; shortest distance, cutoff, floor and
# softness of each set; inner and outer end of the repulsion, and of each pair of species its charges and one over its
# length; set and place of each radial function; radial function and monomial of each sum; of each monomial where the
# one with a power less of x, y or z is, or -1, and its powers; i, j, k and factor of each product; where scalars are


def weights(parts: Sequence[Sequence[float]]) -> list[float]:
    """Return all weights, one part after the other."""
    return [float(number) for part in parts for number in part]


def moment_tensor(
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
    w = theta_of(settings)
    start = HEAD + 6 * n + 3 * n * LIST + FIELDS * (n * ROOM + ALIGN)
    sums = reals[start : start + SUMS * n]
    slopes = reals[start + SUMS * n : start + 2 * SUMS * n]
    scratch = reals[start + 2 * SUMS * n : start + 2 * SUMS * n + SPACE]
    for k in range(SUMS * n):
        sums[k] = 0.0
    for k in range(3 * n):
        force[k] = 0.0
    for stage in range(2):
        there = stage == 1 and fillings(0, n, integers) == 1
        if not there:
            restart(0, n, integers)
        while there or row_of(0, n, integers) < n:
            if not there:
                fill(0, n, 0, n * ROOM, n, x, cell, table, reals, integers)
            there = False
            pairs(stage, n, force, row_energy, kinds, w, sums, slopes, scratch, reals, integers)
        if stage == 0:
            products(n, row_energy, kinds, w, sums, slopes, scratch)
    energy = 0.0
    for i in range(n):
        energy += row_energy[i]
    return energy


def pairs(
    stage: int,
    n: int,
    force: Any,
    row_energy: Any,
    kinds: Any,
    w: Any,
    sums: Any,
    slopes: Any,
    scratch: Any,
    reals: Any,
    integers: Any,
) -> None:
    """Add the pairs in the buffer to the sums of their atoms (stage 0), or to forces and energies (stage 1)."""
    begin, end = row_integers(BEGIN, n, integers), row_integers(END, n, integers)
    dx, dy, dz, r2 = field(0, n, reals), field(1, n, reals), field(2, n, reals), field(3, n, reals)
    atoms = neighbours(0, n, integers)
    f, df = scratch[: RADIAL * TILE], scratch[RADIAL * TILE : 2 * RADIAL * TILE]
    at = 2 * RADIAL * TILE
    part = scratch[at : at + MONOMIALS * TILE]
    weight = scratch[at + MONOMIALS * TILE : at + 2 * MONOMIALS * TILE]
    at += 2 * MONOMIALS * TILE
    ways = scratch[at : at + 5 * TILE]  # unit vectors (3), distance, and what is pulled along it
    across = scratch[at + 5 * TILE : at + 8 * TILE]
    poly = scratch[at + 8 * TILE : at + 8 * TILE + 2 * DEGREES * TILE]
    last = min(n, row_of(0, n, integers) + 1)
    for i in range(begun_at(0, n, integers), last):
        for low in range(begin[i], end[i], TILE):
            count = min(TILE, end[i] - low)
            for k in range(count):
                r = math.sqrt(r2[low + k])
                ways[k] = -dx[low + k] / r
                ways[TILE + k] = -dy[low + k] / r
                ways[2 * TILE + k] = -dz[low + k] / r
                ways[3 * TILE + k] = r
            radial(count, kinds[i], kinds, atoms[low : low + count], ways, w, f, df, poly)
            powers(count, ways, w, part)
            if stage == 0:
                for b in range(SUMS):
                    m, q = int(w[AT_SUMS + 2 * b]) * TILE, int(w[AT_SUMS + 2 * b + 1]) * TILE
                    whole = 0.0
                    for k in range(count):
                        whole += f[m + k] * part[q + k]
                    sums[i * SUMS + b] += whole
            else:
                back(count, i, w, slopes, f, df, part, weight, ways, across)
                for k in range(count):
                    inverse = 1.0 / ways[3 * TILE + k]
                    ux, uy, uz = ways[k], ways[TILE + k], ways[2 * TILE + k]
                    gx, gy, gz = across[k], across[TILE + k], across[2 * TILE + k]
                    # across the way only the direction changes, along it only the length
                    j = atoms[low + k]
                    along = ways[4 * TILE + k]
                    if ways[3 * TILE + k] < w[AT_REPULSION + 1]:
                        pair = AT_REPULSION + 2 + 2 * (kinds[i] * KINDS + kinds[j])
                        along += repel(i, ways[3 * TILE + k], w[pair], w[pair + 1], w, row_energy)
                    inward = along - (gx * ux + gy * uy + gz * uz) * inverse
                    px, py, pz = (
                        inward * ux + gx * inverse,
                        inward * uy + gy * inverse,
                        inward * uz + gz * inverse,
                    )
                    force[i] += px
                    force[n + i] += py
                    force[2 * n + i] += pz
                    force[j] -= px
                    force[n + j] -= py
                    force[2 * n + j] -= pz


def repel(i: int, r: float, charge: float, rate: float, w: Any, row_energy: Any) -> float:
    """Add half the repulsion of a pair to the energy of its centre, and return half its slope."""
    inner, outer = w[AT_REPULSION], w[AT_REPULSION + 1]
    x = rate * r
    e0, e1 = 0.18175 * math.exp(-3.19980 * x), 0.50986 * math.exp(-0.94229 * x)
    e2, e3 = 0.28022 * math.exp(-0.40290 * x), 0.02817 * math.exp(-0.20162 * x)
    screened = e0 + e1 + e2 + e3
    falling = rate * (3.19980 * e0 + 0.94229 * e1 + 0.40290 * e2 + 0.20162 * e3)
    t = max((r - inner) / (outer - inner), 0.0)
    switch = 1.0 - t * t * t * (10.0 + t * (6.0 * t - 15.0))
    closing = -30.0 * t * t * (1.0 - t) * (1.0 - t) / (outer - inner)
    bare = 0.5 * charge / r
    row_energy[i] += bare * screened * switch
    slope: float = bare * (screened * closing - (screened / r + falling) * switch)
    return slope


def radial(
    count: int, centre: int, kinds: Any, atoms: Any, ways: Any, w: Any, f: Any, df: Any, poly: Any
) -> None:
    """Compute all radial functions at some distances, and their slopes."""
    half = DEGREES * TILE
    for s in range(SETS):
        shortest, cutoff = w[AT_ENDS + 4 * s], w[AT_ENDS + 4 * s + 1]
        floor, soft = w[AT_ENDS + 4 * s + 2], w[AT_ENDS + 4 * s + 3]
        steep = 2.0 / (cutoff - shortest)
        for k in range(count):
            r = ways[3 * TILE + k]
            below = max(floor - r, 0.0)
            bent = soft / (soft + below)
            rho = r + below - below * bent
            gap = cutoff - rho if r < cutoff else 0.0
            xi = (rho - shortest) * steep - 1.0
            t0, t1, d0, d1 = 1.0, xi, 0.0, steep
            for b in range(DEGREES):
                poly[b * TILE + k] = t0 * gap * gap
                poly[half + b * TILE + k] = (d0 * gap * gap - 2.0 * t0 * gap) * bent * bent
                t2, d2 = 2.0 * xi * t1 - t0, 2.0 * steep * t1 + 2.0 * xi * d1 - d0
                t0, t1, d0, d1 = t1, t2, d1, d2
        for m in range(RADIAL):
            if int(w[AT_PLACES + 2 * m]) == s:
                place = int(w[AT_PLACES + 2 * m + 1])
                for k in range(count):
                    f[m * TILE + k] = 0.0
                    df[m * TILE + k] = 0.0
                for b in range(DEGREES):
                    if KINDS == 1:
                        c = w[AT_RADIAL + (s * FUNCTIONS + place) * DEGREES + b]
                        for k in range(count):
                            f[m * TILE + k] += c * poly[b * TILE + k]
                        for k in range(count):
                            df[m * TILE + k] += c * poly[half + b * TILE + k]
                    else:
                        for k in range(count):
                            of_kinds = ((s * KINDS + centre) * KINDS + kinds[atoms[k]]) * FUNCTIONS + place
                            c = w[AT_RADIAL + of_kinds * DEGREES + b]
                            f[m * TILE + k] += c * poly[b * TILE + k]
                            df[m * TILE + k] += c * poly[half + b * TILE + k]


def powers(count: int, ways: Any, w: Any, part: Any) -> None:
    """Compute all monomials of some unit vectors."""
    for k in range(count):
        part[k] = 1.0
    for q in range(1, MONOMIALS):
        at = AT_POWERS + 6 * q
        axis = 0 if w[at] >= 0.0 else (1 if w[at + 1] >= 0.0 else 2)
        less = int(w[at + axis]) * TILE
        for k in range(count):
            part[q * TILE + k] = ways[axis * TILE + k] * part[less + k]


def products(n: int, row_energy: Any, kinds: Any, w: Any, sums: Any, slopes: Any, scratch: Any) -> None:
    """Compute the energies of all atoms, and their derivatives with respect to the sums over neighbours."""
    value, slope = scratch[: VALUES * SIDE], scratch[VALUES * SIDE : 2 * VALUES * SIDE]
    for block in range(0, n, SIDE):
        count = min(SIDE, n - block)
        for k in range(VALUES * SIDE):
            value[k] = 0.0
        for k in range(VALUES * SIDE):
            slope[k] = 0.0
        for b in range(SUMS):
            for side in range(count):
                value[b * SIDE + side] = sums[(block + side) * SUMS + b]
        for t in range(PRODUCTS):
            at = AT_PRODUCTS + 4 * t
            i, j, k, c = int(w[at]) * SIDE, int(w[at + 1]) * SIDE, int(w[at + 2]) * SIDE, w[at + 3]
            for side in range(SIDE):
                value[k + side] += c * value[i + side] * value[j + side]
        for side in range(count):
            row = kinds[block + side] * (1 + SCALARS)
            whole = w[row]
            for s in range(SCALARS):
                place = int(w[AT_SCALARS + s]) * SIDE + side
                whole += w[row + 1 + s] * value[place]
                slope[place] += w[row + 1 + s]
            row_energy[block + side] = whole
        for backwards in range(PRODUCTS):
            at = AT_PRODUCTS + 4 * (PRODUCTS - 1 - backwards)
            i, j, k, c = int(w[at]) * SIDE, int(w[at + 1]) * SIDE, int(w[at + 2]) * SIDE, w[at + 3]
            if i == j:
                for side in range(SIDE):
                    slope[i + side] += 2.0 * c * slope[k + side] * value[i + side]
            else:
                for side in range(SIDE):
                    slope[i + side] += c * slope[k + side] * value[j + side]
                for side in range(SIDE):
                    slope[j + side] += c * slope[k + side] * value[i + side]
        for b in range(SUMS):
            for side in range(count):
                slopes[(block + side) * SUMS + b] = slope[b * SIDE + side]


def back(
    count: int, i: int, w: Any, slopes: Any, f: Any, df: Any, part: Any, weight: Any, ways: Any, across: Any
) -> None:
    """Compute the derivatives with respect to distance (in ``ways``) and unit vector (``across``) of each pair."""
    for k in range(MONOMIALS * TILE):
        weight[k] = 0.0
    for k in range(TILE):
        ways[4 * TILE + k] = 0.0
    for k in range(3 * TILE):
        across[k] = 0.0
    for b in range(SUMS):
        m, q = int(w[AT_SUMS + 2 * b]) * TILE, int(w[AT_SUMS + 2 * b + 1]) * TILE
        slope = slopes[i * SUMS + b]
        for k in range(count):
            weight[q + k] += slope * f[m + k]
        for k in range(count):
            ways[4 * TILE + k] += slope * df[m + k] * part[q + k]
    for q in range(1, MONOMIALS):
        at = AT_POWERS + 6 * q
        for axis in range(3):
            if w[at + axis] >= 0.0:
                less, power = int(w[at + axis]) * TILE, w[at + 3 + axis]
                for k in range(count):
                    across[axis * TILE + k] += power * weight[q * TILE + k] * part[less + k]


#: where in the weights each part begins, and numbers of scratch space; constants of a kernel
AT_RADIAL, AT_ENDS, AT_REPULSION, AT_PLACES, AT_SUMS, AT_POWERS, AT_PRODUCTS, AT_SCALARS, SPACE = (
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
)


def mtp_kernel(
    *,
    species: tuple[int, ...],
    cutoff: float,
    length: float,
    sizes: dict[str, int],
    parts: dict[str, Sequence[float]],
    own_weights: Any,
) -> PotentialKernel:
    """Return the kernel of a moment tensor potential.

    length: approximate distance between neighbours, from which the size of the pair buffer is estimated.
    sizes: constants of the basis by their names in this module.
    parts: weights by the names of their places, in order, without the coefficients.
    own_weights: a function that takes all these weights as a list of numbers and puts the coefficients before them.
    """
    skin = 0.15 * cutoff
    width, room = widths(cutoff, skin, length)
    ours = reals_of(width, room, 4)
    constants = {"LIST": width, "ROOM": room, "FIELDS": 4, **sizes}
    at = sizes["KINDS"] * (1 + sizes["SCALARS"])
    for name, part in parts.items():
        constants[name] = at
        at += len(part)
    tiles = (2 * (sizes["RADIAL"] + sizes["MONOMIALS"] + sizes["DEGREES"]) + 8) * TILE
    constants["SPACE"] = max(tiles, 2 * sizes["VALUES"] * SIDE)
    k = sizes["KINDS"]
    return PotentialKernel(
        function=moment_tensor,
        table=(((cutoff, skin),) * k,) * k,
        species=species,
        cutoff=cutoff,
        reals=lambda n: ours(n) + 2 * sizes["SUMS"] * n + constants["SPACE"],
        integers=integers_of(width, room),
        constants=constants,
        theta=own_weights(weights(list(parts.values()))),
        lanes="one",
    )
