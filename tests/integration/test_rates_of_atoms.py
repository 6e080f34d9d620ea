"""Rates of atoms, from structure files to the summary of ``mlopt run``, against frequencies by ASE."""

from __future__ import annotations

import json
import math
from pathlib import Path

import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc100
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.vibrations import Vibrations
from click.testing import CliRunner

from mlopt.cli.main import cli
from mlopt.core.atoms.units import Units

RUN = """
experiment: path
model:
  name: atoms
  system: {file: initial.extxyz}
  potential: {name: ase, calculator: emt}
initial: {file: initial.extxyz}
final: {file: final.extxyz}
band: {images: 5}
optimizer: {name: lbfgs, max_step: 0.1}
fmax: 1.0e-4
saddle: {temperature: 300.0}
"""


def hop(folder: Path, mass: float | None) -> None:
    """An adatom on Cu(100), everything below it fixed, in one hollow and in the next."""
    for name, shift in (("initial", 0.0), ("final", 1.0)):
        atoms = fcc100("Cu", (2, 2, 2), vacuum=6.0)
        step = atoms.cell[0, 0] / 2.0
        add_adsorbate(atoms, "Cu", 1.6, "hollow")
        atoms.positions[-1, 0] += shift * step
        atoms.set_constraint(FixAtoms(range(len(atoms) - 1)))
        atoms.info = {"surface": "Cu(100)"}
        if mass is not None:
            atoms.set_masses([*atoms.get_masses()[:-1], mass])
        ase.io.write(folder / f"{name}.extxyz", atoms)


def frequencies(atoms: Atoms, folder: Path) -> list[complex]:
    """Of the adatom, 1/s; an imaginary one first."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    vibrations = Vibrations(atoms, indices=[len(atoms) - 1], name=str(folder), delta=1e-3, nfree=4)
    vibrations.run()
    found = vibrations.get_energies() * ase.units._e / ase.units._hplanck
    return sorted(found, key=lambda one: one.real)


@pytest.mark.parametrize("mass", [None, 4.0 * 63.546])
def test_a_hop_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mass: float | None) -> None:
    hop(tmp_path, mass)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hop.yaml").write_text(RUN)
    done = CliRunner().invoke(
        cli, ["run", "hop.yaml", "--out", "run", "--quiet", "--json"], prog_name="mlopt"
    )
    assert done.exit_code == 0, done.output
    summary = json.loads(done.output)
    barrier = summary["barrier_forward"]
    assert summary["negative_modes"] == 1 and summary["units"] == str(Units())
    assert f"barrier {barrier:.6g} eV, back" in summary["headline"]
    images = ase.io.read(tmp_path / "run/results/path.extxyz", ":")
    saddle = ase.io.read(tmp_path / "run/results/saddle.extxyz")
    for atoms in [*images, saddle]:  # what the files said is in the files that come out
        np.testing.assert_array_equal(atoms.constraints[0].index, range(len(atoms) - 1))
        assert atoms.info["surface"] == "Cu(100)" and (atoms.get_tags()[:8] == [2] * 4 + [1] * 4).all()
        assert atoms.get_masses()[-1] == (mass or 63.546)
    low, high = frequencies(images[0], tmp_path / "low"), frequencies(saddle, tmp_path / "high")
    assert abs(high[0].real) < 1e-3 * abs(high[0].imag)
    prefactor = np.prod(np.real(low)) / np.prod(np.real(high[1:]))
    assert summary["prefactor"] == pytest.approx(prefactor, rel=1e-5)
    lifetime = math.exp(barrier / (ase.units.kB * 300.0)) / prefactor
    assert summary["lifetime_s"] == pytest.approx(lifetime, rel=1e-4) and 1e-9 < lifetime < 1.0
    expected = 2.6e12 if mass is None else 1.3e12
    assert expected / 3 < prefactor < 3 * expected
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"{barrier:.6g} eV" in page and "eV, angstrom," not in page
    assert "eV, angstrom" not in (tmp_path / "run/results/profile.svg").read_text()
