"""Symmetry functions of atoms, and the energies that networks give for them, compiled.

All loops run over a range of atoms, so that threads can share the atoms. An atom's result does not depend on the range.
`describe` is inlined into its callers. Their cached code then refers to no compiled function that another process would
lack.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np


@functools.cache
def compiled() -> dict[str, Callable[..., Any]]:
    """Compile `functions`, `pulls`, `pulled` and `pushed`, or load them from Numba's cache; by name."""
    from numba import njit

    loose = {"contract", "reassoc", "nsz"}  # sums over functions in vectors
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": loose}
    # the callers find it where they were written
    globals()["describe"] = njit(forceinline=True, **options)(describe)
    return {one.__name__: njit(cache=True, **options)(one) for one in (functions, pulls, pulled, pushed)}


def describe(
    first: int,
    last: int,
    neighbour: Any,
    kind: Any,
    vector: Any,
    cutoff: float,
    power: float,
    narrow: bool,
    n_kinds: int,
    radial: Any,
    angular: Any,
    near: Any,
    value: Any,
    slope: Any,
) -> None:
    """Fill the functions of one atom, ``value (n_functions,)``, and ``slope (n_pairs, 3, n_functions)``.

    The pairs ``first`` to ``last`` are those of the atom. A slope is the derivative with respect to the vector to the
    other atom.

    power: exponent of the polynomial cutoff function; 0 for the cosine.
    narrow: True for G4, which asks that the two neighbours are near each other as well; False for G5.
    radial (m, 2): eta and shift of each G2.
    angular (m, 3): eta, zeta and lambda.
    near (3, n_pairs): room for distances, cutoff functions and their derivatives.
    """
    n_radial, n_angular = len(radial), len(angular)
    pi = np.pi
    value[:] = 0.0
    for a in range(last - first):
        slope[a, :, :] = 0.0
        x, y, z = vector[first + a, 0], vector[first + a, 1], vector[first + a, 2]
        r = np.sqrt(x * x + y * y + z * z)
        share = r / cutoff
        if r >= cutoff:
            near[1, a], near[2, a] = 0.0, 0.0
        elif power > 0.0:
            near[1, a] = 1.0 + power * share ** (power + 1.0) - (power + 1.0) * share**power
            near[2, a] = power * (power + 1.0) * (share**power - share ** (power - 1.0)) / cutoff
        else:
            near[1, a] = 0.5 * (np.cos(pi * share) + 1.0)
            near[2, a] = -0.5 * pi / cutoff * np.sin(pi * share)
        near[0, a] = r
        start = kind[neighbour[first + a]] * n_radial
        for m in range(n_radial):
            off = r - radial[m, 1]
            bell = np.exp(-radial[m, 0] * off * off)
            value[start + m] += bell * near[1, a]
            steep = bell * (near[2, a] - 2.0 * radial[m, 0] * off * near[1, a]) / r
            slope[a, 0, start + m] += steep * x
            slope[a, 1, start + m] += steep * y
            slope[a, 2, start + m] += steep * z
    if n_angular == 0:
        return
    for a in range(last - first):
        if near[1, a] == 0.0:
            continue
        ax, ay, az = vector[first + a, 0], vector[first + a, 1], vector[first + a, 2]
        ra, one = near[0, a], kind[neighbour[first + a]]
        for b in range(a + 1, last - first):
            if near[1, b] == 0.0:
                continue
            bx, by, bz = vector[first + b, 0], vector[first + b, 1], vector[first + b, 2]
            rb, two = near[0, b], kind[neighbour[first + b]]
            product = ax * bx + ay * by + az * bz
            square = ra * ra + rb * rb
            between, f_between, d_between = 1.0, 1.0, 0.0
            if narrow:
                between = np.sqrt(max(square - 2.0 * product, 0.0))
                if between >= cutoff:
                    continue
                share = between / cutoff
                if power > 0.0:
                    f_between = 1.0 + power * share ** (power + 1.0) - (power + 1.0) * share**power
                    d_between = power * (power + 1.0) * (share**power - share ** (power - 1.0)) / cutoff
                else:
                    f_between = 0.5 * (np.cos(pi * share) + 1.0)
                    d_between = -0.5 * pi / cutoff * np.sin(pi * share)
                square += between * between
                between = max(between, 1e-12)
            cosine = product / (ra * rb)
            low, high = min(one, two), max(one, two)
            pair = low * n_kinds - low * (low - 1) // 2 + high - low
            start = n_kinds * n_radial + pair * n_angular
            f = near[1, a] * near[1, b] * f_between
            # derivatives of the logarithm of the three cutoff functions, times their product, over distances
            fa = near[2, a] * near[1, b] * f_between / ra
            fb = near[1, a] * near[2, b] * f_between / rb
            fc = near[1, a] * near[1, b] * d_between / between
            for m in range(n_angular):
                eta, zeta, sign = angular[m, 0], angular[m, 1], angular[m, 2]
                base = max(1.0 + sign * cosine, 0.0)
                less = 2.0 ** (1.0 - zeta) * np.exp(-eta * square)
                if zeta != 1.0:
                    less *= base ** (zeta - 1.0)
                g = less * base
                value[start + m] += g * f
                turn = less * zeta * sign * f
                # along the first vector, along the second, and along their difference
                wide = -2.0 * eta * g * f
                along_a = wide + g * fa - turn * cosine / (ra * ra)
                along_b = wide + g * fb - turn * cosine / (rb * rb)
                mixed = turn / (ra * rb)
                if narrow:
                    apart = wide + g * fc
                    along_a += apart
                    along_b += apart
                    mixed -= apart
                slope[a, 0, start + m] += along_a * ax + mixed * bx
                slope[a, 1, start + m] += along_a * ay + mixed * by
                slope[a, 2, start + m] += along_a * az + mixed * bz
                slope[b, 0, start + m] += along_b * bx + mixed * ax
                slope[b, 1, start + m] += along_b * by + mixed * ay
                slope[b, 2, start + m] += along_b * bz + mixed * az


def functions(
    first_atom: int,
    last_atom: int,
    begin: Any,
    neighbour: Any,
    kind: Any,
    vector: Any,
    cutoff: float,
    power: float,
    narrow: bool,
    n_kinds: int,
    radial: Any,
    angular: Any,
    out_value: Any,
    out_slope: Any,
) -> None:
    """Write the functions of each atom (n_atoms, n_functions), and their slopes (n_pairs, 3, n_functions).

    begin (n_atoms + 1,): where the pairs of each atom begin.
    neighbour (n_pairs,), vector (n_pairs, 3): the other atom, and the vector to it.
    kind (n_atoms,): index of the species.

    For the other arguments see `describe`. No slopes are written if ``out_slope`` has no pairs.
    """
    most = 1
    for i in range(first_atom, last_atom):
        most = max(most, begin[i + 1] - begin[i])
    n = out_value.shape[1]
    near, value, slope = np.zeros((3, most)), np.zeros(n), np.zeros((most, 3, n))
    for i in range(first_atom, last_atom):
        describe(
            begin[i], begin[i + 1], neighbour, kind, vector, cutoff, power, narrow, n_kinds, radial, angular,
            near, value, slope,
        )  # fmt: skip
        out_value[i] = value
        if len(out_slope):
            for a in range(begin[i + 1] - begin[i]):
                out_slope[begin[i] + a] = slope[a]


def pulls(
    first_atom: int,
    last_atom: int,
    begin: Any,
    neighbour: Any,
    kind: Any,
    vector: Any,
    cutoff: float,
    power: float,
    narrow: bool,
    n_kinds: int,
    radial: Any,
    angular: Any,
    centre: Any,
    width: Any,
    layers: Any,
    activation: int,
    theta: Any,
    theta_of: Any,
    out_energy: Any,
    out_pull: Any,
) -> None:
    """Write the energy of each atom, and for each pair its derivative with respect to the vector to the other atom.

    centre, width (n_kinds, n_functions): inputs of a network are ``(value - centre) / width``.
    layers: numbers of nodes, from the inputs to the one output.
    activation: place in `network.ACTIVATIONS`.
    theta (n_rows, p): parameters of networks.
    theta_of (n_atoms,): row of ``theta`` for each atom.
    out_energy (n_atoms,), out_pull (n_pairs, 3): the results.
    """
    most = 1
    for i in range(first_atom, last_atom):
        most = max(most, begin[i + 1] - begin[i])
    n, n_layers = layers[0], len(layers) - 1
    widest = 1
    for q in range(n_layers + 1):
        widest = max(widest, layers[q])
    near, value, slope = np.zeros((3, most)), np.zeros(n), np.zeros((most, 3, n))
    node, back = np.zeros((n_layers + 1, widest)), np.zeros((n_layers + 1, widest))
    at = np.zeros(n_layers + 1, dtype=np.int64)
    for q in range(n_layers):
        at[q + 1] = at[q] + layers[q + 1] * (layers[q] + 1)
    for i in range(first_atom, last_atom):
        describe(
            begin[i], begin[i + 1], neighbour, kind, vector, cutoff, power, narrow, n_kinds, radial, angular,
            near, value, slope,
        )  # fmt: skip
        own, row = kind[i], theta_of[i]
        for g in range(n):
            node[0, g] = (value[g] - centre[own, g]) / width[own, g]
        for q in range(n_layers):
            inner, outer = layers[q], layers[q + 1]
            for o in range(outer):
                total = theta[row, at[q] + outer * inner + o]
                for g in range(inner):
                    total += theta[row, at[q] + o * inner + g] * node[q, g]
                if q < n_layers - 1:
                    if activation == 0:
                        total = np.tanh(total)
                    elif activation == 1:
                        total = 1.0 / (1.0 + np.exp(-total))
                    else:
                        total = max(total, 0.0) + np.log1p(np.exp(-abs(total)))
                node[q + 1, o] = total
        out_energy[i] = node[n_layers, 0]
        back[n_layers, 0] = 1.0
        for q in range(n_layers - 1, -1, -1):
            inner, outer = layers[q], layers[q + 1]
            for g in range(inner):
                back[q, g] = 0.0
            for o in range(outer):
                steep = back[q + 1, o]
                if q < n_layers - 1:
                    if activation == 0:
                        steep *= 1.0 - node[q + 1, o] * node[q + 1, o]
                    elif activation == 1:
                        steep *= node[q + 1, o] * (1.0 - node[q + 1, o])
                    else:
                        steep *= 1.0 - np.exp(-node[q + 1, o])
                for g in range(inner):
                    back[q, g] += steep * theta[row, at[q] + o * inner + g]
        for g in range(n):
            back[0, g] /= width[own, g]
        for a in range(begin[i + 1] - begin[i]):
            for c in range(3):
                total = 0.0
                for g in range(n):
                    total += back[0, g] * slope[a, c, g]
                out_pull[begin[i] + a, c] = total


def pulled(first_atom: int, last_atom: int, begin: Any, slope: Any, steep: Any, out_pull: Any) -> None:
    """Write ``sum_g steep[s, i, g] slope[pair, c, g]`` for each pair of each atom, ``out_pull (k, n_pairs, 3)``.

    slope (n_pairs, 3, n_functions): as `functions` writes them.
    steep (k, n_atoms, n_functions): derivatives of the atoms' energies with respect to the functions, for k networks.
    """
    k, n = steep.shape[0], steep.shape[2]
    for i in range(first_atom, last_atom):
        for pair in range(begin[i], begin[i + 1]):
            for s in range(k):
                for c in range(3):
                    total = 0.0
                    for g in range(n):
                        total += steep[s, i, g] * slope[pair, c, g]
                    out_pull[s, pair, c] = total


def pushed(
    first_atom: int,
    last_atom: int,
    begin: Any,
    neighbour: Any,
    system: Any,
    vector: Any,
    slope: Any,
    force: Any,
    virial: Any,
    out: Any,
) -> None:
    """Write the derivatives of a loss with respect to ``steep`` of `pulled`, from those by forces and virials.

    This is the transpose of `pulled` followed by the sums over pairs.

    force (k, n_atoms, 3), virial (k, n_systems, 3, 3): derivatives of the loss with respect to forces and virials.
    out (k, n_atoms, n_functions): the result.
    """
    k, n = out.shape[0], out.shape[2]
    for i in range(first_atom, last_atom):
        own = system[i]
        for s in range(k):
            out[s, i, :] = 0.0
        for pair in range(begin[i], begin[i + 1]):
            j = neighbour[pair]
            for s in range(k):
                for c in range(3):
                    share = force[s, i, c] - force[s, j, c]
                    for a in range(3):
                        share += vector[pair, a] * virial[s, own, a, c]
                    for g in range(n):
                        out[s, i, g] += share * slope[pair, c, g]
