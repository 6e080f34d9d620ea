"""The ledger: each label computed once, checked, recorded with its structure, and found again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ase.build import bulk
from counted_labels import Counting, payments, springs

from mlopt.core import Context, InputError, MloptError, Systems, setting
from mlopt.core.atoms.dataset import Dataset
from mlopt.core.runs.experiment import Preempted
from mlopt.core.testing import check_labeller
from mlopt.optimizers.labelling import Ledger, PotentialLabeller, labelled
from mlopt.optimizers.labelling.identity import settings_of, structure_keys
from mlopt.potentials import AsePotential, Gupta, LennardJones


class Log(Context):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "labels.db") as opened:
        yield opened


@pytest.fixture
def counting(tmp_path: Path) -> Counting:
    return Counting(paid=str(tmp_path / "paid"))


def test_the_counting_labeller_keeps_the_contract(counting: Counting) -> None:
    check_labeller(counting, springs(4))
    check_labeller(counting.replace(alone=False), springs(4))


def test_labels_are_those_of_the_labeller_and_are_paid_once(
    ledger: Ledger, counting: Counting, tmp_path: Path
) -> None:
    systems = springs(6)
    expected = counting.replace(paid=str(tmp_path / "other")).label(systems)
    twice = systems.select([3, 0, 3, 5])
    first = labelled(ledger, counting, twice)
    found = labelled(ledger, counting, systems)
    assert payments(tmp_path / "paid") == [4.0, 1.0, 6.0, 2.0, 3.0, 5.0]
    for one, other in ((found, expected), (first, expected.select([3, 0, 3, 5]))):
        assert torch.equal(one.energy, other.energy) and torch.equal(one.force, other.force)
        assert one.source == other.source
    (counts,) = ledger.counts()
    assert (counts.done, counts.failed, counts.claimed, counts.electrons) == (6, 0, 0, 6 * 3 * 18)
    assert len(labelled(ledger, counting, systems.select([]))) == 0


def test_an_empty_ledger_has_no_labels(ledger: Ledger) -> None:
    assert len(ledger.dataset()) == len(ledger.images()) == len(ledger.counts()) == 0
    with pytest.raises(InputError, match=r"has no labels of 'vasp'\. It has those of: nobody"):
        ledger.dataset("vasp")


def test_whole_structures_come_back(ledger: Ledger) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.set_tags([1, 2, 3, 4])
    atoms.set_masses([63.0, 65.0, 63.5, 64.0])
    atoms.info["config_type"] = "rattled"
    atoms.pbc = [True, True, False]
    systems = Systems.from_atoms([atoms, bulk("Cu")])
    systems = replace(systems, fixed=torch.tensor([True, False, False, False, False]))
    labeller = PotentialLabeller(potential=AsePotential(calculator="emt"))
    labels = labelled(ledger, labeller, systems)
    assert labels.with_stress.all()
    kept = ledger.dataset()
    for name in ("pos", "z", "ptr", "cell", "pbc", "fixed", "masses"):
        assert torch.equal(getattr(kept.systems, name), getattr(systems, name)), name
    assert torch.equal(kept.stress, labels.stress)
    image = kept.to_atoms()[0]
    assert image.get_tags().tolist() == [1, 2, 3, 4] and image.info["config_type"] == "rattled"


def test_what_counts_as_the_same_structure() -> None:
    atoms = bulk("Cu", cubic=True)
    key = structure_keys(Systems.from_atoms(atoms))[0]

    def changed(**values: object) -> str:
        other = atoms.copy()
        for name, value in values.items():
            getattr(other, f"set_{name}")(value) if hasattr(other, f"set_{name}") else other.info.update(
                {name: value}
            )
        return structure_keys(Systems.from_atoms(other))[0]

    assert changed(tags=[1, 2, 3, 4]) == key == changed(masses=[60.0] * 4) == changed(note="x")
    assert changed(initial_magnetic_moments=[0.0] * 4) == key == changed(charge=0)
    others = {
        changed(initial_magnetic_moments=[1.0, -1.0, 1.0, -1.0]),
        changed(initial_charges=[0.1] * 4),
        changed(charge=1),
        changed(spin=3),
        changed(pbc=[True, True, False]),
        changed(cell=[3.7] * 3),
        changed(positions=atoms.positions + 1e-15),
    }
    assert len(others | {key}) == 8
    negative = atoms.copy()
    negative.positions *= -1.0  # turns 0 into -0, and others into other places
    negative.positions[1:] = atoms.positions[1:]
    assert structure_keys(Systems.from_atoms(negative))[0] == key


def test_failures_are_kept_with_their_reason_and_tried_as_often_as_allowed(
    ledger: Ledger, counting: Counting, tmp_path: Path
) -> None:
    systems, fails = springs(4), counting.replace(fails=(2.0,), attempts=2)
    found = labelled(ledger, fails, systems)
    assert found.with_energy.tolist() == [True, False, True, True] == found.with_force.tolist()
    assert found.source[1] == "it was told to fail"
    assert payments(tmp_path / "paid").count(2.0) == 2
    assert labelled(ledger, fails, systems).source[1] == "it was told to fail"
    assert payments(tmp_path / "paid").count(2.0) == 2, "it is in quarantine"
    assert ledger.counts()[0].failed == 1 and ledger.dataset(failed=True).source == ("it was told to fail",)
    assert ledger._rows("SELECT attempt FROM failures ORDER BY attempt")[1]["attempt"] == 2
    assert labelled(ledger, counting.replace(attempts=3), systems).with_energy.all()
    assert ledger.counts()[0].failed == 0 and len(payments(tmp_path / "paid")) == 6


def test_forgiven_failures_are_tried_again(ledger: Ledger, counting: Counting) -> None:
    labelled(ledger, counting.replace(fails=(1.0,)), springs(1))
    assert not labelled(ledger, counting, springs(1)).with_energy.any()
    assert ledger.forgive() == 1
    assert labelled(ledger, counting, springs(1)).with_energy.all()


def test_a_labeller_that_always_fails_ends_the_run(ledger: Ledger, counting: Counting) -> None:
    bad = counting.replace(fails=tuple(float(one) for one in range(2, 9)), patience=5)
    with pytest.raises(
        MloptError, match=r"5 labels in a row have failed; the last: it was told to fail\. Labels"
    ):
        labelled(ledger, bad, springs(9))
    (counts,) = ledger.counts()
    assert (counts.done, counts.failed, counts.claimed) == (1, 5, 0)


class Wrong(Counting):
    """Bends its labels."""

    how: str = setting("nan", "what is wrong")

    def label(self, systems: Systems) -> Dataset:
        data = super().label(systems)
        if self.how == "moved":
            return replace(data, systems=systems.with_pos(systems.pos + 1e-9))
        if self.how == "fewer":
            return data.select([])
        if self.how == "net":
            return replace(data, force=data.force + 1.0)
        if self.how == "partly":
            return replace(data, force=data.force.index_fill(0, torch.tensor([1]), torch.nan))
        return replace(data, energy=data.energy + float(self.how))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("nan", "springs"),
        ("inf", "springs"),
        ("moved", "Wrong returned other atoms or positions than it was given"),
        ("fewer", "Wrong returned other structures than it was given"),
        ("net", r"the forces add up to 5.2 eV/angstrom instead of zero: not converged"),
        ("partly", "springs"),
    ],
)
def test_labels_that_cannot_be_right_are_failures(
    ledger: Ledger, tmp_path: Path, how: str, reason: str
) -> None:
    found = labelled(ledger, Wrong(paid=str(tmp_path / "paid"), how=how), springs(2))
    assert not found.with_energy.any() and not found.with_force.any()
    assert found.source[0].startswith(reason)


def test_net_forces_are_allowed_where_they_belong(ledger: Ledger, tmp_path: Path) -> None:
    systems = springs(1)
    held = replace(systems, fixed=torch.tensor([True, False, False]))
    wrong = Wrong(paid=str(tmp_path / "paid"), how="net")
    assert labelled(ledger, wrong, held).with_energy.all()
    with Ledger(tmp_path / "field.db") as other:
        assert labelled(other, wrong.replace(net_force=None), systems).with_energy.all()


def test_another_setting_makes_other_labels_and_is_told(
    ledger: Ledger, counting: Counting, tmp_path: Path
) -> None:
    log = Log()
    labelled(ledger, counting, springs(3), context=log)
    assert log.lines == []
    stiff = counting.replace(k=2.0)
    found = labelled(ledger, stiff, springs(3), context=log)
    assert torch.equal(found.energy, 2.0 * labelled(ledger, counting, springs(3)).energy)
    assert log.lines == [
        f"warning: {tmp_path / 'labels.db'} has 3 labels of `Counting` with other settings, not used here: k: 2.0 "
        f"here, 1.0 there"
    ]
    assert ledger.others(stiff) == [log.lines[0].removeprefix("warning: ")]
    assert ledger.others(counting.replace(seconds=0.5, attempts=7)) == [ledger.others(counting)[0]], (
        "how labels are computed is no such setting"
    )
    assert settings_of(counting.replace(edition="b"))["edition"] == "b"


def test_the_content_of_a_file_counts_and_not_its_place(tmp_path: Path) -> None:
    told = []
    for folder, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "Cu.eam.alloy"
        file.write_text(text)
        potential = AsePotential(calculator="eam", parameters={"potential": str(file)})
        told.append(settings_of(PotentialLabeller(potential=potential)))
    assert told[0] == told[1] != told[2]


def test_fitted_parameters_count() -> None:
    from mlopt.potentials import Mtp

    mtp = Mtp(level=4, elements=["Cu"], shortest=2.0)
    one, other = (mtp.with_theta(mtp.parameters + shift) for shift in (0.0, 1e-9))
    first, second = (settings_of(PotentialLabeller(potential=one)) for one in (one, other))
    assert first != second and first["potential"].keys() == second["potential"].keys()


def test_a_pause_keeps_what_is_finished(ledger: Ledger, counting: Counting, tmp_path: Path) -> None:
    paid = tmp_path / "paid"
    for number in range(1, 4):
        with pytest.raises(Preempted):
            labelled(ledger, counting, springs(5), pause=lambda n=number: len(payments(paid)) >= n)
        (counts,) = ledger.counts()
        assert (counts.done, counts.claimed) == (number, 0)
    assert labelled(ledger, counting, springs(5)).with_energy.all()
    assert payments(paid) == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_potential_is_labelled_in_batches_that_grow(ledger: Ledger) -> None:
    labeller = PotentialLabeller(potential=Gupta(cutoff=5.0))
    images = []
    for seed in range(20):
        images.append(bulk("Au", cubic=True))
        images[-1].rattle(0.1, seed=seed)
    systems = Systems.from_atoms(images)
    sizes = [len(done.indices) for done in labeller.stream(systems) if done is not None]
    assert sum(sizes) == 20 and len(sizes) < 20
    found, expected = labelled(ledger, labeller, systems), labeller.label(systems)
    assert torch.equal(found.energy, expected.energy) and torch.equal(found.stress, expected.stress)


def test_refusals_of_the_labeller_leave_no_claims(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="has no parameters for Ar-Ar"):
        labelled(ledger, PotentialLabeller(potential=Gupta()), Systems.cluster([18, 18]))
    assert ledger.counts()[0].claimed == 0
    pos = torch.zeros(2, 3, dtype=torch.float64)
    together = Systems(pos, torch.full((2,), 18), torch.tensor([0, 2]))
    found = labelled(ledger, PotentialLabeller(potential=LennardJones()), together)
    assert found.source == ("the potential LennardJones gives no finite energy and force",)


def test_a_full_disk_loses_nothing_that_was_recorded(
    ledger: Ledger, counting: Counting, tmp_path: Path
) -> None:
    systems = springs(40, n_atoms=200)
    labelled(ledger, counting, systems.select(range(5)))
    pages = ledger._pragma("page_count")
    ledger._database.execute(f"PRAGMA max_page_count = {pages + 30}")
    with pytest.raises(
        MloptError, match=r"database or disk is full\. Free some space and start again\. What was added"
    ):
        labelled(ledger, counting, systems)
    done = ledger.counts()[0].done
    assert 5 <= done < 40
    ledger._database.execute("PRAGMA max_page_count = 1000000")
    paid = len(payments(tmp_path / "paid"))
    assert labelled(ledger, counting, systems).with_energy.all()
    assert len(payments(tmp_path / "paid")) == paid + 40 - done <= 41


def test_files_that_are_no_ledger_are_refused(tmp_path: Path, counting: Counting) -> None:
    from mlopt.core.minima.store import MinimaStore

    text, store, newer = (tmp_path / name for name in ("text.db", "minima.db", "newer.db"))
    text.write_text("no database at all")
    MinimaStore(store).close()
    with Ledger(newer) as ledger:
        ledger._database.execute("PRAGMA user_version = 9")
    for path, said in (
        (text, "text.db is not a SQLite file, so not a ledger of labels"),
        (store, "minima.db is a SQLite file of another program, not a ledger of labels"),
        (newer, r"newer.db was written by a newer mlopt \(schema 9; this one reads up to 1\)"),
        (tmp_path, "is a folder: name the file for the labels in it, such as .*labels.db"),
        (tmp_path / "no" / "labels.db", "cannot be opened: check that its folder exists"),
    ):
        with pytest.raises(InputError, match=said):
            Ledger(path)


def test_damage_is_noticed(tmp_path: Path, counting: Counting) -> None:
    path = tmp_path / "labels.db"
    with Ledger(path) as ledger:
        labelled(ledger, counting, springs(3))
    database = sqlite3.connect(path)
    database.execute("UPDATE labels SET energy = energy + 1e-9 WHERE id = 2")
    database.commit()
    database.close()
    with Ledger(path) as ledger, pytest.raises(MloptError, match="label 2 is not what was written"):
        labelled(ledger, counting, springs(3))
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(MloptError, match=r"labels.db(:? is damaged \(|: )"), Ledger(path) as ledger:
        labelled(ledger, counting, springs(3))


def test_a_file_system_without_wal_is_told(
    tmp_path: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlopt.core.files.database.remote_file_system", lambda path: "nfs4")
    log = Log()
    with Ledger(tmp_path / "labels.db") as ledger:
        labelled(ledger, counting, springs(2), context=log)
        assert ledger._database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert "is on a file system of several machines (nfs4), where SQLite has no WAL journal" in log.lines[0]


def test_parameters_of_a_calculator_of_ase_count() -> None:
    from ase.calculators.lj import LennardJones as AseLennardJones

    told = [
        settings_of(PotentialLabeller(potential=AsePotential.wrap(AseLennardJones(sigma=sigma))))  # type: ignore[no-untyped-call]
        for sigma in (1.0, 1.0, 1.1)
    ]
    assert told[0] == told[1] != told[2]
