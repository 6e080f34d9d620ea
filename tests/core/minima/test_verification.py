"""Records that are evaluated again: within what the potential repeats, and nothing is thrown away."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from mlopt.core.minima.store import MinimaStore, Minimum, verify
from mlopt.core.minima.verification import Reading, check_records


class Rough:
    """Energies that repeat to ``noise`` relative to their size; counts what it evaluates."""

    def __init__(self, energies: list[float], noise: float) -> None:
        self.energies, self.noise, self.calls = energies, noise, 0
        self.random = np.random.default_rng(3)

    def __call__(self, indices: list[int]) -> list[Reading]:
        self.calls += len(indices)
        return [
            Reading(self.energies[i] * (1.0 + self.noise * self.random.uniform(-1, 1)), 1e-5) for i in indices
        ]


ENERGIES = [-40.0 - k for k in range(30)]


@pytest.mark.parametrize("noise", [1e-7, 1e-5])
def test_the_tolerance_is_what_the_potential_repeats(noise: float) -> None:
    evaluate = Rough(ENERGIES, noise)
    stored = [one.energy for one in evaluate(list(range(30)))]
    evaluate.calls = 0
    check = check_records(stored, evaluate, force_tolerance=1e-3)
    assert not check.missed and check.repeats is not None
    assert noise / 5 < check.repeats < 2.1 * noise
    assert check.tolerance == pytest.approx(10 * check.repeats)
    assert check.within(-99.0) == pytest.approx(100 * check.tolerance)
    assert check.calls == evaluate.calls <= 30 + 12
    stored[7] *= 1.0 + 1e3 * noise  # and what is really off is still seen
    check = check_records(stored, evaluate, force_tolerance=1e-3)
    assert check.missed == [7]
    assert "differs from the stored" in check.verifications[7].reason


def test_a_potential_that_repeats_costs_one_evaluation_of_each() -> None:
    evaluate = Rough(ENERGIES, 0.0)
    check = check_records(ENERGIES, evaluate)
    assert (check.calls, check.repeats, check.tolerance, check.missed) == (30, None, 1e-9, [])
    off = [-40.0 + 1e-6, *ENERGIES[1:]]
    check = check_records(off, evaluate)  # noise cannot be the reason
    assert check.missed == [0] and check.repeats == 0.0 and check.tolerance == 1e-9
    assert check_records([], evaluate).verifications == []


def test_what_fails_when_it_is_evaluated_again_is_missed() -> None:
    check = check_records([-1.0], lambda indices: [Reading(float("nan"), float("nan")) for _ in indices])
    assert check.missed == [0] and "energy nan differs" in check.verifications[0].reason


def test_one_minimum_of_a_rough_potential_verifies() -> None:
    rough = Rough([-3.0], 1e-7)
    minimum = Minimum(-3.0 * (1 + 1e-7), np.zeros((1, 3)), np.array([18]), max_force=0.0, potential="lj")
    told = verify(minimum, lambda *_: (rough([0])[0].energy, np.zeros((1, 3))), 1e-3, 1e-9)
    assert told.ok and told.reason == ""


def test_notes_are_kept_and_older_files_are_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "minima.db"
    notes: dict[str, float | bool] = {"verified": False, "energy_again": -1.5}
    one = Minimum(-1.0, np.zeros((1, 3)), np.array([18]), max_force=0.0, potential="lj")
    with MinimaStore(path) as store:
        store.add(one)
    database = sqlite3.connect(path)  # as version 1 wrote it
    database.execute("ALTER TABLE minima DROP COLUMN notes")
    database.execute("PRAGMA user_version = 1")
    database.commit()
    database.close()
    with MinimaStore(path) as store:
        assert store.get(1).notes == {}
        store.note(1, notes)
    with MinimaStore(path) as store, MinimaStore(tmp_path / "other.db") as other:
        assert store.get(1).notes == notes and store.get(1).to_atoms(1).info["energy_again"] == -1.5
        other.merge_from(store)
        assert other.get(1).notes == notes
        store.to_extxyz(tmp_path / "minima.extxyz")
        store.to_ase_db(tmp_path / "minima.ase.db")
    assert "verified=F" in (tmp_path / "minima.extxyz").read_text()
