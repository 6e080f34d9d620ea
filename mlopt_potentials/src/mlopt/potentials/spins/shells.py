"""Bonds of a crystal by shells of neighbours, found once for a unit cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

#: pairs of atoms times translations beyond which a search is refused
MOST = 20_000_000


@dataclass(frozen=True)
class Bonds:
    """Bonds from the atoms of one unit cell, each bond of the crystal once.

    first, second: (p,) atoms of the basis. translation: (p, 3) number of cells from the first to the second.
    vector: (p, 3) from first to second, in the units of the cell.
    shell: (p,) counted from 0; all bonds of one length are a shell.
    count: number of shells that were found.
    """

    first: Integers
    second: Integers
    translation: Integers
    vector: Floats
    shell: Integers
    count: int


def find_bonds(
    vectors: Floats, offsets: Floats, limits: Sequence[int | None], count: int, tolerance: float
) -> Bonds:
    """Return the first ``count`` shells of neighbours, or all if there are fewer.

    vectors: (3, 3) of the cell as rows. offsets: (b, 3) Cartesian positions of the basis.
    limits: the largest translation along each direction; None for an infinite crystal.
    tolerance: lengths that differ by less belong to one shell.

    Raises:
        ValueError: two atoms coincide, or there are too many pairs to look at.
    """
    if count == 0:
        none = np.zeros(0, np.int64)
        return Bonds(none, none, np.zeros((0, 3), np.int64), np.zeros((0, 3)), none, 0)
    inverse = np.linalg.inv(vectors)
    heights, spread = 1.0 / np.linalg.norm(inverse, axis=0), np.ptp(offsets @ inverse, axis=0)
    steps = 0
    while True:
        steps += 1
        reach = [steps if limit is None else min(steps, limit) for limit in limits]
        first, second, translation, vector = _within(vectors, offsets, reach, tolerance)
        # a translation by more cells than were tried is longer than this
        beyond = [
            float((steps + 1 - spread[d]) * heights[d])
            for d, limit in enumerate(limits)
            if limit is None or limit > steps
        ]
        length = np.linalg.norm(vector, axis=1)
        order = np.argsort(length, kind="stable")
        length = length[order]
        shell = np.cumsum(np.diff(length, prepend=length[:1]) > tolerance)
        complete = int(np.searchsorted(length, min(beyond, default=np.inf) - tolerance))
        shells = int(shell[complete - 1]) + 1 if complete else 0
        # the last shell that was seen may go on beyond what is safe, so one more has to be seen
        if shells > count or not beyond:
            chosen = order[shell < min(count, shells)]
            return Bonds(
                first[chosen],
                second[chosen],
                translation[chosen],
                vector[chosen],
                shell[: len(chosen)].astype(np.int64),
                min(count, shells),
            )


def _within(
    vectors: Floats, offsets: Floats, reach: Sequence[int], tolerance: float
) -> tuple[Integers, Integers, Integers, Floats]:
    """Return all bonds with translations up to ``reach``, each once: first, second, translation, vector."""
    axes = [np.arange(-n, n + 1) for n in reach]
    number = len(offsets) ** 2 * int(np.prod([len(axis) for axis in axes]))
    if number > MOST:
        raise ValueError(
            f"shells of neighbours in a cell with {len(offsets)} atoms mean {number:,} pairs to look at: ask for fewer "
            f"shells, or give the bonds themselves as `pairs`"
        )
    translations = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.int64)
    # of a translation and its opposite one is enough; within the cell, of i - j and j - i
    base = 2 * max(reach) + 1
    half = translations[translations @ np.array([base * base, base, 1]) > 0]
    atoms = np.arange(len(offsets))
    i, j = (one.ravel() for one in np.meshgrid(atoms, atoms, indexing="ij"))
    inner = i < j
    first = np.concatenate([i[inner], np.tile(i, len(half))])
    second = np.concatenate([j[inner], np.tile(j, len(half))])
    translation = np.concatenate([np.zeros((int(inner.sum()), 3), np.int64), np.repeat(half, len(i), axis=0)])
    vector = offsets[second] - offsets[first] + translation @ vectors
    close = np.linalg.norm(vector, axis=1) <= tolerance
    if close.any():
        at = int(np.argmax(close))
        raise ValueError(
            f"atoms {first[at]} and {second[at]} of the basis are on one spot (translation "
            f"{translation[at].tolist()}): move them apart, or remove one"
        )
    return first, second, translation, vector
