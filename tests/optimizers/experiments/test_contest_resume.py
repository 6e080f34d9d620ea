"""A contest that is stopped again and again has the metrics and the checkpoints of one that was left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlopt.core.plugins.plugin import build
from mlopt.core.runs import checkpoint
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.experiment import Preempted
from mlopt.core.testing.recorder import Recorder
from mlopt.optimizers.experiments.contest.experiment import Contest

CONTEST = {
    "systems": [
        {"system": {"cluster": "Ar7"}, "potential": "lennard-jones", "target": -16.505384},
        {"system": {"cluster": "Ar5"}, "potential": "lennard-jones"},
    ],
    "contestants": [
        {"label": "adam", "optimizer": {"name": "adam", "step_size": 0.02}},
        {"label": "hops", "optimizer": "basin-hopping"},
    ],
    "starts": 3,
    "force_calls": 150,
    "engine": "eager",
}


class Folder(Recorder):
    """Keeps checkpoints and metrics as a run directory does, and goes on from what is there."""

    def __init__(self, folder: Path, metrics: list[tuple[int, dict[str, Any]]], **settings: Any) -> None:
        super().__init__(folder / "results", **settings)
        self._run_id, self.checkpoints, self.written = "contest", folder / "checkpoints", []
        found = checkpoint.newest_sound(self.checkpoints)
        self.found = None if found is None else found[1]
        newest = -1 if found is None else number(found[0])
        self.metrics = [row for row in metrics if row[0] <= newest]

    def restored(self) -> Checkpoint | None:
        return self.found

    def save(self, step: int, checkpoint_: Checkpoint) -> None:
        self.written.append(checkpoint.save(self.checkpoints, step, checkpoint_))
        assert self.written[-1].exists(), "the checkpoint just written was removed"
        assert self.written[-1] == checkpoint.paths(self.checkpoints)[0], "an older one counts as newer"


def number(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def contest() -> Contest:
    made = build(Contest, CONTEST)
    assert isinstance(made, Contest)
    return made


def energies(folder: Path) -> bytes:
    return (folder / "results" / "contest.json").read_bytes().split(b'"energies"')[1]


@pytest.mark.parametrize(
    "asked", [pytest.param([25, 26, 27, 28, 29], marks=pytest.mark.slow), [40, 3, 20, 2, 9]]
)
def test_stopped_five_times_then_damaged(tmp_path: Path, asked: list[int]) -> None:
    """Stops fall into searches and into polishes, where a search that had ended saves nothing more."""
    whole = Folder(tmp_path / "whole", [])
    contest().run(whole)
    here, metrics = tmp_path / "stopped", []
    for limit in asked:
        context = Folder(here, metrics, asked=limit)
        with pytest.raises(Preempted):
            contest().run(context)
        metrics = context.metrics
    newest = checkpoint.paths(here / "checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:-7])
    last = Folder(here, metrics)
    contest().run(last)
    assert last.metrics == whole.metrics
    assert checkpoint.paths(here / "checkpoints")[0].name == whole.written[-1].name
    assert energies(here) == energies(tmp_path / "whole")
