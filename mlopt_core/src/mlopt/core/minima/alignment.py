"""Alignment of one structure with another: the permutation of like atoms and the rigid motion of least distance.

The distance is that of a straight path, the root of the sum of all squared displacements. For a free cluster it is
minimised over permutations of like atoms and proper rotations. Source: D. J. Wales & J. M. Carr, J. Chem. Theory
Comput. 8, 5020 (2012), who call the result MINPERMDIST. For a given rotation the permutation is an assignment problem
(the Hungarian method). For a given permutation the rotation is Kabsch's (Acta Cryst. A32, 922 (1976)). The two
alternate until neither changes. They begin from the given order, the principal axes, and evenly spread rotations
(super-Fibonacci spirals, M. Alexa, CVPR 2022). Equal structures are always found, by `mlopt.core.minima.matching`.

Fixed atoms keep their places. Only motions that leave them in place are tried: rotations about one fixed atom, or about
the line through several. Periodic structures are never rotated, and their distances are to the nearest image. They are
translated as a whole only against a drift that more than half of the atoms share. A vacancy's hop, for example, can be
undone by a lattice translation, but that translation is no alignment.

Invariant: alignment never makes the path longer. A structure that nothing brings nearer is returned bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlopt.core.landscapes.manifold import Flat
from mlopt.core.lazy import torch
from mlopt.core.minima.matching import match

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: smaller gains are ignored: a gain of this share of the path is worth neither a rotation nor an exchange
_WORTH = 1e-3
#: equal structures deviate by less than this share of the shortest distance
_EQUAL = 0.02
#: a translation that shortens the path to less than this share undoes a drift of more than half of the atoms
_DRIFT = 0.7
#: distances held at once
_CHUNK = 1_000_000
#: at most this many steps of assignment and rotation; they always end, as the distance falls with each
_STEPS = 100


@dataclass(frozen=True, eq=False)
class Alignment:
    """An aligned structure: ``pos`` is ``(given @ rotation.T + translation)[permutation]``, never farther than before.

    before, after: distances from the reference to the structure as given and as aligned, in the length of ``pos``.
    """

    pos: Floats  # (n, 3)
    permutation: Ints  # (n,)
    rotation: Floats  # (3, 3)
    translation: Floats  # (3,)
    before: float
    after: float

    @property
    def exchanged(self) -> int:
        """The number of atoms that changed their place in the order."""
        return int((self.permutation != np.arange(len(self.permutation))).sum())

    @property
    def mirrored(self) -> bool:
        """True if ``pos`` is the mirror image of the given structure."""
        return bool(np.linalg.det(self.rotation) < 0)

    @property
    def angle(self) -> float:
        """The angle of rotation, degrees; for a mirror image, of the rotation after the inversion."""
        proper = -self.rotation if self.mirrored else self.rotation
        return math.degrees(math.acos(min(1.0, max(-1.0, 0.5 * (float(np.trace(proper)) - 1.0)))))

    @property
    def moved(self) -> bool:
        """True if the alignment changes anything."""
        shifted = bool((self.translation != 0).any() or (self.rotation != np.eye(3)).any())
        return shifted or self.exchanged > 0

    @property
    def words(self) -> str:
        """A description such as ``3 atoms exchanged, turned by 43 degrees``; empty for no change."""
        parts = [f"{self.exchanged} atoms exchanged"] if self.exchanged else []
        if self.mirrored:
            parts.append("mirrored")
        if (self.rotation != np.eye(3)).any():
            parts.append(f"turned by {self.angle:.3g} degrees")
            # a rotation about the own centre is no shift, whatever the translation
        elif (self.translation != 0).any():
            parts.append(f"shifted by {float(np.linalg.norm(self.translation)):.3g}")
        return ", ".join(parts)


def align(
    reference: Floats,
    pos: Floats,
    kinds: Ints,
    *,
    cell: Floats | None = None,
    pbc: Bools | None = None,
    fixed: Bools | None = None,
    exchange: bool = True,
    mirror: bool = False,
) -> Alignment:
    """Return ``pos`` aligned with ``reference`` by permutations of like atoms and rigid motions; both (n, 3).

    kinds: (n,) species of the rows, the same in both; only atoms of one kind are exchanged.
    cell: (3, 3). pbc: (3,) periodic directions.
    fixed: (n,) bool, atoms that stay in place; their positions are the same in both.
    exchange: False keeps the order of atoms.
    mirror: also try mirror images, of structures without periodic directions.
    """
    kinds = np.asarray(kinds, dtype=np.int64)
    fixed = np.zeros(len(pos), dtype=bool) if fixed is None else fixed
    groups = [np.flatnonzero((kinds == kind) & ~fixed) for kind in np.unique(kinds)] if exchange else []
    groups = [rows for rows in groups if len(rows) > 1]
    if cell is not None and pbc is not None and bool(pbc.any()):
        return _Periodic(reference, pos, groups, cell, pbc, shifts=not fixed.any()).best()
    return _Free(reference, pos, kinds, groups, fixed, mirror).best()


def nearest_order(
    reference: Floats,
    kinds: Ints,
    pos: Floats,
    kinds_given: Ints,
    cell: Floats | None = None,
    pbc: Bools | None = None,
) -> Ints:
    """Return the order (n,) that gives ``pos`` the kinds of ``reference``, with like atoms at the nearest positions.

    The two have the same composition.
    """
    order = np.empty(len(kinds), dtype=np.int64)
    for kind in np.unique(kinds):
        here, there = np.flatnonzero(kinds == kind), np.flatnonzero(kinds_given == kind)
        order[here] = there[_assigned(_squares(reference[here], pos[there], cell, pbc))]
    return order


class _Periodic:
    """An alignment in a periodic cell, by permutations and a translation against drift."""

    def __init__(
        self, reference: Floats, pos: Floats, groups: list[Ints], cell: Floats, pbc: Bools, shifts: bool
    ) -> None:
        self.a, self.b, self.groups = reference, pos, groups
        self.cell, self.pbc, self.shifts = cell, pbc, shifts

    def best(self) -> Alignment:
        own, none = np.arange(len(self.b)), np.zeros(3)
        given = self._made(own, none)
        order = self._order(none)
        still = _first([given, self._made(order, none)])
        if not self.shifts:
            return still
        drifts = [none, *self._apart(own, none)[:: max(1, len(own) // 8)]]
        kept = _first([self._drifted(own, drift, False) for drift in drifts])
        if (
            kept.after < _DRIFT * still.after
        ):  # then only like atoms near to each other there may be exchanged
            return _first([kept, self._made(self._order(-kept.translation), kept.translation)])
        shifted = self._drifted(order, none, True)
        return shifted if shifted.after < _DRIFT * still.after else still

    def _drifted(self, order: Ints, drift: Floats, exchange: bool) -> Alignment:
        """Translate by the mean displacement, and permute if asked for, until nothing changes."""
        for _ in range(_STEPS):
            last = drift
            order = self._order(drift) if exchange else order
            drift = drift + self._apart(order, drift).mean(axis=0)
            if np.abs(drift - last).max() <= 1e-12 * np.abs(self.cell).max():
                break
        return self._made(order, -drift)

    def _apart(self, order: Ints, drift: Floats) -> Floats:
        return _differences(self.a, self.b[order] - drift, self.cell, self.pbc)

    def _order(self, drift: Floats) -> Ints:
        return _exchanged(
            len(self.b),
            self.groups,
            lambda rows: _squares(self.a[rows], self.b[rows] - drift, self.cell, self.pbc),
        )

    def _made(self, order: Ints, shift: Floats) -> Alignment:
        pos = self.b[order] + shift if shift.any() else self.b[order]
        before, after = (
            float(np.linalg.norm(_differences(self.a, one, self.cell, self.pbc))) for one in (self.b, pos)
        )
        return Alignment(pos, order, np.eye(3), shift, before, after)


class _Free:
    """An alignment without periodicity, by permutations and rotations about the centroid or the fixed atoms."""

    def __init__(
        self, reference: Floats, pos: Floats, kinds: Ints, groups: list[Ints], fixed: Bools, mirror: bool
    ) -> None:
        self.a, self.b, self.kinds, self.groups = reference, pos, kinds, groups
        held = np.flatnonzero(fixed)
        around = held if len(held) else np.arange(len(pos))
        self.centre_a, self.centre_b = reference[around].mean(axis=0), pos[around].mean(axis=0)
        self.held, self.mirrors = held, (False, True) if mirror and not len(held) else (False,)
        self.x, self.y = reference - self.centre_a, pos - self.centre_b
        arms = self.y[held]
        size = np.linalg.norm(arms, axis=1).max() if len(held) else 0.0
        self.axis: Floats | None = None
        self.turns = True
        if size > 1e-6:
            _, spread, axes = np.linalg.svd(arms)
            self.axis = axes[0]
            self.turns = len(spread) < 2 or spread[1] <= 1e-6 * spread[0]

    def best(self) -> Alignment:
        own = np.arange(len(self.b))
        given = self._made(own, None)
        found = [given]
        if self.turns or not len(self.held):
            found += [self._made(own, self._turn(own, mirror)) for mirror in self.mirrors]
            equal = self._equal() if self.groups and not len(self.held) else None
            if equal is not None:
                return _first([*found, equal])
            if self.groups:
                found += self._searched()
        elif self.groups:
            order = self._order(np.eye(3))
            found.append(self._made(order, None))
        return _first(found)

    def _equal(self) -> Alignment | None:
        """Return the alignment of equal structures, or None if they differ."""
        gaps = np.linalg.norm(self.b[:, None] - self.b, axis=2)[np.triu_indices(len(self.b), 1)]
        if not len(gaps) or not gaps.min() > 0:
            return None
        found = match(self.b, self.kinds, self.a, self.kinds, _EQUAL * float(gaps.min()))
        if found is None or (found.improper and True not in self.mirrors):
            return None
        # b[i] is moved to a[permutation[i]]
        return self._made(np.argsort(found.permutation), found.rotation)

    def _searched(self) -> list[Alignment]:
        """Return the nearest alignment from all starting rotations, one for each handedness."""
        found = []
        for mirror in self.mirrors:
            best, least, seen = None, math.inf, set()
            for rotation in self._starts(mirror):
                order = self._order(rotation)
                for _ in range(_STEPS):
                    if order.tobytes() in seen:
                        break
                    seen.add(order.tobytes())
                    rotation = self._turn(order, mirror)
                    square = float(((self.y[order] @ rotation.T - self.x) ** 2).sum())
                    # the first of many equal ones, as in symmetric structures, so that rounding does not choose
                    if square < least * (1.0 - 1e-9):
                        best, least = (order, rotation), square
                    order = self._order(rotation)
            if best is not None:
                found.append(self._made(*best))
        return found

    def _starts(self, mirror: bool) -> Iterator[Floats]:
        """Yield starting rotations: the identity, those that join principal axes, and the most promising of many."""
        sign = -1.0 if mirror else 1.0
        yield sign * np.eye(3)
        yield self._turn(np.arange(len(self.b)), mirror)
        n = len(self.b)
        if self.axis is not None:
            turns = _about(self.axis, np.linspace(0.0, 2.0 * np.pi, 24 + 6 * n, endpoint=False))
        else:
            frames = [np.linalg.svd(one, full_matrices=True)[2].T for one in (self.x, self.y)]
            for signs in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)):
                turned = frames[0] @ np.diag(signs) @ frames[1].T
                yield turned if np.linalg.det(turned) * sign > 0 else -turned
            # a turn counts as tried within half a distance of neighbours, of which n stand around each other
            turns = sign * even_rotations(int(np.clip(5e7 / n**2, 500, 60 * n + 500)))
        promise = np.empty(len(turns))
        step = max(1, _CHUNK // (n * n))
        for first in range(0, len(turns), step):
            promise[first : first + step] = self._promise(turns[first : first + step])
        tried = int(np.clip(8_000 // n, 24, 400))
        yield from turns[np.argsort(np.round(promise / max(promise.max(), 1e-300), 9), kind="stable")[:tried]]

    def _promise(self, turns: Floats) -> Floats:
        """Return lower bounds (k,) of the squared distance: each atom to its nearest like atom, not one to one."""
        turned = self.y @ turns.transpose(0, 2, 1)
        total = np.zeros(len(turns))
        grouped = np.concatenate(self.groups)
        rest = np.setdiff1d(np.arange(len(self.b)), grouped)
        total += ((turned[:, rest] - self.x[rest]) ** 2).sum(axis=(1, 2))
        for rows in self.groups:
            x, y = self.x[rows], turned[:, rows]
            squares = (x**2).sum(axis=1) + (y**2).sum(axis=2)[:, :, None] - 2.0 * y @ x.T
            total += np.maximum(squares.min(axis=1).sum(axis=1), squares.min(axis=2).sum(axis=1))
        return total

    def _order(self, rotation: Floats) -> Ints:
        turned = self.y @ rotation.T
        return _exchanged(len(self.b), self.groups, lambda rows: _squares(self.x[rows], turned[rows]))

    def _turn(self, order: Ints, mirror: bool) -> Floats:
        """Return the rotation that brings ``y[order]`` nearest to x."""
        return _rotation(self.x, self.y[order], self.axis, mirror)

    def _made(self, order: Ints, rotation: Floats | None) -> Alignment:
        turn = np.eye(3) if rotation is None else rotation
        if rotation is None:
            pos, shift = self.b[order], np.zeros(3)
        else:
            shift = self.centre_a - turn @ self.centre_b
            pos = (self.y @ turn.T)[order] + self.centre_a
            pos[self.held] = self.b[self.held]  # not even rounded
        before, after = (float(np.linalg.norm(one - self.a)) for one in (self.b, pos))
        return Alignment(pos, order, turn, shift, before, after)


def even_rotations(k: int) -> Floats:
    """Return ``k`` rotation matrices (k, 3, 3) spread evenly: a super-Fibonacci spiral of quaternions, not random."""
    s = np.arange(k) + 0.5
    alpha, beta = 2.0 * np.pi * s / math.sqrt(2.0), 2.0 * np.pi * s / 1.533751168755204288118041413
    low, high = np.sqrt(s / k), np.sqrt(1.0 - s / k)
    a, b, c, d = low * np.sin(alpha), low * np.cos(alpha), high * np.sin(beta), high * np.cos(beta)
    rows = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d],
    ]
    matrices: Floats = np.ascontiguousarray(np.moveaxis(np.array(rows, dtype=np.float64), 2, 0))
    return matrices


def _rotation(x: Floats, y: Floats, axis: Floats | None, mirror: bool) -> Floats:
    """Return the orthogonal matrix that brings ``y (n, 3)`` nearest to ``x``: proper, improper, or about an axis."""
    if axis is not None:
        cosine = float((x * y).sum() - ((x @ axis) * (y @ axis)).sum())
        sine = float(np.cross(y, x).sum(axis=0) @ axis)
        turn: Floats = _about(axis, np.array([math.atan2(sine, cosine)]))[0]
        return turn
    u, _, vt = np.linalg.svd(x.T @ y)
    sign = np.linalg.det(u) * np.linalg.det(vt) * (-1 if mirror else 1)
    u[:, 2] *= np.sign(sign)
    return np.asarray(u @ vt, dtype=np.float64)


def _about(axis: Floats, angles: Floats) -> Floats:
    """Return rotations (k, 3, 3) by ``angles (k,)`` about the unit vector ``axis`` (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    sine, cosine = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    return np.asarray(np.eye(3) + sine * cross + (1.0 - cosine) * (cross @ cross), dtype=np.float64)


def _exchanged(n: int, groups: list[Ints], squares: Callable[[Ints], Floats]) -> Ints:
    """Return the order (n,) with the least sum of squares that permutes atoms within ``groups`` only."""
    order = np.arange(n)
    for rows in groups:
        order[rows] = rows[_assigned(squares(rows))]
    return order


def _assigned(squares: Floats) -> Ints:
    """Return the column of each row in the one-to-one assignment of least sum."""
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(squares)[1], dtype=np.int64)


def _squares(a: Floats, b: Floats, cell: Floats | None = None, pbc: Bools | None = None) -> Floats:
    """Return squared distances (len(a), len(b)), to the nearest images in a periodic cell."""
    if cell is None or pbc is None or not pbc.any():
        return np.asarray(((a[:, None] - b) ** 2).sum(axis=2), dtype=np.float64)
    rows = max(1, _CHUNK // (32 * len(b)))
    parts = []
    for first in range(0, len(a), rows):
        some = a[first : first + rows]
        apart = _differences(np.repeat(some, len(b), axis=0), np.tile(b, (len(some), 1)), cell, pbc)
        parts.append((apart**2).sum(axis=1).reshape(len(some), len(b)))
    return np.concatenate(parts)


def _differences(a: Floats, b: Floats, cell: Floats, pbc: Bools) -> Floats:
    """Return ``b - a (n, 3)``, to the nearest image in a periodic cell."""
    space = Flat(
        torch.from_numpy(cell).expand(len(a), 3, 3),
        torch.from_numpy(np.asarray(pbc)).expand(len(a), 3),
    )
    found: Floats = space.difference(torch.from_numpy(a.copy()), torch.from_numpy(b.copy())).numpy()
    return found


def _first(found: list[Alignment]) -> Alignment:
    """Return the first alignment whose distance exceeds the least by no more than the share `_WORTH`."""
    least = min(one.after for one in found)
    scale = max(float(np.abs(found[0].pos).max()), 1.0)
    return next(one for one in found if one.after <= (1.0 + _WORTH) * least + 1e-9 * scale)
