"""Labels from elsewhere: out, back, in part, in another order, and with every fault that people make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from mlopt.core import InputError, Systems
from mlopt.core.atoms.dataset import Dataset
from mlopt.core.runs.experiment import Preempted
from mlopt.optimizers.labelling import Ledger, Mailbox, PotentialLabeller, labelled
from mlopt.optimizers.labelling.units import unlike_units
from mlopt.potentials import AsePotential


def copper(count: int = 4, stdev: float = 0.15) -> Systems:
    images = []
    for seed in range(count):
        atoms = bulk("CuAu", crystalstructure="rocksalt", a=5.4, cubic=True)
        atoms.rattle(stdev, seed=seed)
        atoms.info["note"] = f"number {seed}"
        images.append(atoms)
    return Systems.from_atoms(images)


def answers(folder: Path, change: Callable[[int, Atoms], Atoms | None] = lambda index, atoms: atoms) -> None:
    """Label what is asked for, as a person with a program does; ``change`` spoils it, or leaves it out."""
    back = []
    for index, atoms in enumerate(read(folder / "to-label.extxyz", ":")):
        atoms.calc = EMT()  # type: ignore[no-untyped-call]
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        changed = change(index, atoms)
        if changed is not None:
            back.append(changed)
    write(folder / "labelled.extxyz", back)


def ask(folder: Path, systems: Systems, **settings: object) -> Dataset:
    with Ledger(folder / "labels.db") as ledger:
        return labelled(ledger, Mailbox(folder=str(folder / "box"), **settings), systems)


def test_out_and_back_in_parts(tmp_path: Path) -> None:
    systems, box = copper(), tmp_path / "box"
    with pytest.raises(
        Preempted, match=r"4 structures to label are in .*to-label.extxyz; put their labels into"
    ):
        ask(tmp_path, systems)
    sent = read(box / "to-label.extxyz", ":")
    assert [one.info["note"] for one in sent] == [f"number {index}" for index in range(4)]
    answers(box, lambda index, atoms: None if index == 2 else atoms)
    with pytest.raises(Preempted, match="1 structures to label"):
        ask(tmp_path, systems)
    with Ledger(tmp_path / "labels.db") as ledger:
        assert (ledger.counts()[0].done, ledger.counts()[0].claimed) == (3, 0)
    (last,) = read(box / "to-label.extxyz", ":")
    assert last.info["note"] == "number 2"
    answers(box)
    found = ask(tmp_path, systems)
    expected = PotentialLabeller(potential=AsePotential(calculator="emt")).label(systems)
    assert torch.equal(found.systems.pos, systems.pos), "not those that a file has rounded"
    assert torch.allclose(found.energy, expected.energy, atol=1e-6)
    assert torch.allclose(found.force, expected.force, atol=1e-6)
    assert found.source[0] == f"labelled.extxyz: {sent[0].info['label_id']}"
    (box / "labelled.extxyz").unlink()
    assert ask(tmp_path, systems).with_energy.all(), "the ledger has them"


def test_order_and_wrapping_do_not_matter(tmp_path: Path) -> None:
    systems, box = copper(), tmp_path / "box"
    with pytest.raises(Preempted):
        ask(tmp_path, systems)

    def wrapped(index: int, atoms: Atoms) -> Atoms:
        results = atoms.calc.results
        atoms.positions += index * atoms.cell[0]
        atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms

    answers(box, wrapped)
    write(box / "labelled.extxyz", read(box / "labelled.extxyz", ":")[::-1])
    assert ask(tmp_path, systems).with_energy.all()


def _with(atoms: Atoms, **results: object) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, **(dict(atoms.calc.results) | results))
    return atoms


def _moved(atoms: Atoms) -> Atoms:
    results = atoms.calc.results
    atoms.positions[3, 1] += 0.01
    return _with(_bare(atoms, results))


def _bare(atoms: Atoms, results: dict[str, object]) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _changed(atoms: Atoms, do: Callable[[Atoms], object]) -> Atoms:
    results = atoms.calc.results
    do(atoms)
    return _bare(atoms, results)


FAULTS: dict[str, tuple[Callable[[Atoms], Atoms], str]] = {
    "no id": (
        lambda atoms: _changed(atoms, lambda one: one.info.pop("label_id")),
        "has no `label_id`: copy that",
    ),
    "moved": (_moved, r"atom 3 \(Au\) is 0.01 angstrom from where it was in to-label.extxyz"),
    "species": (
        lambda atoms: _changed(atoms, lambda one: one.symbols.__setitem__(0, "Ag")),
        "its atoms are AgAu4Cu3, those of to-label.extxyz Au4Cu4",
    ),
    "order": (
        lambda atoms: _changed(atoms, lambda one: one.set_atomic_numbers(one.numbers[::-1])),
        "its atoms are in another order",
    ),
    "cell": (
        lambda atoms: _changed(atoms, lambda one: one.set_cell(one.cell.array * 1.01)),
        "its cell differs from that of to-label.extxyz by 0.054 angstrom",
    ),
    "pbc": (lambda atoms: _changed(atoms, lambda one: one.set_pbc(False)), "its periodic directions are"),
    "nan": (lambda atoms: _with(atoms, energy=float("nan")), "`energy` is not finite"),
    "nan force": (lambda atoms: _with(atoms, forces=np.full((8, 3), np.nan)), "`forces` is not finite"),
    "no forces": (
        lambda atoms: _bare(atoms, {"energy": atoms.calc.results["energy"]}),
        "an energy and forces are needed",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line_each_and_the_rest_is_kept(tmp_path: Path, fault: str) -> None:
    systems, box = copper(), tmp_path / "box"
    with pytest.raises(Preempted):
        ask(tmp_path, systems)
    spoil, said = FAULTS[fault]
    answers(box, lambda index, atoms: spoil(atoms) if index in (1, 2) else atoms)
    with pytest.raises(InputError, match=said) as refused:
        ask(tmp_path, systems)
    lines = str(refused.value).splitlines()
    assert len(lines) == 2 and "labelled.extxyz: frame 1" in lines[0] and "frame 2" in lines[1]
    with Ledger(tmp_path / "labels.db") as ledger:
        assert (ledger.counts()[0].done, ledger.counts()[0].claimed) == (2, 0)
    answers(box)
    assert ask(tmp_path, systems).with_energy.all()


@pytest.mark.parametrize(
    ("energy", "force", "said"),
    [
        (23.0605, 1.0, "energies differ by .* energies seem to be in kcal/mol"),
        (1.0 / 27.2114, 1.0, "in hartree"),
        (1.0, -1.0, "forces seem to be gradients"),
        (1.0 / 27.2114, 1.0 / 51.4221, "both seem to be in atomic units"),
        (7.0, 1.0, "one of the two is of another unit or sign"),
    ],
)
def test_other_units_are_noticed(tmp_path: Path, energy: float, force: float, said: str) -> None:
    systems, box = copper(6, 0.02), tmp_path / "box"
    with pytest.raises(Preempted):
        ask(tmp_path, systems)
    answers(
        box,
        lambda _, atoms: _with(
            atoms, energy=energy * atoms.calc.results["energy"], forces=force * atoms.calc.results["forces"]
        ),
    )
    with pytest.raises(InputError, match=said):
        ask(tmp_path, systems)
    with Ledger(tmp_path / "labels.db") as ledger:
        assert ledger.counts()[0].done == 0


def test_nothing_is_said_of_units_where_nothing_can_be_said() -> None:
    for stdev in (0.02, 0.1, 0.2):
        data = PotentialLabeller(potential=AsePotential(calculator="emt")).label(copper(6, stdev))
        assert unlike_units(data) is None
    assert unlike_units(data) is None
    assert unlike_units(data.select([0, 1])) is None, "too few"
    assert unlike_units(data.select([])) is None
    noise = torch.randn(data.energy.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert unlike_units(Dataset(data.systems, 100.0 * noise, data.force)) is None, (
        "energies that go with nothing"
    )


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    box = tmp_path / "box"
    with pytest.raises(Preempted):
        ask(tmp_path, copper(1))
    (box / "labelled.extxyz").write_text("")
    with pytest.raises(Preempted):
        ask(tmp_path, copper(1))
    (box / "labelled.extxyz").write_text("three\natoms")
    with pytest.raises(InputError, match=r"labelled\.extxyz"):
        ask(tmp_path, copper(1))
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file: cannot be made a folder"):
        Mailbox(folder=str(tmp_path / "file")).label(copper(1))
