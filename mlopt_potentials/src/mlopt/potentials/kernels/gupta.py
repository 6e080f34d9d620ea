"""The Gupta potential: all pairs of a free cluster, or those within a cutoff.

On one lane the exponentials of free clusters are computed once for each pair, all in one loop, and stored. Rows of
pairs with j > i begin at a multiple of eight, which suits vector registers. The few additional pairs are treated as far
apart.
"""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.kernel import PotentialKernel
from mlopt.core.kernels.lanes import lane, lanes, sync, total
from mlopt.potentials.kernels.near import FAR, integers_of, reals_of, widths
from mlopt.potentials.kernels.near_gupta import near_gupta

#: species
K = 1
#: position of the padding atoms that fill vector registers
FARTHEST = 1e6
#: number of atoms up to which values of pairs are stored: 3 n^2 / 2 numbers
KEPT_UP_TO = 400
#: columns of the table, where there is no cutoff: repulsion exp(A + B r), squared hopping exp(C + D r)
A, B, C, D = 0, 1, 2, 3


def all_pairs(
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
    """Compute the energy without a cutoff, and fill force and row energies; see `PotentialKernel` of the core."""
    if lanes() == 1 and n <= KEPT_UP_TO:
        return kept(n, x, force, row_energy, kinds, table, reals)
    return anew(n, x, force, row_energy, kinds, table, reals)


def padded(n: int) -> int:
    """Return the number of atoms, rounded up to fill vector registers."""
    return (n + 7) // 8 * 8


def pairs_kept(n: int) -> int:
    """Return the number of stored pairs, including the padding."""
    m, size = padded(n), 0
    for i in range(n):
        size += m - (i + 1) // 8 * 8
    return size


def kept(n: int, x: Any, force: Any, row_energy: Any, kinds: Any, table: Any, reals: Any) -> float:
    """Compute the energy with each pair taken once and its exponentials stored."""
    m = padded(n)
    u, v, w = reals[:m], reals[m : 2 * m], reals[2 * m : 3 * m]
    density, repulsion, root = reals[3 * m : 4 * m], reals[4 * m : 5 * m], reals[5 * m : 6 * m]
    for i in range(m):
        u[i] = x[i] if i < n else FARTHEST
        v[i] = x[n + i] if i < n else FARTHEST
        w[i] = x[2 * n + i] if i < n else FARTHEST
        density[i] = 0.0
        repulsion[i] = 0.0
        root[i] = 0.0
    size = pairs_kept(n)
    first = reals[7 * m : 7 * m + size]
    second = reals[7 * m + size : 7 * m + 2 * size]
    third = reals[7 * m + 2 * size : 7 * m + 3 * size]
    at = 0
    for i in range(n):
        start = (i + 1) // 8 * 8
        squares, xs, ys, zs = first[at : at + m - start], u[start:], v[start:], w[start:]
        a, b, c = u[i], v[i], w[i]
        for j in range(m - start):
            dx, dy, dz = a - xs[j], b - ys[j], c - zs[j]
            r2 = dx * dx + dy * dy + dz * dz
            squares[j] = FAR if j + start <= i else r2
        if K > 1:
            repelling, hopping = second[at : at + m - start], third[at : at + m - start]
            for j in range(m - start):
                row = kinds[i] * K + kinds[min(j + start, n - 1)]
                r = math.sqrt(squares[j])
                repelling[j] = math.exp(table[row, A] + table[row, B] * r)
                hopping[j] = math.exp(table[row, C] + table[row, D] * r)
                squares[j] = 1.0 / r
        at += m - start
    if K == 1:
        p0, p1, p2, p3 = table[0, A], table[0, B], table[0, C], table[0, D]
        for k in range(size):
            r = math.sqrt(first[k])
            second[k] = math.exp(p0 + p1 * r)
            third[k] = math.exp(p2 + p3 * r)
            first[k] = 1.0 / r
    at = 0
    for i in range(n):
        start = (i + 1) // 8 * 8
        repelling, hopping = second[at : at + m - start], third[at : at + m - start]
        rs, ds = repulsion[start:m], density[start:m]
        sum_repulsion, sum_density = 0.0, 0.0
        for j in range(m - start):
            p, h = repelling[j], hopping[j]
            sum_repulsion += p
            sum_density += h
            rs[j] += p
            ds[j] += h
        repulsion[i] += sum_repulsion
        density[i] += sum_density
        at += m - start
    energy = 0.0
    for i in range(n):
        root[i] = 0.5 * inverse_root(density[i])
        row_energy[i] = repulsion[i] - 2.0 * density[i] * root[i]
        energy += row_energy[i]
    # the sums are not needed any more: the force takes their place
    gx, gy, gz = reals[3 * m : 4 * m], reals[4 * m : 5 * m], reals[6 * m : 7 * m]
    for i in range(m):
        gx[i] = 0.0
        gy[i] = 0.0
        gz[i] = 0.0
    at = 0
    for i in range(n):
        start = (i + 1) // 8 * 8
        wide = m - start
        inverse, repelling, hopping = first[at : at + wide], second[at : at + wide], third[at : at + wide]
        own, roots = root[i], root[start:m]
        if K == 1:
            push, pull = -2.0 * table[0, B], table[0, D]
            for j in range(wide):
                weight = (own + roots[j]) * (pull * hopping[j]) + push * repelling[j]
                repelling[j] = weight * inverse[j]
        else:
            for j in range(wide):
                row = kinds[i] * K + kinds[min(j + start, n - 1)]
                weight = (own + roots[j]) * (table[row, D] * hopping[j]) - 2.0 * table[row, B] * repelling[j]
                repelling[j] = weight * inverse[j]
        # one component after another: loops over many arrays are not vectorised, calls cost more than the loops
        a, b, c = u[i], v[i], w[i]
        xs, ys, zs = u[start:m], v[start:m], w[start:m]
        fx, fy, fz = gx[start:m], gy[start:m], gz[start:m]
        sum_x, sum_y, sum_z = 0.0, 0.0, 0.0
        for j in range(wide):
            part = repelling[j] * (a - xs[j])
            sum_x += part
            fx[j] -= part
        for j in range(wide):
            part = repelling[j] * (b - ys[j])
            sum_y += part
            fy[j] -= part
        for j in range(wide):
            part = repelling[j] * (c - zs[j])
            sum_z += part
            fz[j] -= part
        gx[i] += sum_x
        gy[i] += sum_y
        gz[i] += sum_z
        at += wide
    for i in range(n):
        force[2 * n + i] = gz[i]
        force[n + i] = gy[i]
        force[i] = gx[i]
    return energy


def inverse_root(density: float) -> float:
    """Return ``1 / sqrt(density)``; 0 for an atom without neighbours."""
    return 0.0 if density == 0.0 else 1.0 / math.sqrt(density)


def anew(n: int, x: Any, force: Any, row_energy: Any, kinds: Any, table: Any, reals: Any) -> float:
    """Compute the energy with each pair taken from both its atoms; its exponentials are recomputed for the force."""
    u, v, w, root = x[:n], x[n : 2 * n], x[2 * n :], reals[:n]
    energy = 0.0
    for i in range(lane(), n, lanes()):
        repulsion, density = 0.0, 0.0
        a, b, c = u[i], v[i], w[i]
        for j in range(n):
            dx, dy, dz = a - u[j], b - v[j], c - w[j]
            r = math.sqrt(FAR if j == i else dx * dx + dy * dy + dz * dz)
            row = kinds[i] * K + kinds[j] if K > 1 else 0
            repulsion += math.exp(table[row, A] + table[row, B] * r)
            density += math.exp(table[row, C] + table[row, D] * r)
        root[i] = 0.5 * inverse_root(density)
        row_energy[i] = repulsion - 2.0 * density * root[i]
        energy += row_energy[i]
    sync()
    for i in range(lane(), n, lanes()):
        fx, fy, fz = 0.0, 0.0, 0.0
        a, b, c, own = u[i], v[i], w[i], root[i]
        for j in range(n):
            dx, dy, dz = a - u[j], b - v[j], c - w[j]
            r = math.sqrt(FAR if j == i else dx * dx + dy * dy + dz * dz)
            row = kinds[i] * K + kinds[j] if K > 1 else 0
            repelling = math.exp(table[row, A] + table[row, B] * r) * table[row, B]
            hopping = math.exp(table[row, C] + table[row, D] * r) * table[row, D]
            weight = ((own + root[j]) * hopping - 2.0 * repelling) / r
            fx += weight * dx
            fy += weight * dy
            fz += weight * dz
        force[i] = fx
        force[n + i] = fy
        force[2 * n + i] = fz
    return total(energy)


def gupta_kernel(
    rows: list[list[tuple[float, float, float, float, float]]],
    species: tuple[int, ...],
    cutoff: float | None,
    taper: float,
) -> PotentialKernel:
    """Return a kernel from rows of A, xi^2, p, q and r0 for each ordered pair of species; NaN where there are none."""
    table = [
        [(math.log(a) + p, -p / r0, math.log(xi2) + 2.0 * q, -2.0 * q / r0) for a, xi2, p, q, r0 in row]
        for row in rows
    ]
    if cutoff is None:
        return PotentialKernel(
            function=all_pairs,
            table=table,
            species=species,
            reals=lambda n: 7 * padded(n) + (3 * pairs_kept(n) if n <= KEPT_UP_TO else 0),
            constants={"K": len(rows)},
        )
    skin = 0.08 * cutoff
    length = min(row[i][4] for i, row in enumerate(rows))
    width, room = widths(cutoff, skin, length)
    # reals behind those of `near`: densities, then half their inverse roots, and repulsions
    ours = reals_of(width, room, 7)
    return PotentialKernel(
        function=near_gupta,
        table=[[(cutoff, skin, taper, *pair) for pair in row] for row in table],
        species=species,
        cutoff=cutoff,
        reals=lambda n: ours(n) + 2 * n,
        integers=integers_of(width, room, 2),
        constants={"K": len(rows), "LIST": width, "ROOM": room, "FIELDS": 7, "TAPERED": int(taper > 0.0)},
    )
