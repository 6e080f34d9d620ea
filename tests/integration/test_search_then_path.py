"""Two commands: a search, and a path between two of the minima that it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms
from ase.io import read, write
from click.testing import CliRunner

from mlopt.cli.main import cli

SEARCH = """
experiment: search
system: {{cluster: {formula}}}
potential: {potential}
optimizer: {{name: basin-hopping, temperature: 0.8}}
starts: {starts}
budget: {{force_calls: {calls}}}
engine: eager
seed: 1
"""
PATH = """
experiment: path
model: {{name: atoms, system: {{file: found/results/minima.extxyz}}, potential: {potential}}}
initial: {{file: found/results/minima.extxyz, index: 0}}
final: {{file: found/results/minima.extxyz, index: 1}}
band: {{images: {images}}}
fmax: {fmax}
"""


def mlopt(*arguments: str) -> None:
    done = CliRunner().invoke(cli, [*arguments, "--quiet"], prog_name="mlopt")
    assert done.exit_code == 0, done.output


def path_between(
    formula: str, potential: str, *, starts: int, calls: int, fmax: float, images: int
) -> dict[str, Any]:
    settings = {"formula": formula, "potential": potential, "starts": starts, "calls": calls}
    Path("search.yaml").write_text(SEARCH.format(**settings))
    Path("between.yaml").write_text(PATH.format(potential=potential, fmax=fmax, images=images))
    mlopt("run", "search.yaml", "--out", "found")
    mlopt("run", "between.yaml", "--out", "between")
    summary: dict[str, Any] = json.loads(Path("between/results/summary.json").read_text())
    assert summary["converged"] and summary["negative_modes"] == 1
    assert " atoms exchanged, turned by " in summary["alignment"]
    assert summary["alignment"] in Path("between/log.txt").read_text()
    return summary


def test_seven_lennard_jones_atoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass between the pentagonal bipyramid and the capped octahedron, -15.444734."""
    monkeypatch.chdir(tmp_path)
    summary = path_between("Ar7", "lennard-jones", starts=3, calls=400, fmax=1e-3, images=5)
    assert summary["connects_the_ends"] is True
    assert summary["saddle_energy"] == pytest.approx(-15.444734, abs=1e-5)
    assert summary["barrier_forward"] == pytest.approx(1.060650, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "formula, potential, fmax, most",
    [("Ar13", "lennard-jones", 1e-3, 5.0), ("Cu13", "{name: ase, calculator: emt}", 1e-2, 1.5)],
    ids=["LJ13", "Cu13"],
)
def test_thirteen_atoms(
    formula: str, potential: str, fmax: float, most: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    summary = path_between(formula, potential, starts=4, calls=600, fmax=fmax, images=5)
    assert 0.0 < summary["barrier_reverse"] < summary["barrier_forward"] < most


@pytest.mark.slow
def test_an_adatom_on_a_slab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copper on Cu(111), from the one hollow place to the other."""
    monkeypatch.chdir(tmp_path)
    slab = fcc111("Cu", size=(3, 3, 3))
    add_adsorbate(slab, "Cu", 1.8, "fcc")
    slab.center(axis=2, vacuum=5.0)
    slab.pbc = [True, True, False]
    slab.set_constraint(FixAtoms(mask=[atom.tag > 1 for atom in slab]))
    slab.info.clear()
    write("slab.extxyz", slab)
    emt = "{name: ase, calculator: emt}"
    search = SEARCH.replace("{{cluster: {formula}}}", "{{file: slab.extxyz}}")
    search = search.replace(
        "temperature: 0.8", "temperature: 0.1, moves: [{{name: displacement, step: 0.25}}]"
    )
    search += "start: {{name: given}}\n"
    Path("search.yaml").write_text(search.format(potential=emt, starts=3, calls=300))
    mlopt("run", "search.yaml", "--out", "found")
    fixed = slab.constraints[0].index.tolist()
    assert all(one.constraints[0].index.tolist() == fixed for one in read("found/results/minima.extxyz", ":"))
    Path("between.yaml").write_text(PATH.format(potential=emt, fmax=0.01, images=3))
    mlopt("run", "between.yaml", "--out", "between")
    summary = json.loads(Path("between/results/summary.json").read_text())
    assert summary["converged"] and summary["negative_modes"] == 1 and summary["connects_the_ends"] is True
    assert 0.03 < summary["barrier_reverse"] < summary["barrier_forward"] < 0.1
