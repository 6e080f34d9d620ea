"""Models: states by name or file, and the files that they write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.io import read, write

from mlopt.core.atoms.units import REDUCED, SPINS, Units
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.structures.spec import SystemSpec
from mlopt.potentials.classical.morse import Morse
from mlopt.potentials.models.atoms import AtomsModel
from mlopt.potentials.models.surfaces import Leps, LepsHarmonic, MullerBrown
from mlopt.potentials.spins import Heisenberg, SpinLattice


@pytest.fixture
def slab(tmp_path: Path) -> Atoms:
    atoms = fcc111("Pt", (3, 3, 2), vacuum=8.0, periodic=True)
    atoms.set_constraint(FixAtoms(range(9)))
    atoms.info.clear()  # where to put adsorbates, which no file keeps
    write(tmp_path / "slab.extxyz", atoms)
    return atoms


def model_of(folder: Path) -> AtomsModel:
    potential = Morse(epsilon=0.71, rho0=4.65, r0=2.897, cutoff=6.0)
    return AtomsModel(system=SystemSpec(file=str(folder / "slab.extxyz")), potential=potential)


def test_atoms(tmp_path: Path, slab: Atoms) -> None:
    model = model_of(tmp_path)
    x = model.state({"file": str(tmp_path / "slab.extxyz")})
    assert torch.allclose(x, torch.from_numpy(slab.positions), atol=1e-8)  # digits of the file
    landscape = model.landscape(3)
    assert landscape.segments.n_problems == 3
    energies = landscape.evaluate(x.repeat(3, 1)).energy
    assert (energies == energies[0]).all()
    assert landscape.fixed is not None and int(landscape.fixed.sum()) == 27
    masses = model.masses()
    assert masses is not None and masses[0] == pytest.approx(195.084)
    file = model.write(tmp_path / "path", torch.stack([x, x + 0.1]), [1.0, 2.0])
    images = read(file, ":")
    assert [one.get_potential_energy() for one in images] == [1.0, 2.0]
    assert images[0].pbc.all() and model.path({"file": str(file)}).shape == (2, 18, 3)


def test_states_that_are_other_atoms(tmp_path: Path, slab: Atoms) -> None:
    model = model_of(tmp_path)

    def refused(atoms: Atoms, message: str) -> None:
        write(tmp_path / "other.extxyz", atoms)
        with pytest.raises(InputError, match=message):
            model.state({"file": str(tmp_path / "other.extxyz")})

    refused(slab[:-1], r"other.extxyz has 17 atoms and the system 18; a path keeps its atoms: add 1")
    other = slab.copy()
    other.symbols[4] = "Au"
    refused(other, r"atom 4 is Au, in the system it is Pt \(1 atoms differ\); a path keeps its atoms")
    other = slab.copy()
    other.pbc = False
    refused(other, r"periodic directions are \[False, False, False\]")
    other = slab.copy()
    other.set_cell(slab.cell * 1.01)
    refused(other, r"its cell differs from that of the system by up to 0\.\d+; a path keeps its cell")
    with pytest.raises(InputError, match="needs positions: give a `file`, not a formula"):
        model.state({"cluster": "Pt18"})
    with pytest.raises(ConfigError, match="fiel"):
        model.state({"fiel": "x"})


@pytest.mark.parametrize(
    "model, name, energy",
    [
        (MullerBrown(), "A", -146.69951721),
        (MullerBrown(), "B", -108.16672412),
        (LepsHarmonic(), "A", -4.509176),
    ],
)
def test_surfaces(model: Any, name: str, energy: float, tmp_path: Path) -> None:
    x = model.state({"name": name})
    assert float(model.landscape().evaluate(x).energy) == pytest.approx(energy, abs=1e-2)
    assert torch.equal(model.state({"point": x[0].tolist()}), x)
    file = model.write(tmp_path / "path", x[None], [energy])
    assert file.read_text().splitlines()[0] == "x,y,energy"
    for given in ({"name": "Z"}, {"point": [1.0]}, {"point": "x"}, {"point": [float("nan"), 0.0]}, {}):
        with pytest.raises(InputError, match=r"a state of|two numbers"):
            model.state(given)


def test_units_are_those_of_the_energy() -> None:
    lattice = SpinLattice(kind="chain", repeat=[2])
    assert Leps().energy_units == Units() and MullerBrown().energy_units == REDUCED
    assert Heisenberg(lattice=lattice, exchange=[1.0]).energy_units == SPINS


def test_spins(tmp_path: Path) -> None:
    lattice = SpinLattice(kind="square", repeat=[4, 4], moments=[2.0])
    model = Heisenberg(lattice=lattice, exchange=[1.0])
    up = model.state({"kind": "ferromagnet"})
    down = model.state({"kind": "ferromagnet", "direction": [0, 0, -1]})
    file = model.write(tmp_path / "chain", torch.stack([up, down]), [-24.0, -24.0])
    assert file.suffix == ".ovf" and "energy -24 meV" in file.read_bytes().decode("latin1")
    assert torch.equal(model.path({"file": str(file)}), torch.stack([up, down]))
    assert torch.equal(model.state({"file": str(file)}), down)  # the last, as with atoms
    moments, positions = model.moments(), model.positions()
    assert (moments == 2.0).all() and positions.shape == (16, 3)
    assert model.rows(16)[5] == "site 5 (cell 1, 1, 0)"
    with pytest.raises(InputError, match="needs a `kind`"):
        model.state({"radius": 3.0})
