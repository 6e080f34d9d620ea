"""Runs inside a run: whatever the instant of a kill, each goes on where it was, and numbers only grow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.experiment import Context, Preempted
from mlopt.core.runs.nested import NestedContext
from mlopt.core.runs.session import Session
from mlopt.core.testing.recorder import Recorder, Resumed

LENGTHS = (3, 1, 0, 4)


def inner(length: int, context: Context) -> float:
    """A run that adds up its steps and saves at each; one of no steps saves nothing."""
    session, total, step = Session(context), torch.zeros(()), 0
    if session.restored is not None:
        total, step = session.restored.tensors["total"], session.restored.meta["step"]
    while step < length:
        step += 1
        total = total + step
        context.metric(step, total=float(total))
        context.progress(step / length, f"step {step}")
        session.save(step, {"total": total}, {"step": step})
        session.leave_if_asked()
    return float(total)


def outer(context: Context) -> list[float]:
    """Run the inner runs one after the other."""
    session = Session(context)
    found: list[float] = [] if session.restored is None else session.restored.meta["found"]
    nested = NestedContext(
        session, "sum", lambda: Checkpoint({"count": torch.tensor(len(found))}, {"found": found})
    )
    for number in range(nested.number, len(LENGTHS)):
        nested.begin(f"run {number}", of=len(LENGTHS), calls_to_follow=10 * (len(LENGTHS) - 1 - number))
        found.append(inner(LENGTHS[number], nested))
        nested.end()
    return found


class Numbered(Recorder):
    """Keeps the number of each checkpoint; dies right after one of them."""

    def __init__(self, before: Numbered | None = None, lives: float = math.inf) -> None:
        super().__init__()
        self.lives, self.numbers = lives, list(before.numbers) if before else []
        self.last = before.saved[-1] if before and before.saved else getattr(before, "last", None)
        if before:
            self.metrics = (
                [row for row in before.metrics if row[0] <= self.numbers[-1]] if self.numbers else []
            )

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        super().save(step, checkpoint)
        self.numbers.append(step)
        self.lives -= 1
        if self.lives < 0:
            raise KeyboardInterrupt

    def restored(self) -> Checkpoint | None:
        return None if self.last is None else Resumed.restored(self)  # type: ignore[arg-type]


def test_a_run_that_dies_at_every_checkpoint_ends_the_same() -> None:
    whole = Numbered()
    expected = outer(whole)
    assert expected == [6.0, 1.0, 0.0, 10.0]
    assert whole.numbers == sorted(set(whole.numbers)), "a later checkpoint has a higher number"
    context, deaths = Numbered(lives=0), 0
    while True:
        try:
            found = outer(context)
            break
        except KeyboardInterrupt:
            context, deaths = Numbered(context, lives=0), deaths + 1
    assert deaths == len(whole.numbers) and found == expected
    assert context.numbers == whole.numbers and context.metrics == whole.metrics


def test_what_is_carried_is_in_every_checkpoint() -> None:
    context = Numbered()
    outer(context)
    for data in context.saved:
        context.last = data
        restored = context.restored()
        assert restored is not None
        assert int(restored.tensors["count"]) == len(restored.meta["found"]) == restored.meta["number"]


def test_people_and_metrics_hear_of_the_part() -> None:
    context = Numbered()
    outer(context)
    assert {row["part"] for _, row in context.metrics} == {"run 0", "run 1", "run 3"}
    done = [share for share, _ in context.lines]
    assert done == sorted(done) and done[-1] == 1.0 and context.lines[0][1] == "run 0: step 1"


def test_the_surroundings_are_those_of_the_outer_run(tmp_path: Path) -> None:
    class Around(Recorder):
        interrupted, seconds_left, calls_to_follow = True, 7.0, 5

    around: Any = Around(folder=tmp_path, pauses=0)
    nested = NestedContext(Session(around), "sum", lambda: Checkpoint({}, {}))
    nested.begin("fire on Ar 7/8", of=2, calls_to_follow=20)
    assert (nested.run_id, nested.interrupted, nested.seconds_left) == (around.run_id, True, 7.0)
    assert nested.calls_to_follow == 25 and nested.pause() and nested.stopping
    nested.log("begun")
    assert around.logged == ["fire on Ar 7/8: begun"]
    assert nested.results() == tmp_path / "01-fire-on-Ar-7-8" and (tmp_path / "01-fire-on-Ar-7-8").is_dir()
    assert NestedContext(Session(Recorder()), "sum", lambda: Checkpoint({}, {})).results() is None


def test_a_stop_inside_stops_the_whole() -> None:
    before = Recorder(pauses=-1)
    with pytest.raises(Preempted):
        outer(before)
    assert len(before.saved) == 1
    assert outer(Resumed(before)) == [6.0, 1.0, 0.0, 10.0]


def test_runs_nest_in_nested_runs() -> None:
    def middle(context: Context) -> list[float]:
        return outer(context)

    def run(context: Context) -> list[list[float]]:
        session = Session(context)
        found = [] if session.restored is None else session.restored.meta["done"]
        nested = NestedContext(session, "middle", lambda: Checkpoint({}, {"done": found}))
        for number in range(nested.number, 2):
            nested.begin(f"half {number}", of=2)
            found.append(middle(nested))
            nested.end()
        return found

    context, deaths = Numbered(lives=2), 0
    while True:
        try:
            found = run(context)
            break
        except KeyboardInterrupt:
            context, deaths = Numbered(context, lives=2), deaths + 1
    assert deaths > 5 and found == [[6.0, 1.0, 0.0, 10.0]] * 2
    assert context.numbers == sorted(set(context.numbers))
