"""A training is left while it compiles, and goes on as if it had not been; what compiling took is added up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlopt.core.driver.driver import Driver
from mlopt.core.driver.progress import Progress
from mlopt.core.plugins.plugin import build
from mlopt.core.runs.checkpoint import loads
from mlopt.core.runs.experiment import Preempted
from mlopt.core.testing.recorder import Recorder, Resumed
from mlopt.optimizers.experiments.contest.experiment import Contest
from mlopt.optimizers.experiments.meta_train.experiment import MetaTrain
from mlopt.optimizers.fused.cache import kernels_in

LJ5 = {"system": {"cluster": "Ar5"}, "potential": "lennard-jones"}
ROLLOUT = {
    "name": "rollout",
    "members": [LJ5, {"system": {"cluster": "Ar4"}, "potential": "morse", "reference": -6.0}],
    "learnable": "classic",
    "horizon": 8,
    "starts": 1,
    "reference": {"starts": 2, "steps": 20},
    "held_out": {"starts": 2, "descent": 5},
    "engine": "eager",
}
HOP = {
    "name": "hop",
    "systems": [
        {"cluster": "Ar5", "potential": "lennard-jones", "target": -9.103852},
        {"cluster": "Ar4", "potential": "lennard-jones", "target": -6.0},
    ],
    "starts": 1,
    "force_calls": 20,
    "held_out": 1,
    "engine": "eager",
}
#: seconds that a kernel is said to take here
SECONDS = 7.0


def training(task: dict[str, Any], **settings: Any) -> MetaTrain:
    given = {"task": task, "trainer": {"name": "es", "population": 4}, "epochs": 3, "evaluate_every": 2}
    made = build(MetaTrain, given | settings)
    assert isinstance(made, MetaTrain)
    return made


class Interrupted(Recorder):
    """Is told to stop while kernel number ``at`` is compiled."""

    def __init__(self, at: float, compiled: list[Driver]) -> None:
        super().__init__()
        self.at, self.compiled = at, compiled

    @property
    def interrupted(self) -> bool:
        return len(self.compiled) > self.at


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Driver]:
    """The drivers that had something compiled; in place of compiling."""
    found: list[Driver] = []

    def prepare(self: Driver, progress: Progress, leave: Callable[[], bool] = lambda: False) -> float:
        found.append(self)
        leave()
        return SECONDS

    monkeypatch.setattr(Driver, "prepare", prepare)
    return found


@pytest.mark.parametrize("task", [ROLLOUT, HOP], ids=["rollout", "hop"])
def test_a_training_left_at_some_kernel(task: dict[str, Any], compiled: list[Driver]) -> None:
    context = Recorder()
    whole = training(task).run(context)
    kernels = len(compiled)
    assert kernels >= 8
    epochs = set()
    for at in range(0, kernels, 4):
        compiled.clear()
        left = Interrupted(at, compiled)
        with pytest.raises(Preempted):
            training(task).run(left)
        assert len(compiled) == at + 1, "left at once"
        epochs.add(loads(left.saved[-1], "here").meta["epoch"])
        again = Resumed(left)
        found = training(task).run(again)
        assert found.theta.tolist() == whole.theta.tolist() and found.history == whole.history
        kept = [row for row in left.metrics if row[0] <= loads(left.saved[-1], "here").meta["epoch"]]
        assert kept + again.metrics == context.metrics
    assert epochs == {0, 1, 2}


def test_the_first_kernel_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setenv("MLOPT_CACHE", str(tmp_path))
    monkeypatch.setattr("mlopt.optimizers.fused.compiled._LOADED", {})
    monkeypatch.setattr(Recorder, "interrupted", True)
    context = Recorder()
    with pytest.raises(Preempted):
        training(ROLLOUT | {"engine": "fused"}).run(context)
    assert kernels_in(tmp_path / "kernels") == 0 and context.metrics == []
    assert len(context.logged) == 1 and context.logged[0].startswith("compiling the fused kernel")
    (saved,) = (loads(one, "here") for one in context.saved)
    assert saved.meta["epoch"] == 0 and "constants" not in saved.tensors


#: what takes more than ten seconds to compile, also on a fast machine
SLOW = {
    "search": """
experiment: search
system: {cluster: Au7}
potential: gupta
optimizer: learned-hopping
starts: 2
budget: {force_calls: 50}
polish: {force_calls: 0}
engine: fused
""",
    "training": """
experiment: meta-train
task:
  name: rollout
  members: [{system: {cluster: Ar5}, potential: lennard-jones, reference: -9.1}]
  learnable: learned
  horizon: 20
  held_out: {starts: 2}
  engine: fused
trainer: {name: es, population: 4}
epochs: 2
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW)
def test_sigterm_while_a_kernel_is_compiled(kind: str, tmp_path: Path) -> None:
    """Answered within ten seconds; the run then goes on to its end."""
    pytest.importorskip("numba")
    (tmp_path / "mine.yaml").write_text(SLOW[kind])
    environment = os.environ | {"MLOPT_CACHE": str(tmp_path / "cache")}

    def mlopt(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mlopt.cli", *arguments, "--quiet"]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)

    started, log = mlopt("run", "mine.yaml", "--out", "x"), tmp_path / "x" / "log.txt"
    deadline = time.monotonic() + 120
    while not log.exists() or "compiling" not in log.read_text():
        assert time.monotonic() < deadline and started.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)
    started.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, said = started.communicate(timeout=60)
    assert started.returncode == 75 and time.monotonic() - began < 10.0
    assert "stopped by SIGTERM; the checkpoint is safe" in said
    assert kernels_in(tmp_path / "cache" / "kernels") == 0
    resumed = mlopt("resume", "x")
    _, said = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, said


def test_what_compiling_took_in_a_contest(compiled: list[Driver]) -> None:
    def contest() -> Contest:
        settings = {
            "systems": [LJ5 | {"target": -9.103852}],
            "contestants": [
                {"label": "adam", "optimizer": {"name": "adam", "step_size": 0.02}},
                {"label": "hops", "optimizer": "basin-hopping"},
            ],
            "starts": 2,
            "force_calls": 100,
            "polish": {"force_calls": 0},
            "engine": "eager",
        }
        made = build(Contest, settings)
        assert isinstance(made, Contest)
        return made

    found = contest().run(Recorder())
    assert [row["compile_s"] for row in found.rows] == [SECONDS, SECONDS]
    assert found.summary()["compile_s"] == 2 * SECONDS and found.summary()["wall_s"] < SECONDS
    for at in (0, 1):
        compiled.clear()
        left = Interrupted(at, compiled)
        with pytest.raises(Preempted):
            contest().run(left)
        again = contest().run(Resumed(left))
        assert len(compiled) == 3 and again.summary()["compile_s"] == 3 * SECONDS
        assert again.rows[at]["compile_s"] == 2 * SECONDS
    old = [{name: one for name, one in row.items() if name != "compile_s"} for row in found.rows]
    found.rows[:] = old  # as in the checkpoint of an older version
    assert found.summary()["compile_s"] == 0.0
