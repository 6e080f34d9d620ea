"""Sums over all pairs of a free cluster; for a cutoff see `cut_pair`.

All pairs are taken in both directions, i with j and j with i. That is twice the arithmetic. In return the loop over j
only reads, has no branch, runs over contiguous coordinates, and fills whole vector registers. It is two to three times
faster than the loop over half the pairs, which has to write to every j. On CUDA no two threads write to one place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from mlopt.core.kernels.kernel import PotentialKernel
from mlopt.core.kernels.lanes import lane, lanes, numbers_of, total
from mlopt.potentials.kernels.cut_pair import cut_pair_kernel

#: species
K = 1
#: squared distance of an atom from itself, at which a pair must be zero. It is finite: where a processor has no fast
#: root, the compiler takes an estimate in single precision that is NaN at infinity
FAR = 1e24


def pair(r2: float, *numbers: float) -> tuple[float, float]:
    """Return energy and weight of a pair; a placeholder for the potential's own function."""
    return 0.0, 0.0


def row(
    i: int, start: int, stop: int, x: Any, y: Any, z: Any, numbers: tuple[float, ...]
) -> tuple[float, float, float, float]:
    """Return twice the energy of atom i with the atoms ``start:stop``, and the force on it."""
    energy, fx, fy, fz = 0.0, 0.0, 0.0, 0.0
    a, b, c = x[i], y[i], z[i]
    for j in range(start, stop):
        dx, dy, dz = a - x[j], b - y[j], c - z[j]
        r2 = dx * dx + dy * dy + dz * dz
        r2 = FAR if j == i else r2
        shared, weight = pair(r2, *numbers)
        energy += shared
        fx += weight * dx
        fy += weight * dy
        fz += weight * dz
    return energy, fx, fy, fz


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
    """Compute the energy of a free cluster, and fill force and row energies.

    runs: the indices at which atoms of another species begin, and n.
    """
    sum_energy = 0.0
    a, b, c = x[:n], x[n : 2 * n], x[2 * n :]
    for i in range(lane(), n, lanes()):
        energy, fx, fy, fz = 0.0, 0.0, 0.0, 0.0
        if K == 1:
            energy, fx, fy, fz = row(i, 0, n, a, b, c, numbers_of(table, 0))
        else:
            for run in range(len(runs) - 1):
                numbers = numbers_of(table, kinds[i] * K + kinds[runs[run]])
                part, gx, gy, gz = row(i, runs[run], runs[run + 1], a, b, c, numbers)
                energy += part
                fx += gx
                fy += gy
                fz += gz
        row_energy[i] = 0.5 * energy
        sum_energy += 0.5 * energy
        force[i] = fx
        force[n + i] = fy
        force[2 * n + i] = fz
    return total(sum_energy)


def pair_kernel(
    function: Callable[..., tuple[float, float]],
    numbers: Sequence[float],
    cutoff: float | None = None,
    shift: Literal["none", "energy", "force"] = "none",
    length: float = 1.0,
) -> PotentialKernel:
    """Return a kernel for a pair potential of one species.

    function: ``pair(r2, *numbers) -> (energy, weight)``.
    cutoff: distance from which pairs do not count; None for all pairs.
    shift, length: see `mlopt.potentials.kernels.cut_pair.cut_pair_kernel`.
    """
    if cutoff is not None:
        return cut_pair_kernel(function, numbers, cutoff, shift, length)
    return PotentialKernel(
        function=all_pairs,
        table=(((*map(float, numbers),),),),
        constants={"K": 1},
        parts={"pair": function},
    )
