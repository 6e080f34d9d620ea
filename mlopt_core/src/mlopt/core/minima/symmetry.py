"""The point group of a finite cluster, in Schoenflies notation.

The symmetry operations of a structure are its alignments with itself (`mlopt.core.minima.matching.alignments`). All
operations are found, not only generators. Each is identified by its handedness and by the images of two anchor atoms.
The multiplication table, and with it the group, then follows from integers alone. Schoenflies' symbol follows from four
numbers: the number of proper rotations, their largest order, whether any operation is improper, and the number of
mirrors.

Invariant: what is reported is a group. Where the tolerance separates nearly symmetric operations, those that deviate
most are dropped until the rest is closed under multiplication.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlopt.core.errors import InputError
from mlopt.core.minima.matching import Alignments, alignments, checked, checked_tolerance

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PointGroup:
    """A point group. ``symbol`` is such as ``C2v``; ``*`` stands for infinity (``C*v``, ``D*h``), ``K`` for one atom.

    order: the number of operations, None where it is infinite.
    """

    symbol: str
    order: int | None


def point_group(pos: ArrayLike, z: ArrayLike, tolerance: float = 0.01) -> PointGroup:
    """Return the point group of a finite structure, ``pos (n, 3)``, ``z (n,)``.

    tolerance: largest distance, in the unit of ``pos``, between an atom's image and a like atom. The default suits
        coordinates that are relaxed to 1e-3 or better, in angstrom or in units of sigma.

    Raises:
        InputError: the tolerance is not below half of the shortest interatomic distance.

    >>> point_group([[0, 0, 0], [0, 0, 1.1]], [6, 8])
    PointGroup(symbol='C*v', order=None)
    """
    tol = checked_tolerance(tolerance, "point_group(tolerance=...)")
    positions, numbers = checked(pos, z, "point_group")
    if len(positions) == 1:
        return PointGroup("K", None)
    first, second = np.triu_indices(len(positions), 1)
    shortest = float(np.linalg.norm(positions[first] - positions[second], axis=1).min())
    if shortest <= 2 * tol:
        raise InputError(
            f"point_group(tolerance={tol:g}) must be below half of the shortest distance between two atoms "
            f"({shortest:g}); pass a smaller tolerance, or check that no two atoms overlap."
        )
    centred = positions - positions.mean(axis=0)
    if _is_linear(centred, tol):
        return _linear_group(centred, numbers, tol)
    proper, improper = alignments(centred, numbers, centred, numbers, tol)
    return _classify(*_closed(proper, improper))


def _is_linear(centred: Floats, tol: float) -> bool:
    far = centred[np.argmax(np.sum(centred**2, axis=1))]
    axis = far / np.linalg.norm(far)
    return bool(np.linalg.norm(centred - np.outer(centred @ axis, axis), axis=1).max() <= tol)


def _linear_group(centred: Floats, numbers: Ints, tol: float) -> PointGroup:
    distances = np.linalg.norm(centred[:, None] + centred, axis=2)
    distances[numbers[:, None] != numbers] = np.inf
    return PointGroup("D*h" if distances.min(axis=1).max() <= 2 * tol else "C*v", None)


def _closed(proper: Alignments, improper: Alignments) -> tuple[Ints, Ints, Floats]:
    """Return products (m, m) as indices, handedness (m,) (1: improper) and traces (m,); the identity comes first."""
    permutation = np.concatenate([proper.permutation, improper.permutation])
    handed = np.repeat([0, 1], [len(proper.rmsd), len(improper.rmsd)])
    deviation = np.concatenate([proper.max_deviation, improper.max_deviation])
    trace = np.trace(np.concatenate([proper.rotation, improper.rotation]), axis1=1, axis2=2)
    i, j = proper.anchors
    size = permutation.shape[1]
    # Identity first: the proper operation that moves neither anchor.
    moved = (permutation[:, i] != i) | (permutation[:, j] != j) | (handed == 1)
    order = np.lexsort((deviation, moved))
    permutation, handed, deviation, trace = permutation[order], handed[order], deviation[order], trace[order]
    while True:
        number = np.full((2, size, size), -1, dtype=np.int64)
        number[handed, permutation[:, i], permutation[:, j]] = np.arange(len(handed))
        products = number[
            handed[:, None] ^ handed,
            permutation[:, permutation[:, i]],
            permutation[:, permutation[:, j]],
        ]
        if (products >= 0).all():
            return products, handed, trace
        worst = deviation >= 0.999 * deviation.max()
        worst[0] = False
        keep = ~worst
        permutation, handed, deviation, trace = permutation[keep], handed[keep], deviation[keep], trace[keep]


def _classify(products: Ints, handed: Ints, trace: Floats) -> PointGroup:
    """Return the group from its multiplication table (m, m), handedness (m,) and traces (m,)."""
    total = len(products)
    orders = _element_orders(products)
    rotations = int(np.sum(handed == 0))
    highest = int(orders[handed == 0].max())
    chiral = rotations == total
    # Improper operations of order two are mirrors (trace 1) and the inversion (trace -3).
    mirrors = int(np.sum((handed == 1) & (orders == 2) & (trace > -1)))
    if rotations == 1:
        symbol = "C1" if chiral else "Cs" if mirrors else "Ci"
    elif rotations == highest:
        n = rotations
        symbol = f"C{n}" if chiral else {0: f"S{2 * n}", 1: f"C{n}h"}.get(mirrors, f"C{n}v")
    elif rotations == 2 * highest:
        n = highest
        symbol = f"D{n}" if chiral else f"D{n}h" if mirrors == n + 1 else f"D{n}d"
    elif highest == 3:
        symbol = "T" if chiral else "Td" if mirrors == 6 else "Th"
    else:
        symbol = ("O" if highest == 4 else "I") + ("" if chiral else "h")
    return PointGroup(symbol, total)


def _element_orders(products: Ints) -> Ints:
    """Return the order of every element; the identity is element 0."""
    orders = np.ones(len(products), dtype=np.int64)
    elements = np.arange(len(products))
    power = elements
    for _ in range(len(products)):  # no element's order exceeds the group's
        orders[power != 0] += 1
        power = np.where(power != 0, products[elements, power], 0)
    return orders
