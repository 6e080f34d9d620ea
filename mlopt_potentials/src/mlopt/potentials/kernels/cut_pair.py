"""Sums over pairs within a cutoff: all pairs of a small free cluster, else those of the list in `near`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from mlopt.core.kernels.kernel import PotentialKernel
from mlopt.core.kernels.lanes import lane, lanes, numbers_of, total
from mlopt.potentials.kernels.near import (
    BEGIN,
    END,
    begun_at,
    block_count,
    block_of,
    field,
    fill,
    integers_of,
    reals_of,
    refresh,
    restart,
    row_integers,
    row_of,
    spoil,
    widths,
)

#: 1 where the force is continuous at the cutoff
SMOOTH = 0
#: atoms of a free cluster from which on the list beats all pairs
LISTED_FROM = 200
#: columns of the table: those of `near`, what is taken off the energy, and how steep it is at the cutoff; then the
#: numbers of the potential
CUTOFF, TAKEN, STEEP, OWN = 0, 2, 3, 4
#: pairs that are treated at once: they stay in the cache
_MOST = 2048


def pair(r2: float, *numbers: float) -> tuple[float, float]:
    """Return energy and weight of a pair; a placeholder for the potential's own function."""
    return 0.0, 0.0


def shifted(r2: float, cutoff: float, taken: float, steep: float, numbers: Any) -> tuple[float, float]:
    """Return energy and weight of a pair within the cutoff."""
    energy, weight = pair(r2, *numbers)
    energy -= taken
    if SMOOTH == 1:
        r = math.sqrt(r2)
        energy += steep * (r - cutoff)
        weight -= steep / r
    return energy, weight


def evaluate(
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
    if n < LISTED_FROM and cell[9] == 0.0 and cell[10] == 0.0 and cell[11] == 0.0:
        return few_atoms(n, x, force, row_energy, table)
    return listed(n, x, force, row_energy, table, cell, reals, integers)


def few_atoms(n: int, x: Any, force: Any, row_energy: Any, table: Any) -> float:
    """Compute the energy from all pairs, of which those beyond the cutoff contribute zero."""
    sum_energy = 0.0
    for i in range(lane(), n, lanes()):
        energy, fx, fy, fz = row(i, n, x[:n], x[n : 2 * n], x[2 * n :], table)
        row_energy[i] = 0.5 * energy
        sum_energy += 0.5 * energy
        force[i] = fx
        force[n + i] = fy
        force[2 * n + i] = fz
    return total(sum_energy)


def row(i: int, n: int, x: Any, y: Any, z: Any, table: Any) -> tuple[float, float, float, float]:
    """Return twice the energy of atom i, and the force on it. A separate function, so that its loop is vectorised."""
    cutoff, taken, steep = table[0, CUTOFF], table[0, TAKEN], table[0, STEEP]
    numbers = numbers_of(table, 0)[OWN:]
    energy, fx, fy, fz = 0.0, 0.0, 0.0, 0.0
    a, b, c, cut2 = x[i], y[i], z[i], cutoff * cutoff
    for j in range(n):
        dx, dy, dz = a - x[j], b - y[j], c - z[j]
        r2 = dx * dx + dy * dy + dz * dz
        r2 = cut2 if j == i else r2
        # not `r2 < cut2`: NaN must stay NaN
        within = 0.0 if r2 >= cut2 else 1.0
        shared, weight = shifted(cut2 if r2 >= cut2 else r2, cutoff, taken, steep, numbers)
        weight *= within
        energy += within * shared
        fx += weight * dx
        fy += weight * dy
        fz += weight * dz
    return energy, fx, fy, fz


def listed(
    n: int, x: Any, force: Any, row_energy: Any, table: Any, cell: Any, reals: Any, integers: Any
) -> float:
    """Compute the energy from the pairs that `near` finds."""
    if not refresh(n, x, cell, table, reals, integers):
        return spoil(n, force, row_energy)
    cutoff, taken, steep = table[0, CUTOFF], table[0, TAKEN], table[0, STEEP]
    numbers = numbers_of(table, 0)[OWN:]
    begin, end = row_integers(BEGIN, n, integers), row_integers(END, n, integers)
    sum_energy = 0.0
    for block in range(lane(), block_count(n), lanes()):
        first, last, low, room = block_of(block, n)
        for i in range(first, last):
            row_energy[i] = 0.0
            for a in range(3):
                force[a * n + i] = 0.0
        restart(first, n, integers)
        while row_of(first, n, integers) < last:
            entries = fill(first, last, low, room, n, x, cell, table, reals, integers)
            dx, dy, dz = field(0, n, reals), field(1, n, reals), field(2, n, reals)
            weights = field(4, n, reals)[low : low + entries]
            energies = field(3, n, reals)[low : low + entries]
            for k in range(entries):
                energy, weight = shifted(energies[k], cutoff, taken, steep, numbers)
                energies[k] = energy
                weights[k] = weight
            energies, weights = field(3, n, reals), field(4, n, reals)
            for i in range(begun_at(first, n, integers), min(last, row_of(first, n, integers) + 1)):
                energy, fx, fy, fz = 0.0, 0.0, 0.0, 0.0
                for k in range(begin[i], end[i]):
                    energy += energies[k]
                    fx += weights[k] * dx[k]
                    fy += weights[k] * dy[k]
                    fz += weights[k] * dz[k]
                row_energy[i] += 0.5 * energy
                sum_energy += 0.5 * energy
                force[i] += fx
                force[n + i] += fy
                force[2 * n + i] += fz
    return total(sum_energy)


def cut_pair_kernel(
    function: Callable[..., tuple[float, float]],
    numbers: Sequence[float],
    cutoff: float,
    shift: Literal["none", "energy", "force"] = "none",
    length: float = 1.0,
) -> PotentialKernel:
    """Return a kernel for a pair potential of one species with a cutoff.

    function: ``pair(r2, *numbers) -> (energy, weight)``.
    shift: see `CutPairPotential`.
    length: approximate distance between neighbours, from which the size of the pair buffer is estimated.
    """
    own = [float(one) for one in numbers]
    energy, weight = function(cutoff * cutoff, *own)
    skin = 0.12 * cutoff
    taken, steep = energy if shift != "none" else 0.0, cutoff * weight if shift == "force" else 0.0
    width, room = widths(cutoff, skin, length)
    return PotentialKernel(
        function=evaluate,
        table=(((cutoff, skin, taken, steep, *own),),),
        cutoff=cutoff,
        reals=reals_of(width, room, 5),
        integers=integers_of(width, room),
        constants={
            "SMOOTH": int(shift == "force"),
            "LIST": width,
            "ROOM": room,
            "FIELDS": 5,
            "MOST": _MOST,
            "LISTED_FROM": LISTED_FROM,
        },
        parts={"pair": function},
    )
