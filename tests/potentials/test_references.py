"""Numbers of other programs and of the literature."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.calculators.morse import MorsePotential
from ase.cluster import Icosahedron
from scipy.optimize import minimize

from mlopt.core.atoms.systems import Systems
from mlopt.core.landscapes.potential import Potential
from mlopt.potentials import AsePotential, LennardJones, MloptCalculator, Morse, SoftSphere


def relaxed(potential: Potential, start: Atoms) -> float:
    """Energy of the minimum below a free cluster, by scipy."""
    systems = Systems.from_atoms(start)

    def energy_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        found = potential.evaluate(systems.with_pos(torch.from_numpy(x.reshape(-1, 3))))
        return float(found.energy[0]), -found.force.numpy().ravel()

    found = minimize(energy_and_gradient, start.positions.ravel(), jac=True, method="L-BFGS-B", tol=1e-14)
    return float(found.fun)


def icosahedron(shells: int) -> Atoms:
    atoms = Icosahedron("Ar", shells, latticeconstant=math.sqrt(2.0))
    return Atoms(atoms.numbers, atoms.positions)


@pytest.mark.parametrize("shells, energy", [(2, -44.326801), (3, -279.248470)])
def test_mackay_icosahedra(shells: int, energy: float) -> None:
    # Cambridge Cluster Database, LJ13 and LJ55
    assert relaxed(LennardJones(), icosahedron(shells)) == pytest.approx(energy, abs=1e-6)


def test_sigma_and_r0_are_two_names_of_one_length() -> None:
    pos = icosahedron(2).positions
    by_r0 = LennardJones().evaluate(Systems.from_atoms(Atoms("Ar13", pos))).energy
    by_sigma = (
        LennardJones(sigma=2.0).evaluate(Systems.from_atoms(Atoms("Ar13", pos * 2.0 ** (7 / 6)))).energy
    )
    assert float(by_sigma) == pytest.approx(float(by_r0), rel=1e-12)
    with pytest.raises(
        ValueError, match=r"r0 \(distance of the minimum\) or sigma \(r0 / 2\^\(1/6\)\), not both"
    ):
        LennardJones(r0=1.0, sigma=1.0)
    assert LennardJones(**LennardJones(sigma=2.0).config()) == LennardJones(sigma=2.0)


@pytest.mark.parametrize("rho0, energy", [(6.0, -42.439863), (14.0, -37.258877)])
def test_morse_13(rho0: float, energy: float) -> None:
    # Doye & Wales 1997, table 1: the icosahedron is the global minimum for both
    assert relaxed(Morse(rho0=rho0), icosahedron(2)) == pytest.approx(energy, abs=1e-6)


def rattled(atoms: Atoms, seed: int = 0) -> Atoms:
    atoms.rattle(0.08, seed=seed)
    return atoms


@pytest.mark.parametrize(
    "atoms",
    [
        rattled(bulk("Ar", "fcc", a=1.55)),
        rattled(bulk("Ar", "fcc", a=1.55, cubic=True) * (2, 1, 3)),
        rattled(
            Atoms(
                "Ar4", [[0, 0, 0], [1.1, 0, 0], [0, 1.1, 0], [0.5, 0.5, 1.0]], cell=[2, 2, 9], pbc=[1, 1, 0]
            )
        ),
    ],
    ids=["one atom", "24 atoms", "slab"],
)
def test_periodic_lennard_jones_against_ase(atoms: Atoms) -> None:
    atoms.calc = AseLennardJones(sigma=1.0, epsilon=0.7, rc=2.9, smooth=False)
    found = LennardJones(epsilon=0.7, sigma=1.0, cutoff=2.9).evaluate(Systems.from_atoms(atoms), stress=True)
    assert float(found.energy) == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(found.force, atoms.get_forces(), atol=1e-10)
    np.testing.assert_allclose(found.row_energy, atoms.get_potential_energies(), atol=1e-10)
    if atoms.pbc.all():
        assert found.stress is not None
        np.testing.assert_allclose(found.stress[0], atoms.get_stress(voigt=False), atol=1e-10)


def test_morse_against_ase() -> None:
    atoms = rattled(icosahedron(2))
    # ASE's Morse switches off between rcut1 and rcut2, in units of r0
    atoms.calc = MorsePotential(epsilon=0.5, rho0=5.0, r0=1.1, rcut1=50.0, rcut2=60.0)
    found = Morse(epsilon=0.5, rho0=5.0, r0=1.1).evaluate(Systems.from_atoms(atoms))
    assert float(found.energy) == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(found.force, atoms.get_forces(), atol=1e-10)


def test_large_free_cluster_by_list_and_by_all_pairs() -> None:
    atoms = rattled(bulk("Ar", "fcc", a=1.55, cubic=True) * (5, 5, 4))
    atoms.pbc = False
    systems = Systems.from_atoms(atoms)  # 400 atoms: listed where there is a cutoff
    listed = LennardJones(cutoff=2.0).evaluate(systems)
    parts = Atoms(atoms.numbers, atoms.positions)
    parts.calc = AseLennardJones(sigma=2 ** (-1 / 6), epsilon=1.0, rc=2.0)
    assert float(listed.energy) == pytest.approx(parts.get_potential_energy(), rel=1e-12)
    # without one, all pairs are taken in blocks of rows
    whole = LennardJones().evaluate(systems)
    apart = torch.pdist(systems.pos)
    assert float(whole.energy) == pytest.approx(float((apart**-12 - 2 * apart**-6).sum()), rel=1e-12)


def test_soft_spheres() -> None:
    pair = Atoms("Ar2", [[0, 0, 0], [0.6, 0, 0]])
    for alpha in (2.0, 2.5, 3.0):
        found = SoftSphere(epsilon=3.0, r0=1.5, alpha=alpha).evaluate(Systems.from_atoms(pair))
        assert float(found.energy) == pytest.approx(3.0 / alpha * 0.6**alpha, rel=1e-12)
        assert float(found.force[1, 0]) == pytest.approx(3.0 / 1.5 * 0.6 ** (alpha - 1), rel=1e-12)
    stacked = SoftSphere().evaluate(Systems.cluster([18, 18]))
    assert float(stacked.energy) == 0.5 and not bool(stacked.force.any())


@pytest.mark.parametrize(
    "shift, jump, kink", [("none", True, True), ("energy", False, True), ("force", False, False)]
)
def test_what_is_continuous_at_the_cutoff(shift: str, jump: bool, kink: bool) -> None:
    potential = LennardJones(cutoff=2.0, shift=shift)  # type: ignore[arg-type]
    near = potential.evaluate(Systems.from_atoms(Atoms("Ar2", [[0, 0, 0], [2.0 - 1e-9, 0, 0]])))
    far = potential.evaluate(Systems.from_atoms(Atoms("Ar2", [[0, 0, 0], [2.0 + 1e-9, 0, 0]])))
    assert float(far.energy) == 0.0 and not bool(far.force.any())
    assert (abs(float(near.energy)) > 1e-6) == jump
    assert (float(near.force.abs().max()) > 1e-6) == kink


def test_ase_calculator_both_ways() -> None:
    copper = rattled(bulk("Cu", cubic=True))
    own = AsePotential(calculator="emt").evaluate(Systems.from_atoms(copper), stress=True)
    copper.calc = EMT()
    assert own.stress is not None
    assert float(own.energy) == pytest.approx(copper.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(own.force, copper.get_forces(), atol=1e-10)
    np.testing.assert_allclose(own.stress[0], copper.get_stress(voigt=False), atol=1e-10)

    argon = rattled(bulk("Ar", "fcc", a=1.55, cubic=True))
    potential = LennardJones(cutoff=2.5)
    argon.calc = MloptCalculator(potential)
    direct = potential.evaluate(Systems.from_atoms(argon), stress=True)
    assert direct.stress is not None
    assert argon.get_potential_energy() == float(direct.energy)
    assert argon.get_potential_energies().sum() == pytest.approx(float(direct.energy))
    np.testing.assert_array_equal(argon.get_forces(), direct.force)
    np.testing.assert_allclose(argon.get_stress(voigt=False), direct.stress[0], atol=1e-15)
    again = AsePotential.wrap(MloptCalculator(potential)).evaluate(Systems.from_atoms(argon))
    torch.testing.assert_close(again.force, direct.force)


@pytest.mark.parametrize("table", ["lj_global_minima.csv", "morse_rho6_global_minima.csv"])
def test_tables_of_minima_are_possible(data_dir: Path, table: str) -> None:
    """2 E / (N (N - 1)) cannot fall with N for any pair potential (Kiessling, arXiv 2305.10600)."""
    with (data_dir / "clusters" / table).open() as lines:
        rows = [(int(row["n"]), float(row["energy"])) for row in csv.DictReader(lines)]
    share = [(n, 2 * energy / (n * (n - 1))) for n, energy in rows if n > 1]
    for (n, low), (m, high) in itertools.pairwise(share):
        assert high >= low - 1e-6, f"{table}: N={m} is impossible after N={n}"
