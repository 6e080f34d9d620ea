"""Rows of the design matrix, compiled: energies, forces and virials of every basis function, atom by atom.

One function does it all, without calling another. What Numba compiles and what it loads from its cache are then the
same code. Products carry their derivatives with respect to the sums over neighbours in sparse form. Each value depends
on few sums, and these are known beforehand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlopt.potentials.fitted.mtp.table import Table


@dataclass(frozen=True, eq=False)
class Derivatives:
    """The steps that compute the derivative of each value with respect to the sums over neighbours.

    start (n_values + 1,): where the derivatives of a value begin in the list of all entries.
    basic (n_entries,) int32: the sum with respect to which each entry is a derivative.
    target, source, other (n_steps,) int32: ``d[target] += factor * value[other] * d[source]``, in order.
    factor (n_steps,) float64: the factors of these steps.
    """

    start: NDArray[np.int64]
    basic: NDArray[np.int32]
    target: NDArray[np.int32]
    source: NDArray[np.int32]
    other: NDArray[np.int32]
    factor: NDArray[np.float64]

    @classmethod
    def of(cls, table: Table) -> Derivatives:
        """Find the sparse pattern of a table."""
        support: list[dict[int, int]] = [{index: index} for index in range(table.n_basic)]
        support += [{} for _ in range(table.n_values - table.n_basic)]
        wanted: list[set[int]] = [{index} for index in range(table.n_basic)]
        wanted += [set() for _ in range(table.n_values - table.n_basic)]
        for i, j, _, k in table.times.tolist():
            wanted[k] |= wanted[i] | wanted[j]
        start: list[int] = [0]
        basic: list[int] = []
        for value, needed in enumerate(wanted):
            support[value] = {one: len(basic) + place for place, one in enumerate(sorted(needed))}
            basic += sorted(needed)
            start.append(len(basic))
        target, source, other, factor = [], [], [], []
        for i, j, c, k in table.times.tolist():
            for used, left in ((i, j), (j, i)):
                for one, place in support[used].items():
                    target.append(support[k][one])
                    source.append(place)
                    other.append(left)
                    factor.append(c)
        return cls(
            np.array(start, dtype=np.int64),
            np.array(basic, dtype=np.int32),
            np.array(target, dtype=np.int32),
            np.array(source, dtype=np.int32),
            np.array(other, dtype=np.int32),
            np.array(factor, dtype=np.float64),
        )


@functools.cache
def compiled() -> Callable[..., Any]:
    """Compile `rows`, or load it from Numba's cache."""
    from numba import njit

    return njit(cache=True, nogil=True, error_model="numpy")(rows)


def rows(
    first_atom: int,
    last_atom: int,
    begin: Any,
    neighbour: Any,
    system: Any,
    kind: Any,
    vector: Any,
    shortest: Any,
    cutoff: Any,
    floor: Any,
    radial: Any,
    set_of: Any,
    place_of: Any,
    basic: Any,
    times: Any,
    factors: Any,
    scalars: Any,
    start: Any,
    jac_basic: Any,
    target: Any,
    source: Any,
    other: Any,
    factor: Any,
    n_values: int,
    force: bool,
    out_energy: Any,
    out_row: Any,
    out_force: Any,
    out_virial: Any,
) -> None:
    """Add the rows of the atoms ``first_atom`` to ``last_atom``.

    begin (n_atoms + 1,): where the pairs of each centre begin.
    neighbour (n_pairs,), vector (n_pairs, 3): the other atom, and the vector to it.
    system, kind (n_atoms,): structure and species of each atom.
    shortest, cutoff (n_sets,): the range of each set of radial functions.
    radial (n_sets, n_species, n_species, n_functions, n_chebyshev): coefficients of the radial functions.
    floor (n_sets, 2): the distance below which they are nearly constant, and how far below it rho falls; see
    `RadialSet`.
    set_of, place_of (n_radial,): the set, and the place in it, of each radial function of the table.
    out_energy (p, n_systems), out_force (p, 3 n_atoms): p is the number of scalars times that of species. Only rows of
    the centre's species are filled.
    out_row (p, n_atoms), out_virial (p, n_systems, 9): likewise, or (p, 0) and (p, 0, 9) if they are not wanted.
    """
    n_basic, n_scalars, n_radial = len(basic), len(scalars), len(set_of)
    n_sets, n_chebyshev = len(cutoff), radial.shape[4]
    most = 0
    for i in range(first_atom, last_atom):
        most = max(most, begin[i + 1] - begin[i])
    rank = 0
    for b in range(n_basic):
        rank = max(rank, basic[b, 1] + basic[b, 2] + basic[b, 3])
    value = np.zeros(n_values)
    d_value = np.zeros(len(jac_basic))
    d_basic = np.zeros((n_basic, 3 * max(most, 1)))
    poly = np.zeros((n_sets, n_chebyshev))
    d_poly = np.zeros((n_sets, n_chebyshev))
    f = np.zeros(n_radial)
    df = np.zeros(n_radial)
    powers = np.zeros((3, rank + 1))
    pull = np.zeros(3 * max(most, 1))
    with_rows, with_virial = out_row.shape[1] > 0, out_virial.shape[1] > 0
    for i in range(first_atom, last_atom):
        nn = begin[i + 1] - begin[i]
        centre = kind[i]
        value[:] = 0.0
        for j in range(nn):
            pair = begin[i] + j
            x, y, z = vector[pair, 0], vector[pair, 1], vector[pair, 2]
            r = np.sqrt(x * x + y * y + z * z)
            ux, uy, uz = x / r, y / r, z / r
            for s in range(n_sets):
                if r >= cutoff[s]:
                    poly[s, :] = 0.0
                    d_poly[s, :] = 0.0
                    continue
                slope = 2.0 / (cutoff[s] - shortest[s])
                below = max(floor[s, 0] - r, 0.0)
                bent = floor[s, 1] / (floor[s, 1] + below)
                rho = r + below - below * bent
                xi = (rho - shortest[s]) * slope - 1.0
                end = cutoff[s] - rho
                t0, t1, d0, d1 = 1.0, xi, 0.0, slope
                for b in range(n_chebyshev):
                    poly[s, b] = t0 * end * end
                    d_poly[s, b] = (d0 * end * end - 2.0 * t0 * end) * bent * bent
                    t2, d2 = 2.0 * xi * t1 - t0, 2.0 * slope * t1 + 2.0 * xi * d1 - d0
                    t0, t1, d0, d1 = t1, t2, d1, d2
            other_kind = kind[neighbour[pair]]
            for m in range(n_radial):
                s, place = set_of[m], place_of[m]
                total, d_total = 0.0, 0.0
                for b in range(n_chebyshev):
                    weight = radial[s, centre, other_kind, place, b]
                    total += weight * poly[s, b]
                    d_total += weight * d_poly[s, b]
                f[m], df[m] = total, d_total
            powers[0, 0], powers[1, 0], powers[2, 0] = 1.0, 1.0, 1.0
            for k in range(rank):
                powers[0, k + 1] = powers[0, k] * ux
                powers[1, k + 1] = powers[1, k] * uy
                powers[2, k + 1] = powers[2, k] * uz
            for b in range(n_basic):
                m, ax, ay, az = basic[b, 0], basic[b, 1], basic[b, 2], basic[b, 3]
                part = powers[0, ax] * powers[1, ay] * powers[2, az]
                value[b] += f[m] * part
                if force:
                    gx, gy, gz = 0.0, 0.0, 0.0
                    if ax > 0:
                        gx = ax * powers[0, ax - 1] * powers[1, ay] * powers[2, az]
                    if ay > 0:
                        gy = ay * powers[0, ax] * powers[1, ay - 1] * powers[2, az]
                    if az > 0:
                        gz = az * powers[0, ax] * powers[1, ay] * powers[2, az - 1]
                    # along the way the part does not change but for f; across it only the direction does
                    along = df[m] * part - f[m] * part * (ax + ay + az) / r
                    d_basic[b, j] = along * ux + f[m] * gx / r
                    d_basic[b, nn + j] = along * uy + f[m] * gy / r
                    d_basic[b, 2 * nn + j] = along * uz + f[m] * gz / r
        for t in range(len(times)):
            value[times[t, 3]] += factors[t] * value[times[t, 0]] * value[times[t, 1]]
        row0 = centre * n_scalars
        for s in range(n_scalars):
            out_energy[row0 + s, system[i]] += value[scalars[s]]
            if with_rows:
                out_row[row0 + s, i] = value[scalars[s]]
        if not force:
            continue
        d_value[:n_basic] = 1.0
        d_value[n_basic:] = 0.0
        for t in range(len(target)):
            d_value[target[t]] += factor[t] * value[other[t]] * d_value[source[t]]
        for s in range(n_scalars):
            k = scalars[s]
            for j in range(3 * nn):
                pull[j] = 0.0
            for entry in range(start[k], start[k + 1]):
                weight, b = d_value[entry], jac_basic[entry]
                for j in range(3 * nn):
                    pull[j] += weight * d_basic[b, j]
            row = row0 + s
            for c in range(3):
                own = 0.0
                for j in range(nn):
                    out_force[row, 3 * neighbour[begin[i] + j] + c] -= pull[c * nn + j]
                    own += pull[c * nn + j]
                out_force[row, 3 * i + c] += own
                if with_virial:
                    for a in range(3):
                        part = 0.0
                        for j in range(nn):
                            part += vector[begin[i] + j, a] * pull[c * nn + j]
                        out_virial[row, system[i], 3 * a + c] += part
