"""Spin systems whose answers are known: closed forms, a discrete domain wall, and Spirit's own regression test."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mlopt.core import minimize
from mlopt.optimizers import LBFGS
from mlopt.potentials.spins import (
    Anisotropy,
    DomainWall,
    Ferromagnet,
    Heisenberg,
    Skyrmion,
    SpinLandscape,
    SpinLattice,
    magnetization,
    topological_charge,
)

X, Y, Z = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
EXACT = 1e-12


def rows(*vectors: list[float]) -> torch.Tensor:
    return torch.tensor(vectors, dtype=torch.float64)


def spectrum(landscape: SpinLandscape, x: torch.Tensor) -> list[float]:
    """Eigenvalues of the Riemannian Hessian on the tangent space, ascending."""
    # across each spin: its products with the axis that it is farthest from, and with the result
    far = torch.eye(3, dtype=x.dtype)[x.abs().argmin(-1)]
    first = torch.linalg.cross(x, far)
    first = first / torch.linalg.vector_norm(first, dim=-1, keepdim=True)
    basis = torch.stack([torch.block_diag(*e[:, None]) for e in (first, torch.linalg.cross(x, first))])
    basis = basis.reshape(-1, x.numel())  # (2 n, 3 n)
    product = landscape.hessian_product(x, basis.view(len(basis), -1, 3))
    values: list[float] = torch.linalg.eigvalsh(basis @ product.reshape(len(basis), -1).T).tolist()
    return values


def chain(n: int, **settings: Any) -> Heisenberg:
    return Heisenberg(lattice=SpinLattice(kind="chain", repeat=n), units="reduced", **settings)


def axis(direction: list[float], k: float) -> Anisotropy:
    return Anisotropy(axis=direction, k=k)


@pytest.mark.parametrize(
    "spin, energy, eigenvalues",
    [(X, -1.0, [2.0, 6.0]), (Y, 0.0, [-2.0, 4.0]), (Z, 2.0, [-6.0, -4.0])],
    ids=["minimum", "saddle", "pole"],
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_biaxial_spin(spin: list[float], energy: float, eigenvalues: list[float], sign: float) -> None:
    landscape = chain(1, anisotropy=[axis(X, 1.0), axis(Z, -2.0)]).landscape()
    x = sign * rows(spin)
    found = landscape.evaluate(x)
    assert float(found.energy) == energy and not found.force.any()
    assert spectrum(landscape, x) == pytest.approx(eigenvalues, abs=EXACT)


def test_biaxial_spin_in_a_field() -> None:
    k1, k2, b = 1.3, -2.1, 0.8  # the saddle of the field-free spin turns towards the field
    landscape = chain(1, anisotropy=[axis(X, k1), axis(Z, k2)], field_energy=[b, 0, 0]).landscape()
    h = b / (2 * k1)
    saddle = rows([-h, math.sqrt(1 - h * h), 0.0])
    at_saddle = landscape.evaluate(saddle)
    assert float(at_saddle.force.abs().max()) < EXACT
    assert float(at_saddle.energy) == pytest.approx(b * b / (4 * k1), abs=EXACT)
    assert spectrum(landscape, saddle) == pytest.approx([2 * k1 * (h * h - 1), -2 * k2], abs=EXACT)
    for sign in (1.0, -1.0):
        x = sign * rows(X)
        found = landscape.evaluate(x)
        assert float(found.force.abs().max()) == 0.0
        barrier = float(at_saddle.energy - found.energy)
        assert barrier == pytest.approx(k1 * (1 + sign * h) ** 2, abs=EXACT)
        expected = [2 * k1 + sign * b, 2 * (k1 - k2) + sign * b]
        assert spectrum(landscape, x) == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("k, j", [(0.4, 1.0), (1.0, 0.5), (1.0, 0.2)])
def test_two_spins_turn_together_or_one_by_one(k: float, j: float) -> None:
    landscape = chain(2, exchange=[j], anisotropy=[axis(Z, k), axis(Y, -0.5)]).landscape()

    def at(a: float, b: float) -> tuple[float, int]:
        """Energy above the ground state, and the number of negative modes; the point is stationary."""
        x = rows([math.sin(a), 0, math.cos(a)], [math.sin(b), 0, math.cos(b)])
        found = landscape.evaluate(x)
        assert float(found.force.abs().max()) < EXACT
        return float(found.energy) + j + 2 * k, sum(value < -1e-9 for value in spectrum(landscape, x))

    energy, index = at(0.0, 0.0)
    assert energy == pytest.approx(0.0, abs=EXACT) and index == 0
    together, one_by_one = at(math.pi / 2, math.pi / 2), None
    assert together[0] == pytest.approx(2 * k, abs=EXACT)
    if j < k:
        total = math.acos(-j / k)
        for s in (total, 2 * math.pi - total):
            one_by_one = at((s + math.pi / 2) / 2, (s - math.pi / 2) / 2)
            assert one_by_one == (pytest.approx(j + k, abs=EXACT), 1)
        assert at(0.0, math.pi) == (pytest.approx(2 * j, abs=EXACT), 0)  # the minimum in between
        assert together[1] == 2
    else:
        assert together[1] == 1
    lowest = together[0] if one_by_one is None else one_by_one[0]
    assert lowest == pytest.approx(min(2 * k, j + k), abs=EXACT)


@pytest.mark.parametrize("n, negative", [(5, 1), (6, 1), (7, 2), (8, 2)])
def test_a_chain_reverses_as_one_up_to_six_spins(n: int, negative: int) -> None:
    j, k = 1.0, 0.1
    system = chain(n, exchange=[j], anisotropy=[axis(Z, k), axis(Y, -0.5)])
    landscape, x = system.landscape(), Ferromagnet(direction=X).spins(system.lattice)
    found = landscape.evaluate(x)
    start = landscape.evaluate(Ferromagnet().spins(system.lattice))
    assert float(found.force.abs().max()) == 0.0
    assert float(found.energy - start.energy) == pytest.approx(n * k, abs=EXACT)
    values = spectrum(landscape, x)
    assert sum(value < 0 for value in values) == negative
    for mode in range(negative + 1):  # of the path's Laplacian
        expected = 2 * j * (1 - math.cos(math.pi * mode / n)) - 2 * k
        assert min(abs(value - expected) for value in values) < EXACT


@pytest.mark.parametrize("n, energy", [(100, 0.886724875), (101, 0.886725047)], ids=["bond", "site"])
def test_domain_wall(n: int, energy: float) -> None:
    system = chain(n, exchange=[1.0], anisotropy=[axis(Z, 0.1)])
    wall = DomainWall(width=math.sqrt(5.0)).spins(system.lattice)
    landscape = system.landscape()
    before = landscape.evaluate(wall)
    result = minimize(landscape, LBFGS(), wall, force_calls=500, fmax=1e-8)
    assert result.converged.all()
    ground = float(landscape.evaluate(Ferromagnet().spins(system.lattice)).energy)
    assert float(result.energy) - ground == pytest.approx(energy, abs=1e-9)
    assert float(before.energy) - float(result.energy) < 0.01  # the wall of the continuum is nearly it
    assert float(result.x[0, 2]) > 1 - 1e-9 and float(result.x[-1, 2]) < -1 + 1e-9


@pytest.fixture(scope="module")
def spirit() -> Heisenberg:
    """Spirit's core/test/input/solvers.cfg."""
    return Heisenberg(
        lattice=SpinLattice(kind="cubic", repeat=[16, 16, 1], periodic=[True, True, False], moments=2.0),
        exchange=[10.0],
        dmi=[6.0],
        field=[0.0, 0.0, 25.0],
    )


def test_skyrmion_of_spirit(spirit: Heisenberg) -> None:
    """Spirit (core/test/test_solvers.cpp) expects -5849.69140625 and 2 * 0.79977 in single precision."""
    landscape = spirit.landscape()
    ferromagnet = landscape.evaluate(Ferromagnet().spins(spirit.lattice))
    assert float(ferromagnet.energy) == pytest.approx(-5860.912865, abs=1e-6)
    start = Skyrmion(radius=3.0, helicity=90.0).spins(spirit.lattice)
    result = minimize(landscape, LBFGS(), start, force_calls=500, fmax=1e-8)
    assert result.converged.all()
    assert float(result.energy) == pytest.approx(-5849.691477, abs=1e-6)
    mean = magnetization(spirit.lattice, result.x)
    assert 2.0 * mean[0].numpy() == pytest.approx([0.0, 0.0, 1.599532], abs=2e-6)
    assert float(topological_charge(spirit.lattice, result.x)) == pytest.approx(-1.0, abs=1e-9)
    # moving it over the lattice costs 1e-5 less than nothing: it stands on top of a tiny hill
    expected = [-1.08e-5, -1.08e-5, 1.32254864, 2.01607774, 2.31639120, 3.33468563]
    values = spectrum(landscape, result.x)
    assert values[:2] == pytest.approx(expected[:2], abs=2e-8)
    assert values[2:6] == pytest.approx(expected[2:], abs=2e-8)


@pytest.mark.parametrize("core", ["up", "down"])
@pytest.mark.parametrize(
    "kind, sign, down", [("bulk", 1, 90), ("bulk", -1, -90), ("interfacial", 1, 180), ("interfacial", -1, 0)]
)
def test_which_skyrmion_an_interaction_makes(kind: Any, sign: int, down: int, core: Any) -> None:
    for lattice in ("square", "hexagonal"):
        system = Heisenberg(
            lattice=SpinLattice(kind=lattice, repeat=[16, 16], periodic=True),
            exchange=[10.0],
            dmi=[6.0 * sign],
            dmi_kind=kind,
        )
        landscape = system.landscape()
        energy = {
            helicity: float(
                landscape.evaluate(
                    Skyrmion(radius=4, helicity=helicity, core=core).spins(system.lattice)
                ).energy
            )
            for helicity in (0, 90, 180, -90)
        }
        best = down if core == "down" else {90: -90, -90: 90, 180: 0, 0: 180}[down]
        assert min(energy, key=lambda helicity: energy[helicity]) == best
        assert sorted(energy.values())[1] - energy[best] > 50.0
