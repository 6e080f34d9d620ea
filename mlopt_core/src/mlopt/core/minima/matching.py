"""Comparison of structures up to permutation of like atoms, rotation, inversion and translation.

There are three stages, each costlier and stricter than the one before. The energies must lie within a window
(`same_structure`). The sorted distances must agree (`sorted_distances`). Finally an alignment must bring every atom
within ``tolerance`` of a like atom of the other structure (`match`).

How `match` works. Both structures are centred on their centroid, which is invariant under permutations of like atoms.
Two anchor atoms of ``a`` and the centroid define a frame. A pair of atoms of ``b`` with the same species and distances,
within the tolerance, defines another frame, in both handednesses. Each pair of frames is one candidate rotation. Atoms
are assigned to their nearest like atom (Hungarian where that is not one to one). The rotation is refined by Kabsch's
least squares (Acta Cryst. A32, 922, 1976), and candidates that deviate too much are dropped. The anchors are chosen to
have few possible images, so the work grows with the order of the point group, not with n^2.

Invariant: pruning never loses a match. If every atom deviates by at most t, distances to the centroid differ by at most
t. Interatomic distances, sorted or not, differ by at most 2t. These are the thresholds used.

Periodic structures are compared by energy, lattice lengths and sorted minimum-image distances only. There is no exact
match for them, and a supercell is not recognised as its primitive cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlopt.core.errors import InputError
from mlopt.core.geometry.lattice import reduced_vectors
from mlopt.core.geometry.minimum_image import shortest_vectors
from mlopt.core.quoting import quoted

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CHUNK = 2_000_000  # distances held at once while candidates are tested: about 16 MB
_PROBES = 4  # atoms tested first; wrong candidates rarely survive them


class Structure(Protocol):
    """The input of `same_structure`: energy, pos (n, 3), z (n,), cell (3, 3), pbc (3,)."""

    @property
    def energy(self) -> float: ...
    @property
    def pos(self) -> Floats: ...
    @property
    def z(self) -> Ints: ...
    @property
    def cell(self) -> Floats: ...
    @property
    def pbc(self) -> NDArray[np.bool_]: ...


@dataclass(frozen=True, eq=False)
class Match:
    """``pos_b[permutation]`` is ``pos_a @ rotation.T + translation``, within ``max_deviation`` for every atom.

    improper: True only where no proper rotation matches; ``b`` is then the mirror image of ``a``.
    """

    permutation: Ints  # (n,)
    rotation: Floats  # (3, 3)
    translation: Floats  # (3,)
    rmsd: float
    max_deviation: float
    improper: bool


@dataclass(frozen=True, eq=False)
class Alignments:
    """All k alignments found of one centred structure with another.

    anchors: two atoms whose images, together with ``improper``, distinguish the alignments; equal for a linear
        structure.
    """

    rotation: Floats  # (k, 3, 3)
    permutation: Ints  # (k, n)
    max_deviation: Floats  # (k,)
    rmsd: Floats  # (k,)
    improper: bool
    anchors: tuple[int, int]


def checked(pos: ArrayLike, z: ArrayLike, where: str) -> tuple[Floats, Ints]:
    """Return ``pos (n, 3)`` float64 and ``z (n,)`` int64.

    Raises:
        InputError: they are no finite structure.
    """
    positions = np.asarray(pos, dtype=np.float64)
    numbers = np.asarray(z)
    if positions.ndim != 2 or positions.shape[1] != 3 or len(positions) == 0:
        raise InputError(f"{where}: pos must have shape (n, 3) with n >= 1, got {positions.shape}.")
    if numbers.shape != (len(positions),) or not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(
            f"{where}: z must be {len(positions)} integers, one per row of pos, "
            f"got shape {numbers.shape} of {numbers.dtype}."
        )
    if not np.isfinite(positions).all():
        row = int(np.argmin(np.isfinite(positions).all(axis=1)))
        raise InputError(
            f"{where}: pos of atom {row} is not finite; drop this structure before comparing it."
        )
    return positions, numbers.astype(np.int64)


def checked_tolerance(value: float, where: str) -> float:
    """Return ``value`` as a float.

    Raises:
        InputError: it is not positive and finite.
    """
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"{where} must be a positive length, got {quoted(value)}.")
    return float(value)


def sorted_distances(
    pos: ArrayLike, z: ArrayLike, cell: ArrayLike | None = None, pbc: ArrayLike | None = None
) -> Floats:
    """Return the n(n-1)/2 interatomic distances, sorted within each pair of species, pairs in order of z.

    Two arrays are comparable entry by entry when the compositions are equal; swapping two species changes the array.
    With any ``pbc`` set these are minimum-image distances.
    """
    positions, numbers = checked(pos, z, "sorted_distances")
    first, second = np.triu_indices(len(positions), 1)
    vectors = positions[second] - positions[first]
    if cell is not None and pbc is not None and np.any(pbc):
        vectors = shortest_vectors(vectors, np.asarray(cell, np.float64), np.asarray(pbc, bool))
    distances = np.linalg.norm(vectors, axis=1)
    low, high = np.minimum(numbers[first], numbers[second]), np.maximum(numbers[first], numbers[second])
    return np.asarray(distances[np.lexsort((distances, high, low))], dtype=np.float64)


def match(
    pos_a: ArrayLike, z_a: ArrayLike, pos_b: ArrayLike, z_b: ArrayLike, tolerance: float
) -> Match | None:
    """Return the best alignment of two finite structures, or None if some atom is off by more than ``tolerance``.

    A proper rotation is preferred to an improper one; among those, the smallest rmsd. Deviations are those of the
    least-squares alignment. ``tolerance`` should be well below half of the shortest interatomic distance.
    """
    tol = checked_tolerance(tolerance, "match(tolerance=...)")
    a, numbers_a = checked(pos_a, z_a, "match(pos_a, z_a)")
    b, numbers_b = checked(pos_b, z_b, "match(pos_b, z_b)")
    if not np.array_equal(np.sort(numbers_a), np.sort(numbers_b)):
        return None
    centre_a, centre_b = a.mean(axis=0), b.mean(axis=0)
    a, b = a - centre_a, b - centre_b
    if not _same_radii(a, numbers_a, b, numbers_b, tol):
        return None
    for found in alignments(a, numbers_a, b, numbers_b, tol):
        if len(found.rmsd):
            # In a symmetric structure many alignments tie up to rounding; the first of them is a stable choice.
            best = int(np.argmax(found.rmsd <= found.rmsd.min() + 1e-6 * tol))
            rotation = found.rotation[best]
            return Match(
                permutation=found.permutation[best],
                rotation=rotation,
                translation=centre_b - rotation @ centre_a,
                rmsd=float(found.rmsd[best]),
                max_deviation=float(found.max_deviation[best]),
                improper=found.improper,
            )
    return None


def same_structure(a: Structure, b: Structure, energy_window: float, distance_tolerance: float) -> bool:
    """Return whether ``a`` and ``b`` are one minimum: compare energy, then sorted distances, then match exactly.

    Mirror images count as the same. Periodic structures skip the exact match, see the module.

    energy_window: in the unit of the energies.
    distance_tolerance: largest displacement of an atom, in the unit of the positions.
    """
    if not energy_window >= 0:
        raise InputError(
            f"same_structure(energy_window=...) must not be negative, got {quoted(energy_window)}."
        )
    tol = checked_tolerance(distance_tolerance, "same_structure(distance_tolerance=...)")
    if not abs(a.energy - b.energy) <= energy_window:
        return False
    if not np.array_equal(np.sort(a.z), np.sort(b.z)) or not np.array_equal(np.sort(a.pbc), np.sort(b.pbc)):
        return False
    distances_a, distances_b = (sorted_distances(s.pos, s.z, s.cell, s.pbc) for s in (a, b))
    if np.any(np.abs(distances_a - distances_b) > 2 * tol):
        return False
    if np.any(a.pbc):
        lengths = _lattice_lengths(a.cell, a.pbc) - _lattice_lengths(b.cell, b.pbc)
        return bool(np.all(np.abs(lengths) <= 2 * tol))
    return match(a.pos, a.z, b.pos, b.z, tol) is not None


def _lattice_lengths(cell: Floats, pbc: NDArray[np.bool_]) -> Floats:
    """Return the lengths of the shortest independent lattice vectors, sorted, and the k-th root of their volume."""
    reduced = reduced_vectors(cell, pbc)
    volume = np.sqrt(max(np.linalg.det(reduced @ reduced.T), 0.0))
    return np.append(np.sort(np.linalg.norm(reduced, axis=1)), volume ** (1 / len(reduced)))


def _same_radii(a: Floats, z_a: Ints, b: Floats, z_b: Ints, tol: float) -> bool:
    radius_a, radius_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    order_a, order_b = np.lexsort((radius_a, z_a)), np.lexsort((radius_b, z_b))
    return bool(np.all(np.abs(radius_a[order_a] - radius_b[order_b]) <= tol))


def alignments(a: Floats, z_a: Ints, b: Floats, z_b: Ints, tolerance: float) -> Iterator[Alignments]:
    """Yield all proper, then all improper alignments of two *centred* structures of equal composition.

    The improper ones are computed only if asked for. With ``a is b`` these are the symmetry operations.
    """
    i, j, pairs, slack = _anchors(a, z_a, b, z_b, tolerance)
    frame_a = _frames(a[[i]], a[[j]])
    frames_b = _frames(b[pairs[:, 0]], b[pairs[:, 1]])
    for improper in (False, True):
        handed = frames_b.copy()
        handed[:, :, 2] *= -1 if improper else 1
        rotation = handed @ frame_a.transpose(0, 2, 1)
        rotation = rotation[_plausible(rotation, a, z_a, b, z_b, slack * tolerance)]
        permutation = _assign(rotation, a, z_a, b, z_b)
        # The first assignment used a frame of two atoms; the second uses the least-squares frame of all of them.
        for _ in range(2):
            rotation = _kabsch(a, b[permutation], improper)
            permutation = _assign(rotation, a, z_a, b, z_b)
        rotation = _kabsch(a, b[permutation], improper)
        square = np.sum((a @ rotation.transpose(0, 2, 1) - b[permutation]) ** 2, axis=2)
        deviation = np.sqrt(square.max(axis=1))
        # Two candidates that differ by less than the tolerance can refine to one alignment: keep it once.
        order = np.argsort(deviation, kind="stable")
        keys = permutation[:, i] * len(a) + permutation[:, j]
        keep = np.sort(order[np.unique(keys[order], return_index=True)[1]])
        keep = keep[deviation[keep] <= tolerance]
        rmsd = np.sqrt(square.mean(axis=1))
        yield Alignments(rotation[keep], permutation[keep], deviation[keep], rmsd[keep], improper, (i, j))


def _anchors(a: Floats, z_a: Ints, b: Floats, z_b: Ints, tol: float) -> tuple[int, int, Ints, float]:
    """Return anchors i, j of ``a``, their possible images (m, 2) in ``b``, and the error they may leave, in ``tol``.

    Anchors far from the centre and from each other's axis keep that error small; few images keep the work small.
    """
    radius_a, radius_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    reach = float(radius_a.max())
    if reach <= tol:  # a single atom, or atoms that the tolerance cannot tell apart: any orientation will do
        return 0, 0, np.zeros((1, 2), dtype=np.int64), 4.0
    possible = (z_a[:, None] == z_b) & (np.abs(radius_a[:, None] - radius_b) <= tol)
    images = possible.sum(axis=1).astype(np.float64)
    i = int(np.argmin(np.where(radius_a >= 0.5 * reach, images, np.inf)))
    first = np.flatnonzero(possible[i])
    axis = a[i] / radius_a[i]
    off_axis = np.linalg.norm(a - np.outer(a @ axis, axis), axis=1)
    spread = float(off_axis.max())
    if spread <= tol:  # linear: the azimuth is free
        return i, i, np.stack([first, first], axis=1), 4.0 + 2 * reach / radius_a[i]
    to_i = np.linalg.norm(a - a[i], axis=1)
    to_first = np.linalg.norm(b[first][:, None] - b, axis=2)
    allowed = possible[:, None, :] & (np.abs(to_i[:, None, None] - to_first) <= 2 * tol)
    count = allowed.sum(axis=(1, 2)).astype(np.float64)
    j = int(np.argmin(np.where(off_axis >= 0.5 * spread, count, np.inf)))
    rows, second = np.nonzero(allowed[j])
    pairs = np.stack([first[rows], second], axis=1)
    slack = 1.0 + 2 * reach / float(radius_a[i]) + 2 * reach / float(off_axis[j])
    return i, j, pairs, slack


def _frames(first: Floats, second: Floats) -> Floats:
    """Return right-handed frames (k, 3, 3), axes as columns: along ``first``, towards ``second``, across.

    Where the two are parallel the second axis is arbitrary.
    """
    axis = first / np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-300)
    axis[np.linalg.norm(axis, axis=1) < 0.5] = (1.0, 0.0, 0.0)
    side = second - np.sum(second * axis, axis=1, keepdims=True) * axis
    parallel = np.linalg.norm(side, axis=1) <= 1e-9 * np.linalg.norm(second, axis=1)
    helper = np.eye(3)[np.argmin(np.abs(axis), axis=1)]
    side[parallel] = (helper - np.sum(helper * axis, axis=1, keepdims=True) * axis)[parallel]
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return np.stack([axis, side, np.cross(axis, side)], axis=2)


def _square_distances(
    rotation: Floats, a: Floats, z_a: Ints, b: Floats, z_b: Ints
) -> Iterator[tuple[int, Floats]]:
    """Yield (start, squared distances (k', len(a), len(b)) between rotated ``a`` and ``b``), a chunk at a time."""
    unlike = z_a[:, None] != z_b
    square = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1)
    size = max(1, _CHUNK // (len(a) * len(b)))
    for start in range(0, len(rotation), size):
        turned = a @ rotation[start : start + size].transpose(0, 2, 1)
        distances = square - 2 * turned @ b.T
        distances[:, unlike] = np.inf
        yield start, distances


def _plausible(
    rotation: Floats, a: Floats, z_a: Ints, b: Floats, z_b: Ints, limit: float
) -> NDArray[np.bool_]:
    """Return which rotations bring every atom of ``a`` within ``limit`` of a like atom of ``b``: (k,) bool."""
    alive = np.ones(len(rotation), dtype=bool)
    # The expanded square cancels digits; never let that reject an exact alignment.
    bound = limit**2 + 1e-12 * float(np.sum(a**2, axis=1).max())
    probes = np.argsort(-np.sum(a**2, axis=1), kind="stable")[:_PROBES]
    for atoms in (probes, np.arange(len(a))):
        left = np.flatnonzero(alive)
        for start, distances in _square_distances(rotation[left], a[atoms], z_a[atoms], b, z_b):
            near = (distances.min(axis=2) <= bound).all(axis=1)
            alive[left[start : start + len(near)]] = near
    return alive


def _assign(rotation: Floats, a: Floats, z_a: Ints, b: Floats, z_b: Ints) -> Ints:
    """Assign to each atom of ``a`` a like atom of ``b``, one to one, for each rotation: (k, n)."""
    permutation = np.empty((len(rotation), len(a)), dtype=np.int64)
    for start, distances in _square_distances(rotation, a, z_a, b, z_b):
        nearest = distances.argmin(axis=2)
        one_to_one = (np.sort(nearest, axis=1) == np.arange(len(a))).all(axis=1)
        for row in np.flatnonzero(~one_to_one):
            from scipy.optimize import linear_sum_assignment

            # Unlike atoms cost more than any assignment of like ones; infinities would be refused.
            cost = distances[row]
            like = np.isfinite(cost)
            cost = np.where(like, cost, (1 + np.abs(cost[like]).max()) * 2 * len(a))
            nearest[row] = linear_sum_assignment(cost)[1]
        permutation[start : start + len(nearest)] = nearest
    return permutation


def _kabsch(a: Floats, images: Floats, improper: bool) -> Floats:
    """Return the orthogonal matrices (k, 3, 3) of the wanted handedness that best turn ``a`` into images (k, n, 3)."""
    u, _, vt = np.linalg.svd(images.transpose(0, 2, 1) @ a)
    sign = np.linalg.det(u) * np.linalg.det(vt) * (-1 if improper else 1)
    u[:, :, 2] *= np.sign(sign)[:, None]
    return np.asarray(u @ vt, dtype=np.float64)
