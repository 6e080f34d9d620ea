"""A search in the fused engine: its rows of metrics, what compiling costs, and how it is left meanwhile."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlopt.core.driver.stop import Reason
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.experiment import Context, Preempted
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers import BasinHopping
from mlopt.optimizers.experiments.search.experiment import Search
from mlopt.optimizers.fused import engine
from mlopt.optimizers.fused.cache import kernels_in
from mlopt.optimizers.fused.engine import FusedEngine
from mlopt.optimizers.searches.settings import Budget, Target
from mlopt.potentials import LennardJones

pytest.importorskip("numba")


def search(**settings: Any) -> Search:
    given = {"starts": 4, "budget": Budget(force_calls=300), "engine": "fused"} | settings
    return Search(
        system=SystemSpec(cluster="Ar7"), potential=LennardJones(), optimizer=BasinHopping(), **given
    )


class Watched(Context):
    """Keeps rows and checkpoints; asks for a pause every so many looks; goes on from what another one kept."""

    def __init__(self, every: int = 10**9, ends: bool = False, before: Watched | None = None) -> None:
        super().__init__()
        self.every, self.looks, self.stopping_at = every, 0, every if ends else 10**9
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.saved: list[tuple[int, Checkpoint]] = []
        if before is not None:
            self.saved = before.saved[-1:]
            self.rows = [row for row in before.rows if row[0] <= self.saved[0][0]]

    def pause(self) -> bool:
        self.looks += 1
        return self.looks % self.every == 0

    @property
    def stopping(self) -> bool:
        return self.looks >= self.stopping_at

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        self.saved.append((step, checkpoint))

    def restored(self) -> Checkpoint | None:
        return self.saved[0][1] if self.saved else None

    def metric(self, step: int, **values: float | int | str | None) -> None:
        self.rows.append((step, values))


TARGET = Target(energy=-15.9, stop="start")


def test_rows_do_not_follow_the_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Watched()
    found = search(target=TARGET).run(whole)
    assert [step for step, _ in whole.rows] == found.result.trace_calls.tolist()
    hits = found.result.first_hit.tolist()
    assert sum(hit >= 0 for hit in hits) > 0
    for step, row in whole.rows:
        assert row["hits"] == sum(0 <= hit <= step for hit in hits)
        assert row["running"] == sum(calls > step for calls in found.result.calls.tolist())
    eager = Watched()
    search(target=TARGET, engine="eager").run(eager)
    assert [step for step, _ in eager.rows][:20] == [step for step, _ in whole.rows][:20]
    for (_, ours), (_, theirs) in zip(eager.rows[:20], whole.rows[:20], strict=True):
        assert ours == {**theirs, "best_energy": pytest.approx(theirs["best_energy"])}
    monkeypatch.setattr(engine, "_SLICE", 1e-9)
    for first, every in ((1, 3), (7, 2), (50, 10**9)):
        monkeypatch.setattr(engine, "_FIRST_STEPS", first)
        other = Watched(every)
        search(target=TARGET).run(other)
        assert other.rows == whole.rows


def test_rows_after_a_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Watched()
    search(target=TARGET).run(whole)
    monkeypatch.setattr(engine, "_FIRST_STEPS", 7)
    monkeypatch.setattr(engine, "_SLICE", 1e-9)
    context, sittings = Watched(1, ends=True), 1
    while True:
        try:
            search(target=TARGET).run(context)
        except Preempted:
            context, sittings = Watched(1, ends=True, before=context), sittings + 1
        else:
            break
    assert sittings >= 3 and context.rows == whole.rows


def test_compiling_is_no_time_of_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def prepare(*_: object) -> float:
        now[0] += 1000.0
        return 999.0

    def monotonic() -> float:
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(FusedEngine, "prepare", prepare)
    monkeypatch.setattr("mlopt.core.runs.session.time", SimpleNamespace(monotonic=monotonic))
    found = search(budget=Budget(force_calls=300, minutes=5)).run()
    assert found.result.reason == [Reason.BUDGET] * 4
    assert found.summary()["compile_s"] == 999.0 and 0 < found.summary()["wall_s"] < 100
    # both over all sittings
    context = Watched(1, ends=True)
    with pytest.raises(Preempted):
        search().run(context)
    again = search().run(Watched(before=context)).summary()
    assert again["compile_s"] == 2 * 999.0 and 0 < again["wall_s"] < 100


def test_a_search_is_left_while_it_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPT_CACHE", str(tmp_path))
    monkeypatch.setattr("mlopt.optimizers.fused.compiled._LOADED", {})
    monkeypatch.setattr(Watched, "interrupted", True)
    context = Watched()
    with pytest.raises(Preempted):
        search().run(context)
    assert kernels_in(tmp_path / "kernels") == 0
    assert [step for step, _ in context.saved] == [0, 0] and context.rows == []
    assert 0 < context.saved[-1][1].meta["compile_seconds"] < 60, "that it took so long is kept"
