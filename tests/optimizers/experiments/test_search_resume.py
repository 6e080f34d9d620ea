"""A search that runs out of time, or is stopped while it polishes; and minima that several searches share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_searches import Counting, distinct, same, search

from mlopt.core.driver.stop import Reason
from mlopt.core.errors import CheckpointError, InputError
from mlopt.core.minima.matching import same_structure
from mlopt.core.minima.store import MinimaStore
from mlopt.core.runs.experiment import Preempted
from mlopt.core.testing.recorder import Recorder, Resumed
from mlopt.optimizers.local.fire import Fire
from mlopt.optimizers.searches.settings import Budget, MinimaSettings


def test_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search(budget=Budget(minutes=1e-9), engine="eager").run()  # fused looks at the clock less often
    assert found.result.reason == [Reason.TIME] * 4 and bool((found.result.calls <= 1).all())
    ticks = iter(range(10**6))  # a clock that goes on by a second whenever it is looked at
    monkeypatch.setattr("mlopt.core.runs.session.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    found = search(budget=Budget(minutes=0.5), engine="eager").run()
    assert [row["reason"] for row in found.table()] == ["time"] * 4
    calls = found.result.calls.tolist()
    assert len(set(calls)) == 1 and 28 <= calls[0] <= 32
    # the sittings of a run add up: one that was out of time has none left
    before = Recorder(pauses=20)
    with pytest.raises(Preempted):
        search(budget=Budget(minutes=0.5), engine="eager").run(before)
    resumed = search(budget=Budget(minutes=0.5), engine="eager").run(Resumed(before))
    assert 20 <= int(resumed.result.calls[0]) < calls[0]
    assert resumed.wall_s > 30


def preempted(context: Recorder, **settings: Any) -> Recorder:
    with pytest.raises(Preempted):
        search("Ar8", 200, **settings).run(context)
    return context


def test_stopped_while_polishing_and_resumed(tmp_path: Path) -> None:
    whole_context = Recorder(tmp_path / "whole")
    whole = search("Ar8", 200).run(whole_context)
    asked = whole_context.questions  # once after the search, then before every step of two polishes
    assert asked > 20
    for after in (0, 1, asked // 3, asked - 2):
        potential = Counting()
        before = preempted(Recorder(tmp_path / str(after), asked=after), potential=potential)
        searched = 200
        assert len(potential._seen) - searched <= after + 3  # it stops at once
        # killed again, a little later, and then left alone
        again = Resumed(before, asked=after + 3) if after < asked - 5 else before
        if again is not before:
            preempted(again)
        counted = Counting()
        resumed = search("Ar8", 200, potential=counted).run(Resumed(again))
        assert len(counted._seen) < searched  # the search itself is not done again
        same(resumed, whole)
        name = "minima.extxyz"
        assert (tmp_path / str(after) / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_checkpoint_of_another_system_is_refused(tmp_path: Path) -> None:
    before = preempted(Recorder(pauses=50))
    for other in ("Ar9", "Kr8"):
        with pytest.raises(
            CheckpointError, match=r"of another (system|structure): has the structure file changed"
        ):
            search(other, 200).run(Resumed(before))
    with pytest.raises(CheckpointError, match=r"lacks .*: it was written by another optimizer"):
        search("Ar8", 200, optimizer=Fire()).run(Resumed(before))


def test_runs_share_a_database(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    kept = MinimaSettings(database=str(path), keep=8)
    first = search("Ar8", 250, minima=kept, seed=1).run()
    with MinimaStore(path) as store:
        assert [m.energy for m in store] == [m.energy for m in first.minima]
        before = sum(m.hits for m in store)
    second = search("Ar8", 250, minima=kept, seed=2).run()
    third = search("Ar6", 150, minima=kept, seed=2).run()
    with MinimaStore(path) as store:
        eights, sixes = store.lowest(100, "Ar8"), store.lowest(100, "Ar6")
        assert len(store) == len(eights) + len(sixes)
    assert distinct(eights) and len(sixes) == len(third.minima)
    union = [*first.minima]
    union += [m for m in second.minima if not any(same_structure(m, o, 1e-3, 0.05) for o in union)]
    assert len(eights) == len(union) < len(first.minima) + len(second.minima)
    hits = sum(m.hits for m in eights)
    assert hits == before + sum(m.hits for m in second.minima)
    assert {m.seed for m in eights} == {1, 2}
    # a run that was resumed after it had added its minima adds nothing again; another run of the same kind does
    context = Recorder()
    search("Ar8", 250, minima=kept, seed=5).run(context)
    with MinimaStore(path) as store:
        once = sum(m.hits for m in store)
    again = Resumed(context)
    search("Ar8", 250, minima=kept, seed=5).run(again)
    with MinimaStore(path) as store:
        assert sum(m.hits for m in store) == once


def test_a_database_that_cannot_be_used_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`minima.database`: .*nowhere is no folder that can be written to"):
        search(minima=MinimaSettings(database=str(tmp_path / "nowhere" / "a.db"))).check()
    (tmp_path / "text.db").write_text("this is not a database, it is a text that is long enough to be read")
    with pytest.raises(InputError, match=r"text\.db is not a SQLite file"):
        search(minima=MinimaSettings(database=str(tmp_path / "text.db"))).check()
    MinimaStore(tmp_path / "other.db", energy_window=0.1).close()
    with pytest.raises(InputError, match=r"was created with energy_window=0\.1, not 0\.001"):
        search(minima=MinimaSettings(database=str(tmp_path / "other.db"))).check()
