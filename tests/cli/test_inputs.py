"""A run reads its files once: they may change or vanish afterwards, whatever kind of run it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import read, write

from mlopt.core.runs.config import read_yaml
from mlopt.core.runs.directory import RunDirectory

PATH = """
experiment: path
model: {name: atoms, system: {file: start.extxyz}, potential: lennard-jones}
initial: {file: start.extxyz}
final: {file: end.extxyz}
start: {way: straight, keys: [{file: middle.extxyz}]}
band: {images: 3}
ends: {align: none, relax: false, fmax: 1.0e+3}
evaluations: 6
saddle: {modes: 0, connect: false}
"""
SEARCH = """
experiment: search
system: {file: start.extxyz}
potential: lennard-jones
optimizer: fire
starts: 1
budget: {force_calls: 30}
"""
CONTEST = """
experiment: contest
systems: [{system: {file: start.extxyz}, potential: lennard-jones, start: given}]
contestants: [{label: fire, optimizer: fire}, {label: lbfgs, optimizer: lbfgs}]
starts: 1
force_calls: 20
"""
NETWORK = """
experiment: network
system: {file: start.extxyz}
potential: lennard-jones
searches: 4
rounds: 1
patience: 1
force_calls: 300
fmax: 1.0e-3
"""
TRAINING = """
experiment: meta-train
task: {name: rollout, members: [{system: {cluster: Ar3}, potential: lennard-jones, reference: -3.0}],
  learnable: classic, horizon: 4, starts: 2, held_out: {starts: 2, descent: 2}}
trainer: {name: es, population: 2}
epochs: 3
theta: theta.safetensors
"""
LEARNED = SEARCH.replace("fire", "{name: learned, weights: mine.safetensors}")
KINDS = {
    "search": (SEARCH, "starts.json"),
    "contest": (CONTEST, "02-lbfgs-on-start/starts.json"),
    "path": (PATH, "profile.csv"),
    "network": (NETWORK, "minima.extxyz"),
    "meta-train": (TRAINING, "theta.safetensors"),
    "learned": (LEARNED, "starts.json"),
}


@pytest.fixture
def files(here: Path, quick: list[Path]) -> Path:
    """Three atoms, one of them fixed, that move past each other; weights; parameters."""
    atoms = Atoms("Ar4", [[0, 0, 0], [1.1, 0, 0], [0.5, 0.95, 0], [0.6, 0.3, 0.9]], constraint=FixAtoms([0]))
    for name, height in (("start", 0.9), ("middle", 0.1), ("end", -0.9)):
        atoms.positions[3, 2] = height
        write(here / f"{name}.extxyz", atoms)
    return here


def write_weights(here: Path) -> None:
    import shutil

    from mlopt.core.files.weights import path_of

    for suffix in (".safetensors", ".json"):
        shutil.copy(path_of("lj-small").with_suffix(suffix), here / f"mine{suffix}")


def write_theta(here: Path) -> None:
    from safetensors.torch import save_file

    save_file({"theta": torch.full((4,), 0.3, dtype=torch.float64)}, str(here / "theta.safetensors"))


@pytest.mark.parametrize(
    "kind",
    [pytest.param(one, marks=[pytest.mark.slow] if one in ("network", "learned") else []) for one in KINDS],
)
def test_the_originals_may_vanish(mlopt, files, kind):
    """Without the copies a path fails at its very end, and the others when they are resumed."""
    text, result = KINDS[kind]
    if kind == "learned":
        write_weights(files)
    if kind == "meta-train":
        write_theta(files)
    originals = [path for path in files.iterdir() if path.is_file()]
    (files / "mine.yaml").write_text(text)
    whole = mlopt("run", "mine.yaml", "--out", "whole")
    assert whole.code == 0, whole.err
    stopped = mlopt("run", "mine.yaml", "--out", "x", "--max-minutes", "1e-9")
    assert stopped.code == 75, stopped.err
    for path in originals:
        path.unlink()
    resumed = mlopt("resume", "x")
    assert resumed.code == 0, resumed.err
    assert "cannot be read any more since the run began: it goes on with the copy" in resumed.err
    assert (files / "x/results" / result).read_bytes() == (files / "whole/results" / result).read_bytes()
    settings = read_yaml((files / "x" / "config.resolved.yaml").read_text())
    assert str(files / "x") not in str(settings), "the configuration keeps the user's own paths"


def test_an_end_of_a_path_that_lost_its_fixed_atoms(mlopt, files):
    (files / "mine.yaml").write_text(PATH)
    mlopt("run", "mine.yaml", "--out", "whole")
    mlopt("run", "mine.yaml", "--out", "x", "--max-minutes", "1e-9")
    for name in ("start", "middle", "end"):
        atoms = read(files / f"{name}.extxyz")
        atoms.set_constraint()
        write(files / f"{name}.extxyz", atoms)
    resumed = mlopt("resume", "x", "--json")
    assert "start.extxyz has changed since the run began" in resumed.err
    whole = json.loads((files / "whole/results/summary.json").read_text())
    assert json.loads(resumed.out)["barrier_forward"] == whole["barrier_forward"]
    assert mlopt("run", "mine.yaml", "--out", "y", "--json").code == 0
    other = json.loads((files / "y/results/summary.json").read_text())
    assert other["barrier_forward"] != whole["barrier_forward"], "the test must be able to fail"


def test_a_file_edited_during_a_run(mlopt, here, plugins, quick):
    """An experiment of a third party, whose file is a setting of the type `InputFile`."""
    (here / "number").write_text("5.0")
    (here / "mine.yaml").write_text("experiment: sines\nsteps: 6\nsource: number\ntrouble: signal\n")
    assert mlopt("run", "mine.yaml", "--out", "x").code == 75
    assert mlopt("run", "mine.yaml", "--out", "whole", "-s", "trouble='no'").code == 0
    (copy,) = (here / "x" / "inputs").glob("*/number")
    assert copy.read_text() == "5.0"
    (here / "number").write_text("6.0")
    assert mlopt("resume", "x").code == 0
    final = [(here / name / "results" / "final.json").read_text() for name in ("x", "whole")]
    assert final[0] == final[1]


@pytest.fixture
def stopped(mlopt, here, plugins, quick) -> Path:
    (here / "number").write_text("5.0")
    (here / "mine.yaml").write_text("experiment: sines\nsteps: 6\nsource: number\ntrouble: signal\n")
    assert mlopt("run", "mine.yaml", "--out", "x").code == 75
    (copy,) = (here / "x" / "inputs").glob("*/number")
    return copy


@pytest.mark.parametrize("damage", ["changed", "gone", "folder"])
def test_a_damaged_copy(mlopt, here, stopped, refuse, damage):
    stopped.unlink()
    if damage == "changed":
        stopped.write_text("7.0")
    if damage == "folder":
        stopped.mkdir()
    number = here / "number"
    number.rename(here / "away")
    before = RunDirectory.open(here / "x").read_status()
    told = mlopt("resume", "x")
    assert told.code == 2 and f"{stopped}: this copy of a file" in told.err
    assert f"the original, {number}, cannot be read any more. Put back the file with the SHA-256 " in told.err
    assert RunDirectory.open(here / "x").read_status() == before
    if damage == "folder":
        stopped.rmdir()
    (here / "away").rename(number)
    told = mlopt("resume", "x")
    assert told.code == 0 and f"was damaged or gone; it was copied again from {number}" in told.err
    assert stopped.read_text() == "5.0"


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1, "files": [{"place": "source"}]}'])
def test_a_damaged_list(mlopt, here, stopped, text):
    (here / "x" / "inputs" / "inputs.json").write_text(text)
    told = mlopt("resume", "x")
    assert told.code == 2 and "inputs.json: cannot be read" in told.err and "Restore it" in told.err


def test_other_files_than_the_checkpoint_knows(mlopt, here, stopped):
    """Whoever removes the list of files does not get another result."""
    import shutil

    shutil.rmtree(here / "x" / "inputs")
    (here / "number").write_text("8.0")
    told = mlopt("resume", "x")
    assert told.code == 2 and "written by a run whose file for `source` was another one" in told.err


def test_a_refused_run_leaves_no_copy(mlopt, here, plugins, quick):
    (here / "number").write_text("5.0")
    (here / "mine.yaml").write_text("experiment: sines\nsource: number\ntrouble: 'no'\nforbidden: true\n")
    assert mlopt("run", "mine.yaml", "--out", "x").code == 2
    assert not (here / "x").exists()


def test_weights_that_ship_are_compared_alone(mlopt, files):
    (files / "mine.yaml").write_text(SEARCH.replace("fire", "{name: learned, weights: lj-small}"))
    assert mlopt("run", "mine.yaml", "--out", "x", "--max-minutes", "1e-9").code == 75
    listed = files / "x" / "inputs" / "inputs.json"
    told = json.loads(listed.read_text())
    assert [(one["place"], one["copy"] is None) for one in told["files"]] == [
        ("system.file", False),
        ("optimizer.weights", True),
        ("optimizer.weights", True),
    ]
    other = "0" * 64
    listed.write_text(listed.read_text().replace(told["files"][1]["sha256"], other))
    refused = mlopt("resume", "x")
    assert refused.code == 2 and "lj-small.safetensors has changed since the run began" in refused.err
    assert (
        f"it ships with mlopt, or is larger than 268,435,456 bytes. Put back the file with the SHA-256 {other}"
        in (refused.err)
    )


def test_a_file_that_changes_while_the_run_starts(files):
    from mlopt.core.errors import InputError
    from mlopt.core.plugins.plugin import build
    from mlopt.core.runs.kept_files import KeptFiles
    from mlopt.optimizers.experiments.search.experiment import Search

    settings = read_yaml(SEARCH)
    del settings["experiment"]
    found = KeptFiles.of(build(Search, settings))
    (files / "start.extxyz").write_text("1\n\nAr 0 0 0\n")
    with pytest.raises(
        InputError, match=r"`system\.file`: .*start\.extxyz changed while the run was starting"
    ):
        found.store(files / "inputs")


def test_a_file_of_a_calculator(files):
    """The potential file of an `eam` is one that a run reads; relative paths hold wherever it is resumed."""
    from mlopt.core.plugins.plugin import build
    from mlopt.core.runs.kept_files import KeptFiles, over_files
    from mlopt.optimizers.experiments.search.experiment import Search

    (files / "Cu.eam.alloy").write_text("not read here")
    settings = read_yaml(SEARCH) | {
        "potential": {"name": "ase", "calculator": "eam", "parameters": {"potential": "Cu.eam.alloy"}}
    }
    del settings["experiment"]
    search = build(Search, settings)
    assert KeptFiles.of(search).digests.keys() == {"system.file", "potential.parameters.potential"}
    seen = []
    same = over_files(search, lambda place, value, reads: seen.append((place, value)) or value)
    assert same is search and seen[1][1] == str(files / "Cu.eam.alloy")
