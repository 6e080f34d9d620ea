"""A search of unlike and of fixed atoms, in a cell, in single precision, with a calculator of ASE, on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read, write
from small_searches import distinct, lj, search

from mlopt.core.atoms.systems import Systems
from mlopt.core.minima.store import verify
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import Recorder
from mlopt.optimizers.experiments.search.polish import Polish
from mlopt.optimizers.moves.basic import Displacement, Exchange
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.optimizers.starts.starts import GivenStart
from mlopt.potentials.ase.potential import AsePotential
from mlopt.potentials.classical.lennard_jones import LennardJones


def test_single_precision_ends_with_minima_of_double(tmp_path: Path) -> None:
    found = search("Ar13", 300, dtype="float32").run(Recorder(tmp_path / "results"))
    assert found.result.x.dtype == torch.float32
    assert found.polished.systems.pos.dtype == torch.float64 and found.polished.energy.dtype == torch.float64
    assert len(found.minima) > 2
    for minimum in found.minima:
        told = verify(minimum, lj, force_tolerance=2e-6, energy_tolerance=1e-10)
        assert told.ok, told.reason
    assert not bool((found.polished.systems.pos == found.polished.systems.pos.float()).all())


def test_unlike_atoms(tmp_path: Path) -> None:
    optimizer = BasinHopping(moves=[Displacement(), Exchange()])
    found = search("Ar4Kr2", 300, optimizer=optimizer).run(Recorder(tmp_path / "results"))
    assert all(m.z.tolist() == [18] * 4 + [36] * 2 for m in found.minima)
    images = read(tmp_path / "results" / "minima.extxyz", ":")
    assert {one.get_chemical_formula() for one in images} == {"Ar4Kr2"}
    # the energies are those of six like atoms, for Lennard-Jones makes no difference
    assert found.minima[0].energy == pytest.approx(-12.712062, abs=1e-6)
    assert distinct(found.minima)


@pytest.fixture
def pinned(tmp_path: Path) -> Path:
    """A chain of three fixed atoms at coordinates that float32 cannot hold, and four free ones."""
    pos = np.array(
        [[0, 0, 0], [1 / 3 + 0.7, 0, 0], [2.1, 0.1 / 3, 0], [0, 1, 0], [1, 1, 0], [2, 1, 0], [1, 0.5, 0.9]]
    )
    atoms = Atoms("Ar7", pos, constraint=FixAtoms([0, 1, 2]))
    write(tmp_path / "pinned.traj", atoms)
    return tmp_path / "pinned.traj"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("start", [None, "sphere"])
def test_fixed_atoms_stay(pinned: Path, dtype: Any, start: str | None) -> None:
    given = read(pinned).positions
    settings: dict[str, Any] = {"calls": 150} | ({} if start is None else {"start": start})
    optimizer = BasinHopping(container=0.5)  # tight enough to pull at all of them
    found = search(system=SystemSpec(file=str(pinned)), dtype=dtype, optimizer=optimizer, **settings).run()
    end = found.polished.systems.pos.reshape(4, 7, 3).numpy()
    assert all(np.array_equal(one[:3], given[:3]) for one in end)
    assert not bool((end[:, 3:] == given[3:]).any())
    assert found.minima and all(np.array_equal(m.pos[:3], given[:3]) for m in found.minima)
    assert bool((found.polished.fmax < 1e-5).all())  # of the free ones


def test_a_structure_is_where_starts_begin(pinned: Path) -> None:
    spec = SystemSpec(file=str(pinned))
    none = search(system=spec, calls=1, polish=Polish(force_calls=0)).run()
    given = torch.from_numpy(read(pinned).positions).repeat(4, 1)
    assert torch.equal(none.result.x, given)
    shaken = search(system=spec, calls=1, polish=Polish(force_calls=0), start=GivenStart(rattle=0.01)).run()
    moved = (shaken.result.x - given).abs().reshape(4, 7, 3)
    assert float(moved[:, :3].max()) == 0 and float(moved[:, 3:].min()) > 0 and float(moved.max()) < 0.06


def test_a_periodic_cell_is_kept_to_the_last_bit(tmp_path: Path) -> None:
    cell = np.eye(3) * (5.0 + 1 / 3)
    write(tmp_path / "box.traj", Atoms("Ar3", [[0, 0, 0], [1, 0, 0], [0, 1.1, 0]], cell=cell, pbc=True))
    found = search(
        system=SystemSpec(file=str(tmp_path / "box.traj")),
        potential=LennardJones(cutoff=2.5),
        dtype="float32",
        calls=150,
    ).run()
    assert found.minima and all(np.array_equal(m.cell, cell) for m in found.minima)
    for minimum in found.minima:  # and the energy is that of this cell
        systems = Systems.from_atoms(Atoms(minimum.z, minimum.pos, cell=minimum.cell, pbc=minimum.pbc))
        again = LennardJones(cutoff=2.5).evaluate(systems)
        assert float(again.energy) == pytest.approx(minimum.energy, abs=1e-12)


def test_an_ase_calculator(tmp_path: Path) -> None:
    from ase.cluster import Icosahedron

    atoms = Icosahedron("Cu", 2)
    atoms.rattle(0.1, seed=1)
    write(tmp_path / "cu13.xyz", Atoms(atoms.numbers, atoms.positions))
    experiment = search(
        system=SystemSpec(file=str(tmp_path / "cu13.xyz")),
        potential=AsePotential(calculator="emt"),
        starts=2,
        calls=40,
        polish=Polish(force_calls=60, fmax=1e-4),
    )
    experiment.check()
    found = experiment.run(Recorder(tmp_path / "results"))
    assert found.summary()["units"] == "eV, angstrom" and found.minima
    image = read(tmp_path / "results" / "minima.extxyz", 0)
    told = image.get_potential_energy()
    image.calc = EMT()
    assert image.get_potential_energy() == pytest.approx(told, abs=1e-6)
    assert float(np.linalg.norm(image.get_forces(), axis=1).max()) < 1e-3
    perfect = Icosahedron("Cu", 2)
    perfect.calc = EMT()
    assert told < perfect.get_potential_energy()  # it is relaxed


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    found = search("Ar13", 600, device="cuda").run()
    assert found.result.x.device.type == "cuda" and found.polished.energy.device.type == "cpu"
    for minimum in found.minima:
        told = verify(minimum, lj, force_tolerance=2e-6, energy_tolerance=1e-10)
        assert told.ok, told.reason
    assert found.minima
