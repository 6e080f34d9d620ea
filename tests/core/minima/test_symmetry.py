"""Point groups: every kind built from its generators, ideal clusters, molecules, and the table of LJ minima."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from mlopt.core.errors import InputError
from mlopt.core.minima.symmetry import PointGroup, point_group

Floats = NDArray[np.float64]

INVERSION = -np.eye(3)
SIGMA_H = np.diag([1.0, 1.0, -1.0])
SIGMA_V = np.diag([1.0, -1.0, 1.0])
C2_X = np.diag([1.0, -1.0, -1.0])
# Point groups of the Lennard-Jones global minima, Cambridge Cluster Database (Wales, Doye et al.).
LJ_GROUPS = dict(
    zip(
        range(2, 16),
        "D*h D3h Td D3h Oh D5h Cs C2v C3v C2v C5v Ih C3v C2v".split(),
        strict=True,
    )
)


def turn(degrees: float, axis: tuple[float, float, float] = (0, 0, 1)) -> Floats:
    unit = np.array(axis) / np.linalg.norm(axis)
    return np.asarray(Rotation.from_rotvec(np.radians(degrees) * unit).as_matrix())


def sigma_d(n: int) -> Floats:
    """The mirror through z that halves the angle between the x axis and its neighbour C2 axis of D_n."""
    half = turn(90.0 / n)
    return half @ SIGMA_V @ half.T


GOLDEN = (1 + 5**0.5) / 2
TETRAHEDRAL = [turn(180), turn(120, (1, 1, 1))]
OCTAHEDRAL = [turn(90), turn(120, (1, 1, 1))]
ICOSAHEDRAL = [*TETRAHEDRAL, turn(72, (0, 1, GOLDEN))]
GENERATORS: dict[str, tuple[int, list[Floats]]] = {
    "C1": (1, []),
    "Cs": (2, [SIGMA_H]),
    "Ci": (2, [INVERSION]),
    "T": (12, TETRAHEDRAL),
    "Td": (24, [*TETRAHEDRAL, turn(90) @ SIGMA_H]),
    "Th": (24, [*TETRAHEDRAL, INVERSION]),
    "O": (24, OCTAHEDRAL),
    "Oh": (48, [*OCTAHEDRAL, INVERSION]),
    "I": (60, ICOSAHEDRAL),
    "Ih": (120, [*ICOSAHEDRAL, INVERSION]),
}
for n in range(2, 8):
    rotation = turn(360 / n)
    GENERATORS |= {
        f"C{n}": (n, [rotation]),
        f"C{n}v": (2 * n, [rotation, SIGMA_V]),
        f"C{n}h": (2 * n, [rotation, SIGMA_H]),
        f"S{2 * n}": (2 * n, [turn(180 / n) @ SIGMA_H] + ([INVERSION] if n % 2 else [])),
        f"D{n}": (2 * n, [rotation, C2_X]),
        f"D{n}h": (4 * n, [rotation, C2_X, SIGMA_H]),
        f"D{n}d": (4 * n, [rotation, C2_X, sigma_d(n)]),
    }


def generated(generators: list[Floats]) -> Floats:
    group = [np.eye(3)]
    for element in group:
        for generator in generators:
            product = element @ generator
            if not any(np.allclose(product, known, atol=1e-8) for known in group):
                group.append(product)
    return np.array(group)


def group_orbits(group: Floats, seed: int) -> Floats:
    return np.concatenate([group @ point for point in 4 * np.random.default_rng(seed).normal(size=(4, 3))])


def shortest_distance(pos: Floats) -> float:
    first, second = np.triu_indices(len(pos), 1)
    return float(np.linalg.norm(pos[first] - pos[second], axis=1).min())


def disturbed(pos: Floats, seed: int, noise: float = 1e-5) -> Floats:
    rng = np.random.default_rng(seed)
    turned = pos @ Rotation.random(None, rng).as_matrix().T + rng.normal(size=3)
    return np.asarray(turned + noise * rng.normal(size=pos.shape))


@pytest.mark.parametrize(
    "symbol", [pytest.param(one, marks=pytest.mark.slow) if one == "Ih" else one for one in GENERATORS]
)
def test_orbits_of_generic_points_have_exactly_the_group_that_made_them(symbol: str) -> None:
    order, generators = GENERATORS[symbol]
    group = generated(generators)
    assert len(group) == order, "the test's own generators are wrong"
    pos = next(pos for pos in map(group_orbits, [group] * 99, range(99)) if shortest_distance(pos) > 0.1)
    z = np.repeat([6, 7, 8, 9], order)
    rng = np.random.default_rng(3)
    shuffled = rng.permutation(len(pos))
    assert point_group(disturbed(pos, 1)[shuffled], z[shuffled]) == PointGroup(symbol, order)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("H", PointGroup("K", None)),
        ("N2", PointGroup("D*h", None)),
        ("CO2", PointGroup("D*h", None)),
        ("HCN", PointGroup("C*v", None)),
        ("CH4", PointGroup("Td", 24)),
        ("H2O", PointGroup("C2v", 4)),
        ("NH3", PointGroup("C3v", 6)),
        ("C2H6", PointGroup("D3d", 12)),
        ("C6H6", PointGroup("D6h", 24)),
        ("C2H4", PointGroup("D2h", 8)),
        ("H2O2", PointGroup("C2", 2)),
        ("C3H4_D2d", PointGroup("D2d", 8)),
        ("trans-butane", PointGroup("C2h", 4)),
        ("CH3OH", PointGroup("Cs", 2)),
        ("C60", PointGroup("Ih", 120)),
    ],
)
def test_molecules(name: str, expected: PointGroup) -> None:
    from ase.build import molecule

    atoms = molecule(name)  # type: ignore[no-untyped-call]
    assert point_group(disturbed(atoms.positions, 11), atoms.numbers) == expected


@pytest.mark.parametrize(
    ("shape", "arguments", "size", "expected"),
    [
        ("Icosahedron", (2,), 13, PointGroup("Ih", 120)),
        ("Icosahedron", (3,), 55, PointGroup("Ih", 120)),
        ("Icosahedron", (4,), 147, PointGroup("Ih", 120)),
        ("Octahedron", (4, 1), 38, PointGroup("Oh", 48)),
        ("Decahedron", (2, 2, 1), 75, PointGroup("D5h", 20)),
    ],
)
def test_ideal_clusters_and_what_one_atom_of_another_kind_leaves(
    shape: str, arguments: tuple[int, ...], size: int, expected: PointGroup
) -> None:
    import ase.cluster

    atoms = getattr(ase.cluster, shape)("Ar", *arguments)
    assert len(atoms) == size
    pos = disturbed(atoms.positions / 3.8, 5)
    assert point_group(pos, atoms.numbers) == expected
    # Marking one of the m equivalent atoms farthest out leaves their stabiliser, whose order is m times less.
    radius = np.linalg.norm(pos - pos.mean(axis=0), axis=1)
    numbers = atoms.numbers.copy()
    numbers[np.argmax(radius)] = 36
    equivalent = int(np.sum(radius > radius.max() - 1e-3))
    marked = point_group(pos, numbers)
    assert marked.order is not None and expected.order == marked.order * equivalent


def lj(x: Floats) -> tuple[float, Floats]:
    pos = x.reshape(-1, 3)
    vectors = pos[:, None] - pos
    square = np.sum(vectors**2, axis=2)
    np.fill_diagonal(square, np.inf)
    six = square**-3
    energy = 2 * float(np.sum(six**2 - six))
    slope = (-48 * six**2 + 24 * six) / square
    return energy, np.sum(slope[:, :, None] * vectors, axis=1).ravel()


def quench(pos: Floats) -> tuple[float, Floats]:
    result = minimize(lj, pos.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 400, "gtol": 1e-5})
    return float(result.fun), result.x.reshape(-1, 3)


def lj_minima() -> dict[int, tuple[float, Floats]]:
    """Lowest minima found for N = 2..15, each grown from the one before by an atom on its surface, then hopped."""
    rng = np.random.default_rng(0)
    found = {2: quench(np.array([[0, 0, 0], [0.1, 0.2, 1.1]]))}
    for size in range(3, 16):
        smaller = found[size - 1][1]
        trials = []
        for _ in range(20):
            direction = rng.normal(size=3)
            reach = np.linalg.norm(smaller - smaller.mean(axis=0), axis=1).max() + 0.8
            extra = smaller.mean(axis=0) + reach * direction / np.linalg.norm(direction)
            trials.append(quench(np.vstack([smaller, extra])))
        best = min(trials, key=lambda trial: trial[0])
        for _ in range(20):
            best = min(best, quench(best[1] + rng.uniform(-0.4, 0.4, best[1].shape)), key=lambda t: t[0])
        found[size] = best
    return found


def test_relaxed_lennard_jones_clusters_agree_with_the_table() -> None:
    found = {size: point_group(pos, np.full(size, 18)).symbol for size, (_, pos) in lj_minima().items()}
    assert found == LJ_GROUPS


def test_the_tolerance_decides_and_the_answer_is_always_a_group() -> None:
    square = np.array([[1, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]], dtype=float)
    rectangle = square * [1.02, 1, 1]
    z = np.full(4, 18)
    assert point_group(rectangle, z, tolerance=1e-3).symbol == "D2h"
    assert point_group(rectangle, z, tolerance=0.1).symbol == "D4h"
    rng = np.random.default_rng(2)
    for _ in range(30):  # noise of about the tolerance: some operations pass, some do not
        group = point_group(square + 0.02 * rng.normal(size=(4, 3)), z, tolerance=0.03)
        assert group.order is not None and 16 % group.order == 0


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="must be below half of the shortest distance"):
        point_group([[0, 0, 0], [0, 0, 1], [0, 1, 0]], [1, 1, 1], tolerance=0.6)
    with pytest.raises(InputError, match="pos of atom 1 is not finite"):
        point_group(np.array([[0, 0, 0], [0, 0, np.nan]]), [1, 1])
    with pytest.raises(InputError, match="must be a positive length"):
        point_group([[0, 0, 0]], [1], tolerance=0.0)
