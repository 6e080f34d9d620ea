"""`mlopt export` and `mlopt status` of a ledger: files for other programs, counts, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import read

from mlopt.core import Systems
from mlopt.core.structures import read_dataset
from mlopt.optimizers.labelling import Ledger, PotentialLabeller, labelled
from mlopt.potentials import AsePotential

LABELLER = PotentialLabeller(potential=AsePotential(calculator="emt"))


def copper(count: int) -> Systems:
    images = []
    for seed in range(count):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=seed)
        atoms.info["config_type"] = "rattled"
        images.append(atoms)
    return Systems.from_atoms(images)


@pytest.fixture
def ledger(here: Path) -> Path:
    """Three labels, and one that failed."""
    path = here / "labels.db"
    broken = bulk("Cu", cubic=True)
    broken.positions[1] = broken.positions[0]
    with Ledger(path) as opened:
        labelled(opened, LABELLER, Systems.concatenate([copper(3), Systems.from_atoms(broken)]))
    return path


def test_export_reads_back(mlopt, here, ledger):
    result = mlopt("export", "labels.db", "-o", "out.extxyz")
    assert result.out == "wrote 3 labels to out.extxyz\n"
    data = read_dataset(here / "out.extxyz")
    with Ledger(ledger) as opened:
        kept = opened.dataset()
    assert data.group == ("rattled",) * 3 and data.energy.allclose(kept.energy)
    assert data.force.allclose(kept.force, atol=1e-7) and data.stress.allclose(kept.stress, atol=1e-7)
    assert read(here / "out.extxyz").info["labeller"] == "potential"
    assert json.loads(mlopt("export", "labels.db", "-o", "out.db", "--json").out) == {
        "file": "out.db",
        "count": 3,
    }
    atoms = read(here / "out.db@:")
    assert [one.get_potential_energy() for one in atoms] == kept.energy.tolist()
    assert (atoms[1].get_forces() == kept.select([1]).force.numpy()).all()


def test_failures_are_exported_with_their_reason(mlopt, here, ledger):
    assert mlopt("export", "labels.db", "-o", "bad.extxyz", "--failed").out == (
        "wrote 1 failed structure to bad.extxyz\n"
    )
    atoms = read(here / "bad.extxyz")
    assert atoms.info["failure"].startswith("the calculator 'emt' gives no finite energy and force")
    assert atoms.calc is None


def test_status_of_a_ledger(mlopt, here, ledger):
    told = json.loads(mlopt("status", "labels.db", "--json").out)["labellers"]
    assert [(one["done"], one["failed"], one["claimed"]) for one in told] == [(3, 1, 0)]
    assert told[0]["settings"]["potential"]["calculator"] == "emt" and told[0]["seconds"] > 0.0
    head, row = mlopt("status", "labels.db").out.splitlines()
    assert head.split()[:5] == ["number", "labeller", "done", "failed", "claimed"]
    assert row.split()[:5] == ["1", "potential", "3", "1", "0"]


def test_labels_of_several_settings_are_not_mixed(mlopt, refuse, here, ledger):
    with Ledger(ledger) as opened:
        labelled(opened, LABELLER.replace(edition="new"), copper(2))
    refuse(
        ["export", "labels.db", "-o", "out.extxyz"],
        "has labels of 2 labellers or settings: potential (number 1), potential (number 2)",
        "edition: none and",
        "say which by its number",
    )
    assert not (here / "out.extxyz").exists()
    assert (
        mlopt("export", "labels.db", "-o", "out.extxyz", "--labeller", "2").out
        == "wrote 2 labels to out.extxyz\n"
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["export", "none.db", "-o", "out.extxyz"], ["none.db: there is no such file"]),
        (["status", "text.db"], ["text.db is not a SQLite file, so not a ledger of labels"]),
        (["export", "labels.db", "-o", "out.csv"], ["write to a file that ends in .extxyz or .db"]),
        (["export", "labels.db", "-o", "labels.db"], ["labels.db is a database of mlopt"]),
        (
            ["export", "labels.db", "-o", "out.db", "--labeller", "vasp"],
            ["has no labels of 'vasp'", "potential (number 1)"],
        ),
        (["export", "empty.db", "-o", "out.db"], ["empty.db has no label to write"]),
        (["export", "labels.db"], ["Missing option '-o'"]),
    ],
)
def test_refusals(refuse, here, ledger, args, words):
    (here / "text.db").write_text("some text that is long enough")
    Ledger(here / "empty.db").close()
    refuse(args, *words)
    assert not (here / "none.db").exists() and not (here / "out.db").exists()
