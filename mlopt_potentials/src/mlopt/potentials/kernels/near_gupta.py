"""The Gupta potential with a cutoff, over the pairs that `near` finds."""

from __future__ import annotations

import math
from typing import Any

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
    refresh,
    restart,
    row_integers,
    row_of,
    spoil,
)
from mlopt.potentials.kernels.near import neighbours as neighbours_of

#: species; 1 where pairs fade before the cutoff; constants of `near`
K, TAPERED, LIST, ROOM, FIELDS = 1, 1, 128, 96, 7
#: columns of the table
CUTOFF, TAPER, A, B, C, D = 0, 2, 3, 4, 5, 6


def near_gupta(
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
    root, repulsion = reals[start : start + n], reals[start + n : start + 2 * n]
    energy = 0.0
    for stage in range(2):  # first what belongs to atoms, then forces
        for block in range(lane(), block_count(n), lanes()):
            first, last, low, room = block_of(block, n)
            for i in range(first, last):
                for a in range(3):
                    force[a * n + i] = 0.0
                if stage == 0:
                    root[i] = 0.0
                    repulsion[i] = 0.0
            there = stage == 1 and fillings(first, n, integers) == 1
            if not there:
                restart(first, n, integers)
            while there or row_of(first, n, integers) < last:
                if not there:
                    entries = fill(first, last, low, room, n, x, cell, table, reals, integers)
                    functions(first, last, low, entries, n, kinds, table, reals, integers)
                there = False
                if stage == 0:
                    sums(first, last, n, root, repulsion, reals, integers)
                else:
                    pulls(first, last, n, force, root, reals, integers)
            if stage == 0:
                for i in range(first, last):
                    density = root[i]
                    inverse = 0.0 if density == 0.0 else 1.0 / math.sqrt(density)
                    root[i] = 0.5 * inverse
                    row_energy[i] = repulsion[i] - density * inverse
                    energy += row_energy[i]
        sync()
    return total(energy)


def functions(
    first: int,
    last: int,
    low: int,
    entries: int,
    n: int,
    kinds: Any,
    table: Any,
    reals: Any,
    integers: Any,
) -> None:
    """Compute repulsion and squared hopping of the pairs in the buffer, and their derivatives over r."""
    high = low + entries
    repelling, hopping = field(3, n, reals)[low:high], field(4, n, reals)[low:high]
    push, pull = field(5, n, reals)[low:high], field(6, n, reals)[low:high]
    rows = neighbours_of(1, n, integers)
    if K > 1:
        begin, end, atoms = (
            row_integers(BEGIN, n, integers),
            row_integers(END, n, integers),
            neighbours_of(0, n, integers),
        )
        for k in range(low, high):
            rows[k] = 0
        for i in range(begun_at(first, n, integers), min(last, row_of(first, n, integers) + 1)):
            for k in range(begin[i], end[i]):
                rows[k] = kinds[i] * K + kinds[atoms[k]]
    rows = rows[low:high]
    cutoff, taper = table[0, CUTOFF], table[0, TAPER]
    for k in range(entries):
        row = rows[k] if K > 1 else 0
        r = math.sqrt(repelling[k])
        inverse = 1.0 / r
        p = math.exp(table[row, A] + table[row, B] * r)
        h = math.exp(table[row, C] + table[row, D] * r)
        factor, slope = 1.0, 0.0
        if TAPERED == 1:
            t = (r - (cutoff - taper)) / taper
            t = 0.0 if t < 0.0 else t
            t = 1.0 if t > 1.0 else t
            rest = 1.0 - t
            factor = rest * rest * rest * ((6.0 * t + 3.0) * t + 1.0)
            slope = 30.0 / taper * (t * rest) * (t * rest)
        repelling[k] = p * factor
        hopping[k] = h * factor
        push[k] = 2.0 * p * (factor * table[row, B] - slope) * inverse
        pull[k] = h * (factor * table[row, D] - slope) * inverse


def sums(first: int, last: int, n: int, density: Any, repulsion: Any, reals: Any, integers: Any) -> None:
    """Add the pairs in the buffer to the sums of their atoms."""
    begin, end = row_integers(BEGIN, n, integers), row_integers(END, n, integers)
    repelling, hopping = field(3, n, reals), field(4, n, reals)
    for i in range(begun_at(first, n, integers), min(last, row_of(first, n, integers) + 1)):
        sum_repulsion, sum_density = 0.0, 0.0
        for k in range(begin[i], end[i]):
            sum_repulsion += repelling[k]
            sum_density += hopping[k]
        repulsion[i] += sum_repulsion
        density[i] += sum_density


def pulls(
    first: int,
    last: int,
    n: int,
    force: Any,
    root: Any,
    reals: Any,
    integers: Any,
) -> None:
    """Add the pairs in the buffer to the force."""
    begin, end = row_integers(BEGIN, n, integers), row_integers(END, n, integers)
    dx, dy, dz = field(0, n, reals), field(1, n, reals), field(2, n, reals)
    push, pull, atoms = field(5, n, reals), field(6, n, reals), neighbours_of(0, n, integers)
    for i in range(begun_at(first, n, integers), min(last, row_of(first, n, integers) + 1)):
        fx, fy, fz, own = 0.0, 0.0, 0.0, root[i]
        for k in range(begin[i], end[i]):
            weight = (own + root[atoms[k]]) * pull[k] - push[k]
            fx += weight * dx[k]
            fy += weight * dy[k]
            fz += weight * dz[k]
        force[i] += fx
        force[n + i] += fy
        force[2 * n + i] += fz
