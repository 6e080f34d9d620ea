"""Alignment of structures: against all permutations, what it must leave alone, and what holds atoms in place."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from ase.build import fcc100, molecule
from ase.cluster import Octahedron
from ase.geometry import find_mic
from numpy.typing import NDArray

from mlopt.core.minima.alignment import Alignment, align, even_rotations, nearest_order

Floats = NDArray[np.float64]


def turn(random: np.random.Generator) -> Floats:
    q, _ = np.linalg.qr(random.normal(size=(3, 3)))
    return np.asarray(q * np.sign(np.linalg.det(q)))


def apart(a: Floats, b: Floats) -> float:
    return float(np.linalg.norm(a - b))


def least_of_all(a: Floats, b: Floats, kinds: Any) -> float:
    """The least distance over all permutations of like atoms and all proper rotations, by trying every permutation."""
    a, b = a - a.mean(0), b - b.mean(0)
    orders = np.array([p for p in permutations(range(len(a))) if (kinds[list(p)] == kinds).all()])
    u, s, vt = np.linalg.svd(np.einsum("ni,knj->kij", a, b[orders]))
    s[:, 2] *= np.sign(np.linalg.det(u) * np.linalg.det(vt))
    return float(np.sqrt(max(0.0, (a**2).sum() + (b**2).sum() - 2 * s.sum(1).max())))


def consistent(found: Alignment, given: Floats) -> None:
    moved = (given @ found.rotation.T + found.translation)[found.permutation]
    assert np.allclose(found.pos, moved, atol=1e-12)
    assert found.after <= found.before * (1 + 1e-12)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7])
def test_the_least_of_all_permutations_is_found(n: int) -> None:
    random = np.random.default_rng(n)
    for trial in range(8):
        a, b = random.normal(size=(2, n, 3))
        kinds = np.arange(n) % (1 + trial % 2)
        found = align(a, b, kinds)
        consistent(found, b)
        assert found.after == pytest.approx(apart(a, found.pos), rel=1e-12)
        assert found.after <= (1 + 2e-3) * least_of_all(a, b, kinds)
        assert (kinds[found.permutation] == kinds).all()
        assert np.linalg.det(found.rotation) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [13, 38, 60])
def test_a_structure_that_was_shaken_turned_and_shuffled_is_laid_back(n: int) -> None:
    random = np.random.default_rng(n)
    a = random.normal(size=(n, 3)) * n ** (1 / 3)
    b = a + 0.1 * random.normal(size=(n, 3))
    b[0] += 1.5
    best = align(a, b, np.zeros(n), exchange=False).after
    given = (b @ turn(random).T + [1.0, 2.0, 3.0])[random.permutation(n)]
    found = align(a, given, np.zeros(n))
    consistent(found, given)
    assert found.after <= best * (1 + 1e-9)
    assert found.exchanged > n // 2 and "atoms exchanged, turned by" in found.words


def test_equal_structures_lie_on_each_other() -> None:
    random = np.random.default_rng(0)
    a = Octahedron("Ar", 4, cutoff=1, latticeconstant=1.56).positions
    b = (a @ turn(random).T + 5.0)[random.permutation(len(a))]
    assert align(a, b, np.zeros(len(a))).after < 1e-10


def test_a_mirror_image_is_another_state_unless_it_is_asked_for() -> None:
    random = np.random.default_rng(1)
    a = random.normal(size=(6, 3))
    b = (a * [1.0, 1.0, -1.0])[random.permutation(6)]
    assert align(a, b, np.zeros(6)).after > 0.1
    found = align(a, b, np.zeros(6), mirror=True)
    consistent(found, b)
    assert found.after < 1e-10 and found.mirrored and "mirrored" in found.words
    flat = a * [1.0, 1.0, 0.0]  # its own mirror image: turned over
    found = align(flat, flat * [-1.0, 1.0, 1.0], np.zeros(6))
    assert found.after < 1e-10 and not found.mirrored and found.exchanged == 0


def test_what_is_nearest_already_is_left_bit_for_bit() -> None:
    random = np.random.default_rng(2)
    a = molecule("C6H6").positions
    b = a.copy()
    b[3] += [0.05, -0.1, 0.2]
    b = align(a, b, np.arange(12), exchange=False).pos
    for given in (a, b, b + 1e-9 * random.normal(size=b.shape)):
        found = align(a, given, molecule("C6H6").numbers)
        assert np.array_equal(found.pos, given) and not found.moved and found.words == ""
        assert (found.rotation == np.eye(3)).all()


def test_order_is_kept_where_it_is_meant() -> None:
    random = np.random.default_rng(3)
    a = random.normal(size=(5, 3))
    b = (a @ turn(random).T)[[1, 0, 2, 3, 4]]
    found = align(a, b, np.zeros(5), exchange=False)
    assert found.exchanged == 0 and found.after > 0.1
    consistent(found, b)


def test_one_atom_and_atoms_on_one_spot() -> None:
    one = align(np.zeros((1, 3)), np.ones((1, 3)), np.zeros(1))
    assert one.after < 1e-12 and one.words.startswith("shifted by 1.73")
    both = align(np.zeros((2, 3)), np.ones((2, 3)), np.zeros(2))
    assert both.after < 1e-12


# -- fixed atoms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [1, 2, 3, 4], ids=["a point", "a line", "a plane", "more"])
def test_fixed_atoms_keep_their_places(held: int) -> None:
    """What may turn is turned back: about one atom, about the line through two; nothing where three are fixed."""
    random = np.random.default_rng(held)
    a = random.normal(size=(9, 3))
    fixed = np.arange(9) < held
    centre = a[:held].mean(0)
    if held == 1:
        rotation = turn(random)
    elif held == 2:
        axis = (a[1] - a[0]) / np.linalg.norm(a[1] - a[0])
        cross = np.cross(np.eye(3), axis).T
        rotation = np.eye(3) + np.sin(2.0) * cross + (1 - np.cos(2.0)) * cross @ cross
    else:
        rotation = np.eye(3)
    b = (a - centre) @ rotation.T + centre
    b[:held] = a[:held]
    b[[7, 8]] = b[[8, 7]]
    found = align(a, b, np.zeros(9), fixed=fixed)
    assert np.array_equal(found.pos[:held], a[:held])
    assert found.after < 1e-7
    assert (found.permutation[:held] == np.arange(held)).all() and found.exchanged == 2
    assert found.words.startswith("2 atoms exchanged" + (", turned by" if held < 3 else ""))


# -- periodic structures -----------------------------------------------------------------------------------------------


def slab() -> Any:
    return fcc100("Al", (3, 3, 3), vacuum=6.0, periodic=True)


def test_exchanges_and_images_of_periodic_atoms() -> None:
    random = np.random.default_rng(5)
    atoms = slab()
    a, cell, pbc = atoms.positions, atoms.cell.array, atoms.pbc
    fixed = a[:, 2] < a[:, 2].mean() - 0.1
    free = np.flatnonzero(~fixed)
    order = np.arange(len(a))
    order[free] = random.permutation(free)
    b = (a + 0.1 * random.normal(size=a.shape) * ~fixed[:, None])[order]
    b += random.integers(-2, 3, size=(len(a), 3)) @ cell  # other images
    found = align(a, b, atoms.numbers, cell=cell, pbc=pbc, fixed=fixed)
    assert (order[found.permutation] == np.arange(len(a))).all()
    assert found.after == pytest.approx(np.linalg.norm(find_mic(found.pos - a, cell, pbc)[0]))
    assert np.array_equal(found.pos, b[found.permutation])  # never shifted where an atom is fixed
    again = align(a, found.pos, atoms.numbers, cell=cell, pbc=pbc, fixed=fixed)
    assert np.array_equal(again.pos, found.pos) and not again.moved


def test_a_drift_is_undone_and_a_hop_is_not() -> None:
    """A vacancy that hops is a shift by a lattice vector away from where it was; that is the end of the hop."""
    atoms = slab()
    del atoms[13]
    a, cell, pbc = atoms.positions, atoms.cell.array, atoms.pbc
    b = a.copy()
    hop = np.array([2.863782463805506, 0.0, 0.0])
    b[12] += hop
    found = align(a, b, atoms.numbers, cell=cell, pbc=pbc)
    assert np.array_equal(found.pos, b)
    drift = np.array([3.1, -1.2, 0.7])
    shifted = align(a, b + drift, atoms.numbers, cell=cell, pbc=pbc)
    assert shifted.after == pytest.approx(np.linalg.norm(hop) * np.sqrt(1 - 1 / len(a)), rel=1e-6)
    assert shifted.exchanged == 0 and "shifted by" in shifted.words
    order = np.random.default_rng(0).permutation(len(a))
    nearby = align(a, (b + 0.2 * drift)[order], atoms.numbers, cell=cell, pbc=pbc)
    assert nearby.after == pytest.approx(shifted.after, rel=1e-6)


def test_kinds_in_another_order() -> None:
    random = np.random.default_rng(6)
    kinds, a = np.array([8, 1, 1, 6, 1]), random.normal(size=(5, 3))
    mixed = random.permutation(5)
    order = nearest_order(a, kinds, a[mixed] + 0.01, kinds[mixed])
    assert (mixed[order] == np.arange(5)).all()


def test_even_rotations_leave_no_gap() -> None:
    turns = even_rotations(500)
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3)) and np.allclose(np.linalg.det(turns), 1.0)
    random = np.random.default_rng(7)
    for _ in range(100):
        trace = np.einsum("kij,ij->k", turns, turn(random))
        assert np.degrees(np.arccos(np.clip(0.5 * (trace.max() - 1), -1, 1))) < 32.0
