"""Calculators of ASE that misbehave, smear electrons, or know molecules only; and mlopt's own as one of them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.calculators.morse import MorsePotential as AseMorse
from ase.cluster import Icosahedron
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian, FixedLine, Hookean

from mlopt.core.atoms.systems import Systems
from mlopt.core.driver.driver import minimize
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.core.plugins import plugin
from mlopt.optimizers import LBFGS
from mlopt.potentials import AsePotential, LennardJones, MloptCalculator, Morse, SumPotential


class Told(Calculator):
    """Says what it was given, by name, for every structure; ``bad`` only where the first atom has x > 10."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  (ASE's protocol)

    def __init__(self, **bad: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bad = bad

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        self.results = {"energy": 1.0, "forces": np.zeros((len(atoms), 3))}
        if atoms.positions[0, 0] > 10:
            self.results |= self.bad


def three() -> Systems:
    return Systems.from_atoms([Atoms("Ar2", [[x, 0, 0], [x, 0, 2]]) for x in (0, 20, 1)])


@pytest.mark.parametrize(
    "energy", [np.array([2.5]), np.array(2.5), np.array([[2.5]]), np.float32(2.5), torch.tensor([2.5]), [2.5]]
)
def test_energies_in_boxes(energy: Any) -> None:
    found = AsePotential.wrap(Told(energy=energy)).evaluate(three())
    assert found.energy.tolist() == [1.0, 2.5, 1.0] and bool(found.force.isfinite().all())
    assert AsePotential.wrap(Told(energy=2)).evaluate(three()).energy.tolist() == [1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    "bad,reason",
    [
        ({"energy": np.array([1.0, 2.0])}, r"the energy is an array of shape (2,), not one number"),
        ({"energy": 1.0 + 2.0j}, "the energy: values of type complex128, not real numbers"),
        ({"energy": "low"}, "the energy: values of type <U3, not real numbers"),
        ({"energy": None}, "the energy: None instead of numbers"),
        ({"forces": np.zeros(3)}, "forces have shape (3,), not (2, 3)"),
        ({"forces": np.zeros((3, 2))}, "forces have shape (3, 2), not (2, 3)"),
        ({"forces": np.zeros(6)}, "forces have shape (6,), not (2, 3)"),
        ({"forces": np.zeros((2, 3), dtype=object)}, "forces: values of type object, not real numbers"),
        ({"forces": np.zeros((2, 3), dtype=complex)}, "forces: values of type complex128, not real numbers"),
        ({"forces": None}, "forces: None instead of numbers"),
    ],
)
def test_a_bad_result_fails_one_structure(
    bad: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    potential = AsePotential.wrap(Told(**bad))
    with caplog.at_level(logging.WARNING):
        found = [potential.evaluate(three()) for _ in range(3)][-1]
    assert found.energy.isfinite().tolist() == [True, False, True]
    assert found.force.isfinite().all(-1).tolist() == [True, True, False, False, True, True]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == f"ASE calculator 'Told' failed for system 1, which gets NaN: a bad result: {reason}"
    assert potential.remarks() == [
        f"ASE calculator 'Told' failed 3 times, and each time one system got NaN; the first: a bad result: {reason}"
    ]


class Talkative(Calculator):
    """Raises with another text every time, from one of two lines."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  (ASE's protocol)
    calls = 0

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        self.calls += 1
        if self.calls % 50 == 0:
            raise RuntimeError(f"out of memory at {self.calls}")
        raise RuntimeError(f"no convergence after {self.calls * 0.37:.3f} s")


def test_each_cause_is_told_once_with_its_count(caplog: pytest.LogCaptureFixture) -> None:
    potential = AsePotential.wrap(Talkative())  # type: ignore[no-untyped-call]
    with caplog.at_level(logging.WARNING):
        for _ in range(150):
            potential.evaluate(three()[0])
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(": ", 1)[0] for message in messages] == [
        "ASE calculator 'Talkative' failed for system 0, which gets NaN",
        "ASE calculator 'Talkative' has failed in this way 10 times; now",
        "ASE calculator 'Talkative' failed for system 0, which gets NaN",
        "ASE calculator 'Talkative' has failed in this way 100 times; now",
    ]
    first, second = potential.remarks()
    assert "failed 147 times" in first and first.endswith("RuntimeError: no convergence after 0.370 s")
    assert "failed 3 times" in second and second.endswith("RuntimeError: out of memory at 50")


class Smeared(Calculator):
    """EMT's energy is the one that its forces belong to; the other is off as if electrons were smeared."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012  (ASE's protocol)

    def __init__(self, offers: bool = True, noise: float = 0.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.offers, self.noise, self.calls = offers, noise, 0
        self.random = np.random.default_rng(0)

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        self.calls += 1
        inner = atoms.copy()
        inner.set_constraint()
        inner.calc = EMT()
        free, from_middle = inner.get_potential_energy(), atoms.positions - atoms.positions.mean(0)
        self.results = {
            "energy": free + 0.02 * float((from_middle**2).sum()),
            "forces": inner.get_forces(),
        }
        if self.offers:
            self.results["free_energy"] = free * (1 + self.noise * self.random.uniform(-1, 1))


def rattled(atoms: Atoms, by: float, seed: int = 1) -> Atoms:
    atoms = atoms.copy()
    atoms.rattle(by, seed=seed)
    return atoms


def test_the_energy_is_the_one_that_forces_belong_to() -> None:
    copper = rattled(Icosahedron("Cu", 2), 0.4)
    systems, calls = Systems.from_atoms(copper), []
    for offers in (True, False):
        calculator = Smeared(offers)
        landscape = AtomsLandscape(systems, AsePotential.wrap(calculator))
        done = minimize(landscape, LBFGS(), systems.pos, force_calls=80, fmax=1e-3)
        assert bool(done.converged) == offers
        assert calculator.calls == int(done.calls)
        calls.append(calculator.calls)
    assert calls[0] < 40 and calls[1] == 80

    found = AsePotential.wrap(Smeared()).evaluate(systems)
    reference = AsePotential(calculator="emt").evaluate(systems)
    assert torch.equal(found.energy, reference.energy) and reference.zero_width is None
    assert found.zero_width is not None
    spread = ((copper.positions - copper.positions.mean(0)) ** 2).sum()
    assert float(found.zero_width - found.energy) == pytest.approx(0.02 * spread)
    both = SumPotential(terms=[AsePotential.wrap(Smeared()), AsePotential(calculator="emt")])
    total = both.evaluate(systems)
    assert total.zero_width is not None
    torch.testing.assert_close(total.zero_width, found.zero_width + reference.energy)


def test_forces_that_do_not_belong_to_the_energy_are_told(caplog: pytest.LogCaptureFixture) -> None:
    calculator = Smeared(offers=False)
    potential = AsePotential.wrap(calculator)
    for systems in (Systems.cluster([29] * 13), Systems.from_atoms(rattled(Icosahedron("Cu", 2), 0.1))):
        calculator.calls = 0
        with caplog.at_level(logging.WARNING):
            potential.check(systems)
            trial = potential.trial(systems)
            potential.check(systems)
        assert trial.calls == calculator.calls == 5  # and once only
        (warning,) = trial.warnings
        assert "do not belong to its energy: for a system of Cu, along a random direction" in warning
        assert [record.getMessage() for record in caplog.records] == [warning]
        caplog.clear()


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_forces_that_belong_are_not_warned_of(noise: float) -> None:
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    for atoms in [slab, Icosahedron("Cu", 3), *(rattled(slab, 0.1, seed) for seed in range(5))]:
        assert AsePotential.wrap(Smeared(noise=noise)).trial(Systems.from_atoms(atoms)).warnings == ()
    close = rattled(Icosahedron("Cu", 2), 0.1)
    close.positions *= 0.7  # so steep that the first difference is off by more than noise
    assert AsePotential.wrap(Smeared(noise=noise)).trial(Systems.from_atoms(close)).warnings == ()
    for numbers in ([29], [47] * 5, [13, 28, 29, 46, 47, 78, 79]):
        potential = AsePotential.wrap(Smeared(noise=noise))
        assert potential.trial(Systems.cluster(numbers)).warnings == ()


def test_water() -> None:
    waters = Atoms()
    for k in range(4):
        one = molecule("H2O")
        one.translate((0.3 * k, 3.0 * k, 0.1))
        waters += one
    for name in ("tip3p", "tip4p"):
        potential = AsePotential(calculator=name)
        systems = Systems.from_atoms(waters)
        potential.check(systems)
        assert bool(potential.evaluate(systems).energy.isfinite())
        potential.check(Systems.cluster([8, 1, 1] * 3))
        with pytest.raises(
            InputError, match=rf"{name}' knows water only, as whole molecules in the order O, H, H\. Write"
        ):
            potential.check(Systems.cluster([1, 1, 1, 1, 8, 8]))
        with pytest.raises(
            InputError, match=rf"{name}' cannot treat a system of H and O: AssertionError: ti"
        ):
            potential.check(Systems.from_atoms(waters[[1, 2, 0, 3, 4, 5]]))


def test_eam_asks_for_its_file() -> None:
    with pytest.raises(
        ConfigError, match=r"'eam' reads its functions from a file: give `parameters: \{potential: FILE\}`"
    ):
        plugin.build(AsePotential, {"calculator": "eam"})


@pytest.mark.parametrize(
    "constraint",
    [
        FixBondLengths([(0, 1)]),
        FixedLine(0, [1, 0, 0]),
        Hookean(0, 1, k=5.0, rt=1.0),
        FixCartesian(0, (True, False, False)),
        FixAtoms([0]),
    ],
)
def test_constraints_are_left_to_ase(constraint: Any) -> None:
    atoms = Atoms("Ar3", [[0, 0, 0], [1.2, 0, 0], [0.4, 1.1, 0]])
    results = []
    for calculator in (MloptCalculator(LennardJones()), AseLennardJones(sigma=2 ** (-1 / 6), rc=50.0)):
        atoms.set_constraint(constraint)
        atoms.calc = calculator
        results.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_forces(False)))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-8)
    for own, reference in zip(results[0][1:], results[1][1:], strict=True):
        np.testing.assert_allclose(own, reference, atol=1e-7)


@pytest.mark.parametrize("cell", [None, [5.0, 5.0, 0.0], [0.0, 0.0, 7.0]])
def test_stress_without_a_cell_is_refused_as_ase_does(cell: Any) -> None:
    for calculator in (MloptCalculator(LennardJones(cutoff=2.0)), AseLennardJones(rc=2.0)):
        atoms = Atoms("Ar2", [[0, 0, 0], [1.2, 0, 0]], cell=cell, calculator=calculator)
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()
        assert np.isfinite(atoms.get_potential_energy())
        atoms.cell = [6.0, 6.0, 6.0]
        assert np.isfinite(atoms.get_stress()).all()


def structures(kind: str, seed: int) -> Atoms:
    """A cluster, a slab or a skewed crystal, at random."""
    rng = np.random.default_rng(seed)
    atoms = Atoms("Ar12", np.array(list(np.ndindex(2, 2, 3))) * 1.15 + rng.normal(0, 0.05, (12, 3)))
    if kind != "free":
        skew = np.triu(rng.uniform(-0.7, 0.7, (3, 3)), 1).T
        atoms.set_cell(np.diag([2.3, 2.3, 3.45]) + skew, scale_atoms=False)
        atoms.pbc = (True, True, kind == "bulk")
    if kind == "slab":
        atoms.center(vacuum=4.0, axis=2)
    return atoms


@pytest.mark.parametrize("kind", ["free", "slab", "bulk"])
def test_the_same_as_ases_own(kind: str) -> None:
    """Energy, shares of atoms, forces and stress, from mlopt through ASE and from ASE through mlopt."""
    sigma = 2 ** (-1 / 6)
    pairs = [
        (
            LennardJones(epsilon=0.7, r0=1.0, cutoff=2.5, shift="energy"),
            AseLennardJones(epsilon=0.7, sigma=sigma, rc=2.5),
        ),
    ]
    if kind == "free":  # ASE's fades with a polynomial where it has a cutoff
        pairs.append(
            (
                Morse(epsilon=0.7, r0=1.1, rho0=6.0),
                AseMorse(epsilon=0.7, r0=1.1, rho0=6.0, rcut1=9, rcut2=10),
            )
        )
    for own, reference in pairs:
        for seed in range(6):
            atoms = structures(kind, seed)
            mine, theirs = atoms.copy(), atoms.copy()
            mine.calc, theirs.calc = MloptCalculator(own), reference
            assert mine.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-10)
            assert mine.get_potential_energy(force_consistent=True) == mine.get_potential_energy()
            np.testing.assert_allclose(mine.get_forces(), theirs.get_forces(), atol=1e-10)
            np.testing.assert_allclose(
                mine.get_potential_energies(), theirs.get_potential_energies(), atol=1e-10
            )
            systems = Systems.from_atoms(atoms)
            there = AsePotential.wrap(reference).evaluate(systems, stress=True)
            here = own.evaluate(systems, stress=True)
            torch.testing.assert_close(there.energy, here.energy, atol=1e-10, rtol=0.0)
            torch.testing.assert_close(there.force, here.force, atol=1e-10, rtol=0.0)
            torch.testing.assert_close(there.stress, here.stress, atol=1e-10, rtol=0.0, equal_nan=True)
            if kind != "free":
                np.testing.assert_allclose(mine.get_stress(), theirs.get_stress(), atol=1e-10)
