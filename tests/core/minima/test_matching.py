"""Matching: what must be found the same, what must not, and what the returned alignment promises."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mlopt.core.errors import InputError
from mlopt.core.minima.matching import Match, match, same_structure, sorted_distances

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class Example:
    energy: float
    pos: Floats
    z: Ints
    cell: Floats = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(3, dtype=bool))


def amorphous(n: int, seed: int, shortest: float = 0.9) -> Floats:
    rng = np.random.default_rng(seed)
    pos: list[Floats] = []
    while len(pos) < n:
        trial = rng.uniform(-1, 1, 3) * 0.8 * n ** (1 / 3)
        if all(np.linalg.norm(trial - known) > shortest for known in pos):
            pos.append(trial)
    return np.array(pos)


def structures() -> dict[str, tuple[Floats, Ints]]:
    from ase.build import molecule
    from ase.cluster import Decahedron, Icosahedron, Octahedron

    found: dict[str, tuple[Floats, Ints]] = {}
    clusters = [Icosahedron("Ar", 2), Icosahedron("Ar", 3), Octahedron("Ar", 2), Octahedron("Ar", 4, 1)]  # type: ignore[no-untyped-call]
    for atoms in [*clusters, Decahedron("Ar", 2, 2, 1)]:  # type: ignore[no-untyped-call]
        found[f"Ar{len(atoms)}"] = atoms.positions / 3.8, atoms.numbers
    for name in ("CH4", "C6H6", "CO2", "N2", "HCN", "H", "C60", "H2O2"):
        found[name] = molecule(name).positions, molecule(name).numbers  # type: ignore[no-untyped-call]
    for n in (3, 5, 17, 38):
        found[f"amorphous{n}"] = amorphous(n, n), np.random.default_rng(n).choice([18, 36], n)
    found["dimer"] = np.array([[0.0, 0, 0], [0, 0, 1]]), np.array([18, 18])
    return found


STRUCTURES = structures()


def moved(pos: Floats, z: Ints, seed: int, mirror: bool, noise: float) -> tuple[Floats, Ints, Ints]:
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(None, rng).as_matrix() * (-1 if mirror else 1)
    order = rng.permutation(len(pos))
    turned = pos @ rotation.T + 10 * rng.normal(size=3) + noise * rng.uniform(-1, 1, size=pos.shape)
    return turned[order], z[order], order


def check(found: Match, a: Floats, z_a: Ints, b: Floats, z_b: Ints) -> None:
    """Everything that `Match` promises, recomputed."""
    off = np.linalg.norm(a @ found.rotation.T + found.translation - b[found.permutation], axis=1)
    assert np.array_equal(np.sort(found.permutation), np.arange(len(a)))
    assert np.array_equal(z_b[found.permutation], z_a)
    np.testing.assert_allclose(found.rotation @ found.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(found.rotation) == pytest.approx(-1 if found.improper else 1)
    assert off.max() == pytest.approx(found.max_deviation, abs=1e-12)
    assert np.sqrt(np.mean(off**2)) == pytest.approx(found.rmsd, abs=1e-12)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_moved_copy_matches(name: str, mirror: bool) -> None:
    pos, z = STRUCTURES[name]
    # Library coordinates of C60 are icosahedral only to 3e-4: a rotation may be taken where an inversion is exact.
    asymmetry = 5e-4 if name == "C60" else 1e-6
    for seed, noise in enumerate((0.0, 1e-9, 1e-5, 5e-3)):
        other, other_z, _ = moved(pos, z, seed, mirror, noise)
        found = match(pos, z, other, other_z, tolerance=0.02)
        assert found is not None, (seed, noise)
        check(found, pos, z, other, other_z)
        assert found.max_deviation <= 2 * np.sqrt(3) * noise + asymmetry
        backwards = match(other, other_z, pos, z, tolerance=0.02)
        assert backwards is not None and backwards.improper == found.improper


@pytest.mark.parametrize(
    ("name", "chiral"), [("H2O2", True), ("amorphous38", True), ("Ar38", False), ("C6H6", False)]
)
def test_improper_is_reported_only_where_no_rotation_does(name: str, chiral: bool) -> None:
    pos, z = STRUCTURES[name]
    mirrored, mirrored_z, _ = moved(pos, z, 4, True, 0.0)
    found = match(pos, z, mirrored, mirrored_z, 0.01)
    assert found is not None and found.improper is chiral


def test_the_permutation_is_recovered_where_it_is_unique() -> None:
    pos, z = STRUCTURES["amorphous38"]
    other, other_z, order = moved(pos, z, 8, False, 1e-6)
    found = match(pos, z, other, other_z, 0.01)
    assert found is not None
    assert np.array_equal(order[found.permutation], np.arange(len(pos)))


@pytest.mark.parametrize("name", [name for name, (pos, _) in STRUCTURES.items() if len(pos) > 1])
def test_one_displaced_atom_is_another_structure(name: str) -> None:
    pos, z = STRUCTURES[name]
    changed = pos.copy()
    far = int(np.argmax(np.linalg.norm(pos - pos.mean(axis=0), axis=1)))
    changed[far] += 0.3 * (pos[far] - pos.mean(axis=0)) / np.linalg.norm(pos[far] - pos.mean(axis=0))
    other, other_z, _ = moved(changed, z, 2, False, 0.0)
    assert match(pos, z, other, other_z, 0.02) is None


def test_the_tolerance_is_the_largest_displacement() -> None:
    pos, z = STRUCTURES["amorphous17"]
    rng = np.random.default_rng(1)
    for _ in range(20):
        other, other_z, _ = moved(pos, z, 3, False, 0.0)
        other += 0.05 * rng.normal(size=other.shape)
        wide = match(pos, z, other, other_z, 0.4)
        assert wide is not None
        found = match(pos, z, other, other_z, wide.max_deviation * 1.001)
        assert found is not None and found.rmsd == pytest.approx(wide.rmsd)
        assert match(pos, z, other, other_z, wide.max_deviation * 0.999) is None


def test_same_distances_different_structure() -> None:
    """Two homometric sets: the sorted distances are equal, so only the exact match can tell them apart."""
    first, second = (
        np.array([[x, 0.0, 0.0] for x in points]) for points in ([0, 1, 4, 10, 12, 17], [0, 1, 8, 11, 13, 17])
    )
    z = np.full(6, 18)
    np.testing.assert_allclose(sorted_distances(first, z), sorted_distances(second, z))
    assert match(first, z, second, z, 0.05) is None
    assert not same_structure(Example(0.0, first, z), Example(0.0, second, z), 1e-3, 0.05)


def test_swapped_species_are_another_structure() -> None:
    from ase.cluster import Icosahedron

    pos = Icosahedron("Ar", 2).positions / 3.8  # type: ignore[no-untyped-call]
    centre = int(np.argmin(np.linalg.norm(pos - pos.mean(axis=0), axis=1)))
    inside, outside = np.full(13, 18), np.full(13, 18)
    inside[centre], outside[(centre + 1) % 13] = 36, 36
    assert np.abs(sorted_distances(pos, inside) - sorted_distances(pos, outside)).max() > 0.1
    assert match(pos, inside, pos, outside, 0.05) is None
    elsewhere = np.full(13, 18)
    elsewhere[(centre + 5) % 13] = 36
    assert match(pos, outside, pos, elsewhere, 0.05) is not None
    assert match(pos, inside, pos, np.full(13, 18), 0.05) is None
    assert match(pos, inside, pos[:12], inside[:12], 0.05) is None


def test_sorted_distances_are_invariant_and_match_a_plain_loop() -> None:
    pos, z = STRUCTURES["amorphous17"]
    other, other_z, _ = moved(pos, z, 6, True, 0.0)
    np.testing.assert_allclose(sorted_distances(pos, z), sorted_distances(other, other_z), atol=1e-10)
    plain = sorted(
        (*sorted((int(z[i]), int(z[j]))), float(np.linalg.norm(pos[i] - pos[j])))
        for i in range(17)
        for j in range(i)
    )
    np.testing.assert_allclose(sorted_distances(pos, z), [row[2] for row in plain])


def test_same_structure_needs_the_energy_too() -> None:
    pos, z = STRUCTURES["Ar38"]
    other, other_z, _ = moved(pos, z, 1, True, 1e-4)
    assert same_structure(Example(-1.0, pos, z), Example(-1.0005, other, other_z), 1e-3, 0.02)
    assert not same_structure(Example(-1.0, pos, z), Example(-1.0015, other, other_z), 1e-3, 0.02)
    assert not same_structure(Example(float("nan"), pos, z), Example(-1.0, pos, z), 1e-3, 0.02)


def test_periodic_structures_compare_by_minimum_image_distances() -> None:
    cell = np.array([[4.0, 0, 0], [1.0, 4.5, 0], [0.5, 0.3, 5.0]])
    z = np.array([14, 14, 8, 8])
    fractions = np.random.default_rng(0).uniform(size=(4, 3))
    pbc = np.ones(3, dtype=bool)
    a = Example(0.0, fractions @ cell, z, cell, pbc)
    rotation = Rotation.random(None, np.random.default_rng(5)).as_matrix()
    # The same crystal: another origin, atoms in other images, another choice of lattice vectors, turned.
    shifted = fractions + np.array([0.3, 0.6, 0.1]) + np.random.default_rng(1).integers(-2, 3, size=(4, 3))
    other_cell = np.array([[1, 0, 0], [1, 1, 0], [0, -2, 1]]) @ cell @ rotation.T
    b = Example(0.0, (shifted @ cell @ rotation.T)[[1, 0, 3, 2]], z, other_cell, pbc)
    assert same_structure(a, b, 1e-6, 1e-6)
    assert not same_structure(a, Example(0.0, b.pos, z), 1e-6, 1e-6)
    stretched = Example(0.0, fractions @ (cell * 1.05), z, cell * 1.05, pbc)
    assert not same_structure(a, stretched, 1e-6, 1e-3)
    one = np.zeros((1, 3))
    cubic, rhombic = np.eye(3) * 3.0, np.array([[3.0, 0, 0], [1.5, 1.5 * 3**0.5, 0], [0, 0, 3.0]])
    assert not same_structure(
        Example(0.0, one, z[:1], cubic, pbc), Example(0.0, one, z[:1], rhombic, pbc), 1e-6, 1e-3
    )


def test_bad_input_is_named() -> None:
    pos, z = STRUCTURES["CH4"]
    with pytest.raises(InputError, match=r"match\(tolerance=...\) must be a positive length, got -1"):
        match(pos, z, pos, z, -1)
    with pytest.raises(InputError, match=r"pos must have shape \(n, 3\) with n >= 1, got \(0, 3\)"):
        match(np.zeros((0, 3)), [], pos, z, 0.1)
    with pytest.raises(InputError, match=r"z must be 5 integers.*float64"):
        match(pos, z, pos, z.astype(float), 0.1)
    with pytest.raises(InputError, match="energy_window"):
        same_structure(Example(0.0, pos, z), Example(0.0, pos, z), -1.0, 0.1)
