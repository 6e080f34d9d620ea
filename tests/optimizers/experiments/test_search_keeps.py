"""What a search does with what its structure carries: the calculator sees it, and every file of results keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixAtoms
from ase.db import connect

from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import Recorder
from mlopt.optimizers.experiments.search.experiment import Search
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.searches.settings import Budget
from mlopt.optimizers.starts.starts import GivenStart
from mlopt.potentials.ase.potential import AsePotential


class Charged(Calculator):
    """Springs to places that charges, moments, tags and the total charge set."""

    implemented_properties = ("energy", "free_energy", "forces")

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        shift = atoms.get_initial_charges() + atoms.get_initial_magnetic_moments() + atoms.get_tags()
        place = np.stack([3.0 * np.arange(len(atoms)), shift, 0.0 * shift], -1)
        away = atoms.positions - place
        energy = 0.5 * float((away**2).sum()) + atoms.info["charge"] + float(atoms.get_masses().sum())
        self.results = {"energy": energy, "free_energy": energy, "forces": -away}


def test_calculators_and_results_see_it_all(tmp_path: Path) -> None:
    atoms = Atoms("Cu3", positions=[[0, 0, 0], [3.1, 0, 0], [6.1, 0.2, 0]], tags=[0, 1, 2])
    atoms.set_initial_charges([0.5, -0.25, 0.0])
    atoms.set_initial_magnetic_moments([0.0, 0.1, 0.0])
    atoms.set_masses([63.546, 65.0, 63.546])
    atoms.set_constraint(FixAtoms([0]))
    atoms.info["charge"] = 7
    ase.io.write(tmp_path / "start.extxyz", atoms)
    search = Search(
        system=SystemSpec(file=str(tmp_path / "start.extxyz")),
        potential=AsePotential.wrap(Charged()),
        optimizer=LBFGS(),
        start=GivenStart(),
        starts=1,
        budget=Budget(force_calls=200),
        engine="eager",
    )
    found = search.run(Recorder(tmp_path))
    assert found.best is not None and not found.check.missed
    base = 7.0 + 65.0 + 2 * 63.546 + 0.5 * 0.5**2
    assert found.best.energy == pytest.approx(base, abs=1e-6)
    results = next(tmp_path.rglob("minima.extxyz")).parent
    read = [ase.io.read(results / name) for name in ("minima.extxyz", "starts.extxyz")]
    with connect(results / "minima.ase.db") as database:
        read += [next(database.select()).toatoms(), found.atoms()[0]]
    for one in read:
        np.testing.assert_allclose(one.positions[:, 1], [0.0, 0.85, 2.0], atol=1e-4)
        assert one.constraints[0].index.tolist() == [0]
        for name in ("tags", "initial_charges", "initial_magmoms", "masses"):
            np.testing.assert_allclose(one.arrays[name], atoms.arrays[name], err_msg=name)
    assert [one.info["charge"] for one in read if "charge" in one.info] == [7, 7, 7]
