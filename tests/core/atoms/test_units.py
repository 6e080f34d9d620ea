"""Units: what texts are read as, factors against CODATA in ASE, words for people, potentials of strangers."""

from __future__ import annotations

import math
from typing import Any

import ase.units
import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import ENERGIES, LENGTHS, REDUCED, SPINS, Units
from mlopt.core.errors import InputError
from mlopt.core.landscapes.potential import Potential


def test_factors() -> None:
    of_ase = {
        "eV": 1.0,
        "meV": 1e-3,
        "keV": 1e3,
        "Ry": ase.units.Rydberg,
        "Hartree": ase.units.Hartree,
        "kcal/mol": ase.units.kcal / ase.units.mol,
        "kJ/mol": ase.units.kJ / ase.units.mol,
        "K": ase.units.kB,
        "J": ase.units.J,
    }
    assert of_ase.keys() == ENERGIES.keys()
    for name, value in of_ase.items():
        assert Units(name).ev == pytest.approx(value, rel=1e-6), name  # ASE has older constants
    for name, factor in {
        "angstrom": 1.0,
        "nm": ase.units.nm,
        "Bohr": ase.units.Bohr,
        "m": ase.units.m,
    }.items():
        assert Units("eV", name).angstrom == pytest.approx(factor, rel=1e-8), name


@pytest.mark.parametrize("energy", list(ENERGIES))
@pytest.mark.parametrize("length", list(LENGTHS))
def test_there_and_back(energy: str, length: str) -> None:
    units = Units(energy, length)
    assert Units.of(str(units)) == units and Units.of(units) is units and not units.reduced


def test_how_people_write_them() -> None:
    assert Units.of("eV") == Units.of("ev, Å") == Units.of(" eV , Ang") == Units() == Units("eV", "angstrom")
    assert Units.of("hartree, a0") == Units.of("Ha, bohr") == Units("Hartree", "Bohr")
    assert Units.of("reduced") is REDUCED and str(REDUCED) == "reduced" and REDUCED.reduced
    assert Units.of("meV, rad") == SPINS
    assert Units().say(0.3744851) == "0.374485 eV" and REDUCED.say(-12.5, ".2f") == "-12.50"
    assert (Units().label, REDUCED.label) == ("eV", "reduced units")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            "eV, angstroms",
            "no unit of length is called 'angstroms'. Did you mean 'angstrom'? Known: angstrom, nm",
        ),
        ("MeV", "no unit of energy is called 'MeV'. Did you mean 'eV'?"),
        ("eV, angstrom, ps", "say one of energy and one of length, such as 'eV, angstrom'"),
        ("reduced, angstrom", "energies and lengths are reduced together, or not at all"),
        (7, "units are Units(energy, length), or a text such as 'eV, angstrom'; got 7"),
    ],
)
def test_refusals(given: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        Units.of(given)
    assert words in str(caught.value)


def test_temperatures_and_masses_of_dynamics() -> None:
    """Against ASE, whose constants are of 2014."""
    assert Units().boltzmann == pytest.approx(ase.units.kB, rel=1e-6)
    assert Units().dalton == pytest.approx(ase.units.fs**-2, rel=1e-6)
    other = Units("kcal/mol", "nm")
    assert other.boltzmann == pytest.approx(ase.units.kB / (ase.units.kcal / ase.units.mol), rel=1e-6)
    assert other.dalton == pytest.approx(100.0 * Units().dalton / other.ev)
    assert (Units.of("reduced").boltzmann, Units.of("reduced").dalton) == (1.0, 1.0)


def test_numbers_that_there_are_not() -> None:
    with pytest.raises(InputError, match="reduced energies are no number of eV"):
        _ = REDUCED.ev
    for units in (REDUCED, SPINS):
        with pytest.raises(InputError, match=f"lengths in {units.length} are no number of angstrom"):
            _ = units.angstrom


def test_a_potential_may_say_them_in_a_text() -> None:
    class Kilocalories(Potential):
        units = "kcal/mol, angstrom"  # type: ignore[assignment]

        def energy(self, systems: Systems) -> torch.Tensor:
            return systems.segments.sum(systems.pos**2)

    assert Kilocalories.units == Kilocalories().units == Units("kcal/mol")
    assert math.isclose(Kilocalories.units.ev, 0.0433641, rel_tol=1e-6) and Potential.units == Units()
    with pytest.raises(InputError, match="no unit of energy is called 'electronvolts'"):

        class Wrong(Potential):
            units = "electronvolts"  # type: ignore[assignment]
