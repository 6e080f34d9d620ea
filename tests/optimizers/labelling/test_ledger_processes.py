"""Several processes on one ledger, processes that are killed, and claims of the dead."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from counted_labels import Counting, kill_labelling, payments, springs

from mlopt.core import Context
from mlopt.optimizers.labelling import Ledger, labelled
from mlopt.optimizers.labelling.ledger import Claim
from mlopt.optimizers.labelling.owners import Owner, Witness

FORK = multiprocessing.get_context("fork")


def label_all(folder: Path, name: str, count: int, seconds: float) -> None:
    with Ledger(folder / "labels.db") as ledger:
        labeller = Counting(paid=str(folder / name), seconds=seconds)
        assert labelled(ledger, labeller, springs(count)).with_energy.all()


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    workers = [FORK.Process(target=label_all, args=(tmp_path, name, 30, 0.01)) for name in ("a", "b")]
    for one in workers:
        one.start()
    for one in workers:
        one.join(60)
        assert one.exitcode == 0
    a, b = payments(tmp_path / "a"), payments(tmp_path / "b")
    assert sorted(a + b) == [float(one) for one in range(1, 31)], "each label is computed once"
    assert a and b, "and both have worked"
    with Ledger(tmp_path / "labels.db") as ledger:
        assert ledger.counts()[0].done == 30
        assert ledger._rows("SELECT * FROM owners") == []


def test_kills_lose_no_label_and_pay_none_twice(tmp_path: Path) -> None:
    told = kill_labelling(tmp_path, 10)
    assert told == {"killed": 10, "lost": 0, "twice": 0, "wrong": 0}


class Told(Context):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)


def claim_and_die(path: Path, first: int, count: int) -> None:
    with Ledger(path) as ledger, ledger.claiming():
        _claim(ledger, path, range(first, first + count))
        os._exit(0)


def _claim(ledger: Ledger, path: Path, places: range) -> list[Claim]:
    from mlopt.optimizers.labelling.identity import label_key, labeller_key, settings_of, structure_keys

    labeller, systems = Counting(paid=str(path.parent / "paid")), springs(max(places) + 1)
    own, number = labeller_key(settings_of(labeller)), ledger.enter(labeller)
    structures = structure_keys(systems)
    return [
        ledger.claim(label_key(structures[one], own), structures[one], systems[one], number, 1)
        for one in places
    ]


def test_claims_of_a_dead_process_pass_on_and_come_last(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    child = FORK.Process(target=claim_and_die, args=(path, 0, 2))
    child.start()
    child.join()
    told = Told()
    with Ledger(path) as ledger:
        assert ledger.counts()[0].claimed == 2
        found = labelled(ledger, Counting(paid=str(tmp_path / "paid")), springs(4), context=told)
    assert found.with_energy.all()
    assert payments(tmp_path / "paid") == [3.0, 4.0, 1.0, 2.0], "what a process has died of comes last"
    assert len(told.lines) == 2
    assert told.lines[0].startswith(f"warning: process {child.pid} on ")
    assert told.lines[0].endswith("has died while it computed label 1; it is computed again")


def test_claims_of_a_living_process_stand_until_it_gives_them_back(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    with Ledger(path) as ledger, Ledger(path) as other:
        with ledger.claiming():
            assert _claim(ledger, path, range(2)) == [Claim.OURS] * 2
            with other.claiming():
                assert _claim(other, path, range(3)) == [Claim.THEIRS, Claim.THEIRS, Claim.OURS]
            assert ledger.counts()[0].claimed == 2
        assert ledger.counts()[0].claimed == 0
        with other.claiming():
            assert _claim(other, path, range(2)) == [Claim.OURS] * 2


def test_a_silent_process_of_another_machine_is_dead() -> None:
    far = Owner("far", "elsewhere boot", os.getpid(), "1")
    patient, hasty = Witness(stale=1e6), Witness(stale=-1.0)
    assert not patient.is_dead(far, 1) and not patient.is_dead(far, 1)
    assert not hasty.is_dead(far, 1), "it may have begun this instant"
    assert hasty.is_dead(far, 1), "no heartbeat since the last look"
    assert not hasty.is_dead(far, 2)


def test_a_process_of_the_same_number_is_another() -> None:
    here = Owner.here()
    parent = Owner("parent", here.place, os.getppid(), "")
    assert Witness().is_dead(parent, 0), "it has another birth"
    gone = Owner("gone", here.place, 2**22 - 3, here.birth)
    assert Witness().is_dead(gone, 0)
    assert here.birth, "Linux tells when a process began"


def test_a_ledger_takes_claims_only_from_owners(tmp_path: Path) -> None:
    from mlopt.core import InputError

    with (
        Ledger(tmp_path / "labels.db") as ledger,
        pytest.raises(InputError, match="made inside `with ledger"),
    ):
        _claim(ledger, tmp_path / "labels.db", range(1))
