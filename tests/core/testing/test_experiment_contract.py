"""The contract of experiments finds what is wrong with one, and has nothing to say about a sound one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mlopt.core.errors import InputError
from mlopt.core.plugins.plugin import setting
from mlopt.core.reporting.summary import Card, Figure, Summary
from mlopt.core.runs.experiment import Context, Experiment, Preempted
from mlopt.core.runs.session import Session
from mlopt.core.testing.experiment import TIMES, _Trial, check_experiment


@dataclass
class Added:
    total: float
    numbers: dict[str, Any]
    page: dict[str, Any]

    def summary(self) -> Summary:
        told: dict[str, Any] = {
            "headline": f"added up to {self.total:.3f}",
            "cards": [Card("total", self.total)],
        }
        return Summary({"total": self.total} | self.numbers, **told | self.page)


class Adding(Experiment):
    """Adds up sines, one a step; its methods are what faulty ones get wrong."""

    steps: int = setting(12, "how many", ge=1)

    def run(self, context: Context | None = None) -> Added:
        self.session = Session(context)
        total, step = torch.zeros((), dtype=torch.float64), 0
        if self.session.restored is not None:
            total, step = self.restored(self.session.restored.tensors, self.session.restored.meta)
        while step < self.steps:
            step += 1
            total = total * 0.99 + math.sin(step)
            self.told(step, float(total))
            if self.session.context.pause():
                self.save(step, total)
                self.session.leave_if_asked()
        folder = self.session.context.results()
        if folder is not None:
            (folder / "total.txt").write_text(repr(float(total)))
            (folder / "cost.svg").write_text(f"<!-- {self.session.seconds} -->")  # a picture of times
        return self.added(float(total))

    def restored(self, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> tuple[torch.Tensor, int]:
        return tensors["total"], int(meta["step"])

    def told(self, step: int, total: float) -> None:
        self.session.context.metric(step, total=total)
        self.session.context.progress(step / self.steps, f"step {step}")

    def save(self, step: int, total: torch.Tensor) -> None:
        self.session.save(step, {"total": total}, {"step": step})

    def added(self, total: float) -> Added:
        return Added(total, {"wall_s": self.session.seconds}, {})

    # the class is a frozen plugin; what a run needs is kept beside its settings
    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


class ForgetsItsState(Adding):
    def restored(self, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> tuple[torch.Tensor, int]:
        return torch.zeros((), dtype=torch.float64), int(meta["step"])


class BeginsAnew(Adding):
    def restored(self, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> tuple[torch.Tensor, int]:
        return torch.zeros((), dtype=torch.float64), 0


class RoundsItsState(Adding):
    def save(self, step: int, total: torch.Tensor) -> None:
        self.session.save(step, {"total": total.to(torch.float32)}, {"step": step})


class MeasuresTooLate(Adding):
    """A kill between the checkpoint and the row loses the row."""

    def told(self, step: int, total: float) -> None:
        self.session.context.progress(step / self.steps, f"step {step}")

    def save(self, step: int, total: torch.Tensor) -> None:
        super().save(step, total)
        self.session.context.metric(step, total=float(total))


class SavesNothing(Adding):
    def save(self, step: int, total: torch.Tensor) -> None:
        pass


class LeavesWithoutSaving(Adding):
    def save(self, step: int, total: torch.Tensor) -> None:
        if self.session.context.stopping:
            raise Preempted
        super().save(step, total)


class TellsNothing(Adding):
    def told(self, step: int, total: float) -> None:
        pass


class GoesBack(Adding):
    def told(self, step: int, total: float) -> None:
        self.session.context.progress(1.0 - step / self.steps, f"step {step}")


class TellsTwoLines(Adding):
    def told(self, step: int, total: float) -> None:
        self.session.context.progress(step / self.steps, f"step\n{step}")


class TellsSittings(Adding):
    """Counts what depends on how often it was stopped."""

    def added(self, total: float) -> Added:
        return Added(total, {"fresh": self.session.restored is None}, {})


class NeedsAFolder(Adding):
    def added(self, total: float) -> Added:
        return Added(total, {"written": self.session.context.results() is not None}, {})


class IsNotFinite(Adding):
    def added(self, total: float) -> Added:
        return Added(total, {"error": math.nan}, {})


class HasNoHeadline(Adding):
    def added(self, total: float) -> Added:
        return Added(total, {}, {"headline": ""})


class HasNoCards(Adding):
    def added(self, total: float) -> Added:
        return Added(total, {}, {"cards": []})


class DrewNothing(Adding):
    def added(self, total: float) -> Added:
        return Added(total, {}, {"figures": [Figure("Curve", "curve.svg")]})


class Refuses(Adding):
    def check(self) -> None:
        raise InputError("there is no such file")


def test_a_sound_experiment(tmp_path: Path) -> None:
    whole = check_experiment(Adding, tmp_path)
    assert (whole / "results" / "page.json").exists() and (whole / "results" / "total.txt").exists()
    cases = {path.name for path in tmp_path.iterdir()}
    assert cases == {"whole", "killed", "stopped", "left"}


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (ForgetsItsState, "killed right after a checkpoint and resumed, the summary differs"),
        (RoundsItsState, "killed right after a checkpoint and resumed, the summary differs"),
        (BeginsAnew, "killed right after checkpoints, it begins anew instead of going on"),
        (MeasuresTooLate, "killed right after a checkpoint and resumed, metrics.jsonl differs"),
        (SavesNothing, "no checkpoint was saved; save one wherever `context.pause()` is true"),
        (LeavesWithoutSaving, "stopped without a checkpoint; save before you raise Preempted"),
        (TellsNothing, "tells no progress"),
        (GoesBack, "progress goes back"),
        (TellsTwoLines, "is no line of progress"),
        (TellsSittings, "killed right after a checkpoint and resumed, the summary differs"),
        (NeedsAFolder, "without a folder it gives other numbers"),
        (IsNotFinite, "its summary is not JSON of finite numbers"),
        (HasNoHeadline, "its summary has no headline"),
        (HasNoCards, "its summary has no cards"),
        (DrewNothing, "its report is to show curve.svg, which it has not written"),
    ],
)
def test_what_is_wrong_is_named(faulty: type[Adding], message: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=f"^{faulty.__name__}: .*") as caught:
        check_experiment(faulty, tmp_path)
    assert message in str(caught.value)


def test_an_experiment_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        check_experiment(Refuses, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_real_kills(tmp_path: Path) -> None:
    check_experiment(lambda: Adding(steps=60), tmp_path / "sound", kills=3)
    (tmp_path / "faulty").mkdir()
    trial = _Trial("RoundsItsState", lambda: RoundsItsState(steps=60), tmp_path / "faulty", TIMES)
    with pytest.raises(AssertionError, match=r"\d of \d runs that were killed come out differently"):
        trial.killed_at_random(3)
