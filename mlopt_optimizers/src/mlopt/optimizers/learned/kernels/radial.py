"""Radial symmetry functions of the rows of a tile; see `mlopt.core.features.radial`."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.geometry.lattice_kernel import complete
from mlopt.core.kernels.lanes import lane, lanes, sync
from mlopt.core.kernels.records import Step, cell_of, diameter_of, is_periodic, species_of
from mlopt.optimizers.learned.kernels.network import STRIDE

#: kinds of neighbours that are told apart; 0 where all count alike
KINDS = 0
#: 1 where exponents stay so small, thanks to the cutoff, that a short series gives the Gaussians
SHORT = 1
#: those of `ETAS` but the first are whole multiples of this one, and their Gaussians powers of its Gaussian
STEP = 0.005
LOWEST = 0.0009
#: inputs of each kind
ETAS = 8


def gaussian(exponent: float) -> float:
    """Return exp(x), by a series for -0.035 < x <= 0 if the cutoff keeps exponents there."""
    if SHORT == 1:
        p = 1.0 / 40320.0
        p = p * exponent + 1.0 / 5040.0
        p = p * exponent + 1.0 / 720.0
        p = p * exponent + 1.0 / 120.0
        p = p * exponent + 1.0 / 24.0
        p = p * exponent + 1.0 / 6.0
        p = p * exponent + 0.5
        p = p * exponent + 1.0
        return p * exponent + 1.0
    return math.exp(exponent)


def cosine_of_root(square: float) -> float:
    """Return cos(z) from z^2, for z up to pi/2, without a root and without range reduction."""
    p = -1.0 / 1.1240007277776077e21
    p = p * square + 1.0 / 2.43290200817664e18
    p = p * square - 1.0 / 6402373705728000.0
    p = p * square + 1.0 / 20922789888000.0
    p = p * square - 1.0 / 87178291200.0
    p = p * square + 1.0 / 479001600.0
    p = p * square - 1.0 / 3628800.0
    p = p * square + 1.0 / 40320.0
    p = p * square - 1.0 / 720.0
    p = p * square + 1.0 / 24.0
    p = p * square - 0.5
    return p * square + 1.0


def kind_of(atomic_number: float, weights: Any, species: int) -> int:
    """Return the place of an element among those at ``weights[species:]``."""
    kind = 0
    for s in range(KINDS):
        if weights[species + s] == atomic_number:
            kind = s
    return kind


def add_pairs(
    dx: float,
    dy: float,
    dz: float,
    itself: int,
    eights: int,
    cutoff2: float,
    place: Any,
    out: Any,
) -> None:
    """Add the functions of a neighbour at (dx, dy, dz) to the rows of a tile, in ``out``.

    itself: the row of the tile that is this neighbour, -1 for none of them.
    place: positions of the tile's rows, then their inverse squared equilibrium distances to this neighbour.
    """
    angle = 0.25 * math.pi * math.pi / cutoff2
    for i in range(lane(), 8 * eights, lanes()):
        a = place[i] - dx
        b = place[STRIDE + i] - dy
        c = place[2 * STRIDE + i] - dz
        r2 = (a * a + b * b + c * c) * place[3 * STRIDE + i]
        beyond = r2 >= cutoff2 or i == itself
        r2 = min(r2, cutoff2)
        root = cosine_of_root(r2 * angle)
        smooth = 0.0 if beyond else root * root
        g1 = gaussian(-STEP * r2)
        g2 = g1 * g1
        g4 = g2 * g2
        g8 = g4 * g4
        g12 = g8 * g4
        g20 = g12 * g8
        g40 = g20 * g20
        out[i] += gaussian(-LOWEST * r2) * smooth
        out[STRIDE + i] += g2 * smooth
        out[2 * STRIDE + i] += g4 * smooth
        out[3 * STRIDE + i] += g4 * g2 * g1 * smooth
        out[4 * STRIDE + i] += g12 * smooth
        out[5 * STRIDE + i] += g20 * smooth
        out[6 * STRIDE + i] += g40 * smooth
        out[7 * STRIDE + i] += g40 * g40 * smooth


def stand(s: Step, cell: int, standing: int) -> None:
    """Copy positions to ``scratch[standing:]``. Positions of periodic systems are wrapped into the cell."""
    n, x, scratch = s.n, s.x, s.scratch
    periodic = is_periodic(s, 0) or is_periodic(s, 1) or is_periodic(s, 2)
    if periodic:
        if lane() == 0:
            complete(cell_of(s), cell, scratch)
        sync()
    for i in range(lane(), n, lanes()):
        a, b, c = x[i], x[n + i], x[2 * n + i]
        if periodic:
            u, v, w = a, b, c
            for axis in range(3):
                if is_periodic(s, axis):
                    r = cell + 9 + 3 * axis
                    whole = math.floor(scratch[r] * a + scratch[r + 1] * b + scratch[r + 2] * c)
                    u -= whole * scratch[cell + 3 * axis]
                    v -= whole * scratch[cell + 3 * axis + 1]
                    w -= whole * scratch[cell + 3 * axis + 2]
            a, b, c = u, v, w
        scratch[standing + i] = a
        scratch[standing + n + i] = b
        scratch[standing + 2 * n + i] = c


def images_of(s: Step, axis: int, cell: int, reach: float) -> int:
    """Return the number of cells to either side, along an axis, in which neighbours of a row in the cell can be."""
    if not is_periodic(s, axis):
        return 0
    r = cell + 9 + 3 * axis
    u, v, w = s.scratch[r], s.scratch[r + 1], s.scratch[r + 2]
    # a reciprocal vector is as long as the inverse of the distance between two planes
    return int(math.ceil(reach * math.sqrt(u * u + v * v + w * w)))  # noqa: RUF046 - a float on CUDA


def radial(
    s: Step,
    start: int,
    here: int,
    padded: int,
    cutoff: float,
    weights: Any,
    species: int,
    cell: int,
    standing: int,
    place: Any,
    out: Any,
) -> None:
    """Compute the functions of the rows ``start:start + here``, in ``out``, species after species.

    weights[species:]: the elements that are told apart.
    """
    n, scratch = s.n, s.scratch
    eights, cutoff2, widest = padded // 8, cutoff * cutoff, 0.0
    for i in range(lane(), 8 * eights, lanes()):
        row = start + (i if i < here else 0)
        for axis in range(3):
            place[axis * STRIDE + i] = scratch[standing + axis * n + row]
        for k in range(ETAS * (KINDS if KINDS > 0 else 1)):
            out[k * STRIDE + i] = 0.0
    for j in range(n):
        widest = max(widest, diameter_of(s, j))
    reach = cutoff * widest
    most_a = images_of(s, 0, cell, reach)
    most_b = images_of(s, 1, cell, reach)
    most_c = images_of(s, 2, cell, reach)
    diameter, target = -1.0, 0
    for j in range(n):
        if diameter_of(s, j) != diameter:
            diameter = diameter_of(s, j)
            for i in range(lane(), 8 * eights, lanes()):
                mean = 0.5 * (diameter_of(s, start + (i if i < here else 0)) + diameter)
                place[3 * STRIDE + i] = 1.0 / (mean * mean)
        if KINDS > 0:
            target = ETAS * STRIDE * kind_of(species_of(s, j), weights, species)
        x, y, z = scratch[standing + j], scratch[standing + n + j], scratch[standing + 2 * n + j]
        if most_a + most_b + most_c == 0:
            add_pairs(x, y, z, j - start, eights, cutoff2, place, out[target:])
        else:
            for p in range(-most_a, most_a + 1):
                for q in range(-most_b, most_b + 1):
                    for r in range(-most_c, most_c + 1):
                        a, b, c = float(p), float(q), float(r)
                        dx = x + a * scratch[cell] + b * scratch[cell + 3] + c * scratch[cell + 6]
                        dy = y + a * scratch[cell + 1] + b * scratch[cell + 4] + c * scratch[cell + 7]
                        dz = z + a * scratch[cell + 2] + b * scratch[cell + 5] + c * scratch[cell + 8]
                        itself = j - start if p == 0 and q == 0 and r == 0 else -1
                        if within_reach(s, dx, dy, dz, reach, cell):
                            add_pairs(dx, dy, dz, itself, eights, cutoff2, place, out[target:])


def within_reach(s: Step, dx: float, dy: float, dz: float, reach: float, cell: int) -> bool:
    """Return whether a point is at most ``reach`` outside the cell, along its periodic directions."""
    near = True
    for axis in range(3):
        r = cell + 9 + 3 * axis
        u, v, w = s.scratch[r], s.scratch[r + 1], s.scratch[r + 2]
        margin = reach * math.sqrt(u * u + v * v + w * w)
        along = u * dx + v * dy + w * dz
        if is_periodic(s, axis) and (along < -margin or along > 1.0 + margin):
            near = False
    return near
