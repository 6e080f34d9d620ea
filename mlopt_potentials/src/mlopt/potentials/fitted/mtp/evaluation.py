"""Energies and forces, compiled: sums over neighbours, products, and the way back through both.

Blocks of atoms go through the products side by side, so that each step is one instruction for many atoms. Each pair's
share of the force is written to a place of its own, and shares are added in the order of the pairs. The result thus
does not depend on the number of threads. One function does it all, without calling another, as in `assembly`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

#: atoms that go through the products side by side
LANES = 16


@functools.cache
def compiled() -> Callable[..., Any]:
    """Compile `pulls`, or load it from Numba's cache."""
    from numba import njit

    loose = {"contract", "reassoc", "nsz"}  # sums over neighbours in vectors
    found: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy", fastmath=loose)(pulls)
    return found


def pulls(
    first_atom: int,
    last_atom: int,
    begin: Any,
    neighbour: Any,
    kind: Any,
    vector: Any,
    shortest: Any,
    cutoff: Any,
    floor: Any,
    radial: Any,
    set_of: Any,
    place_of: Any,
    basic: Any,
    monomial: Any,
    monomial_of: Any,
    lower: Any,
    times: Any,
    factors: Any,
    scalars: Any,
    theta: Any,
    theta_of: Any,
    n_values: int,
    out_energy: Any,
    out_pull: Any,
    out_scalars: Any,
) -> None:
    """Write the energy of each atom, and its derivative with respect to the vector of each of the atom's pairs.

    See `assembly.rows` for the arguments up to ``basic``.

    monomial (n_monomials, 3): exponents of x, y and z.
    lower (n_monomials, 3): place of the monomial with one power less of x, y or z, or -1. It comes before the monomial.
    monomial_of (n_basic,): the monomial of each sum over neighbours.
    theta (n_rows, 1 + n_scalars): constant and coefficients, one row for a species, or for a species and a system.
    theta_of (n_atoms,): row of ``theta`` for each atom.
    out_energy (n_atoms,), out_pull (n_pairs, 3): the results. If derivatives are not wanted, ``out_pull`` is (0, 3).
    out_scalars (n_atoms, n_scalars): the basis functions, or (n_atoms, 0) if they are not wanted.
    """
    n_basic, n_scalars, n_radial = len(basic), len(scalars), len(set_of)
    n_sets, n_chebyshev, n_monomials = len(cutoff), radial.shape[4], len(monomial)
    with_scalars, with_pull = out_scalars.shape[1] > 0, len(out_pull) > 0
    most = 1
    for i in range(first_atom, last_atom):
        most = max(most, begin[i + 1] - begin[i])
    value = np.zeros((n_values, LANES))
    slope = np.zeros((n_values, LANES))
    f = np.zeros((LANES, n_radial, most))
    df = np.zeros((LANES, n_radial, most))
    unit = np.zeros((LANES, 3, most))
    length = np.ones((LANES, most))
    # of one atom, and so made twice: those of all atoms of a block would not stay in the nearest cache
    mono = np.zeros((n_monomials, most))
    weight = np.zeros((n_monomials, most))
    along = np.zeros(most)
    across = np.zeros((3, most))
    poly = np.zeros((n_chebyshev, most))
    d_poly = np.zeros((n_chebyshev, most))
    for block in range(first_atom, last_atom, LANES):
        n_lanes = min(LANES, last_atom - block)
        value[:, :] = 0.0
        slope[:, :] = 0.0
        for lane in range(n_lanes):
            i = block + lane
            nn = begin[i + 1] - begin[i]
            centre = kind[i]
            for j in range(nn):
                pair = begin[i] + j
                x, y, z = vector[pair, 0], vector[pair, 1], vector[pair, 2]
                r = np.sqrt(x * x + y * y + z * z)
                length[lane, j] = r
                unit[lane, 0, j], unit[lane, 1, j], unit[lane, 2, j] = x / r, y / r, z / r
            for s in range(n_sets):
                steep = 2.0 / (cutoff[s] - shortest[s])
                for j in range(nn):
                    r = length[lane, j]
                    inside = 1.0 if r < cutoff[s] else 0.0
                    below = max(floor[s, 0] - r, 0.0)
                    bent = floor[s, 1] / (floor[s, 1] + below)
                    rho = r + below - below * bent
                    end = inside * (cutoff[s] - rho)
                    xi = (rho - shortest[s]) * steep - 1.0
                    t0, t1, d0, d1 = 1.0, xi, 0.0, steep
                    for b in range(n_chebyshev):
                        poly[b, j] = t0 * end * end
                        d_poly[b, j] = (d0 * end * end - 2.0 * t0 * end) * bent * bent
                        t2, d2 = 2.0 * xi * t1 - t0, 2.0 * steep * t1 + 2.0 * xi * d1 - d0
                        t0, t1, d0, d1 = t1, t2, d1, d2
                for m in range(n_radial):
                    if set_of[m] != s:
                        continue
                    place = place_of[m]
                    for j in range(nn):
                        f[lane, m, j] = 0.0
                        df[lane, m, j] = 0.0
                    for b in range(n_chebyshev):
                        if radial.shape[1] == 1:
                            c = radial[s, 0, 0, place, b]
                            for j in range(nn):
                                f[lane, m, j] += c * poly[b, j]
                            for j in range(nn):
                                df[lane, m, j] += c * d_poly[b, j]
                        else:
                            for j in range(nn):
                                c = radial[s, centre, kind[neighbour[begin[i] + j]], place, b]
                                f[lane, m, j] += c * poly[b, j]
                                df[lane, m, j] += c * d_poly[b, j]
            for j in range(nn):
                mono[0, j] = 1.0
            for q in range(1, n_monomials):
                axis = 0 if lower[q, 0] >= 0 else (1 if lower[q, 1] >= 0 else 2)
                less = lower[q, axis]
                for j in range(nn):
                    mono[q, j] = unit[lane, axis, j] * mono[less, j]
            for b in range(n_basic):
                m, q = basic[b, 0], monomial_of[b]
                total = 0.0
                for j in range(nn):
                    total += f[lane, m, j] * mono[q, j]
                value[b, lane] = total
        for t in range(len(times)):
            a, b, k, c = times[t, 0], times[t, 1], times[t, 2], factors[t]
            for lane in range(LANES):
                value[k, lane] += c * value[a, lane] * value[b, lane]
        for lane in range(n_lanes):
            row = theta_of[block + lane]
            total = theta[row, 0]
            for s in range(n_scalars):
                total += theta[row, 1 + s] * value[scalars[s], lane]
                slope[scalars[s], lane] += theta[row, 1 + s]
            out_energy[block + lane] = total
            if with_scalars:
                for s in range(n_scalars):
                    out_scalars[block + lane, s] = value[scalars[s], lane]
        if not with_pull:
            continue
        for t in range(len(times) - 1, -1, -1):
            a, b, k, c = times[t, 0], times[t, 1], times[t, 2], factors[t]
            for lane in range(LANES):
                pulled = c * slope[k, lane]
                slope[a, lane] += pulled * value[b, lane]
                slope[b, lane] += pulled * value[a, lane]
        for lane in range(n_lanes):
            i = block + lane
            nn = begin[i + 1] - begin[i]
            along[:] = 0.0
            weight[:, :] = 0.0
            across[:, :] = 0.0
            for q in range(1, n_monomials):
                axis = 0 if lower[q, 0] >= 0 else (1 if lower[q, 1] >= 0 else 2)
                less = lower[q, axis]
                for j in range(nn):
                    mono[q, j] = unit[lane, axis, j] * mono[less, j]
            for b in range(n_basic):
                m, q, w = basic[b, 0], monomial_of[b], slope[b, lane]
                for j in range(nn):
                    weight[q, j] += w * f[lane, m, j]
                for j in range(nn):
                    along[j] += w * df[lane, m, j] * mono[q, j]
            for q in range(1, n_monomials):
                for axis in range(3):
                    less, power = lower[q, axis], float(monomial[q, axis])
                    if less >= 0:
                        for j in range(nn):
                            across[axis, j] += power * weight[q, j] * mono[less, j]
            for j in range(nn):
                pair, r = begin[i] + j, length[lane, j]
                ux, uy, uz = unit[lane, 0, j], unit[lane, 1, j], unit[lane, 2, j]
                gx, gy, gz = across[0, j], across[1, j], across[2, j]
                # across the way only the direction changes, along it only the length
                radial_part = along[j] - (gx * ux + gy * uy + gz * uz) / r
                out_pull[pair, 0] = radial_part * ux + gx / r
                out_pull[pair, 1] = radial_part * uy + gy / r
                out_pull[pair, 2] = radial_part * uz + gz / r
