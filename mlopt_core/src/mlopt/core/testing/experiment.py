"""The contract of experiments, as a function to call in tests.

The result of a run must not depend on how it was run. It may run bare or in a folder, and may be stopped or killed at
any safe point and resumed. A run must also report its progress, and its outcome in the end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlopt.core.lazy import torch
from mlopt.core.reporting.summary import Figure, Summary
from mlopt.core.runs.experiment import Experiment, Preempted
from mlopt.core.testing.kills import check_kills
from mlopt.core.testing.recorder import FolderRecorder, Killed, Recorder

#: names of numbers, anywhere in a summary or a file of JSON, that are times, and of files that show times
TIMES = frozenset({"wall_s", "compile_s", "seconds", "cost.svg"})
#: what the stores of minima end in; they keep when something was added
_STORES = (".db", ".db-wal", ".db-shm")


def check_experiment(
    make: Callable[[], Experiment],
    folder: Path,
    *,
    sittings: int = 3,
    kills: int = 0,
    times: Collection[str] = TIMES,
) -> Path:
    """Check the contract of an experiment, and return the folder of an undisturbed run.

    That folder has ``results`` as a run directory has them, with `summary.json` and `page.json`, so a report can be
    written from it.

    make: a function that returns a small experiment; it is called for each run.
    folder: an empty folder to work in.
    sittings: number of times that the run is killed, and stopped, each time at another safe point.
    kills: number of additional kills by SIGKILL at random instants, in separate processes.
    times: names that may differ from run to run, of files or of numbers in the summary and in JSON files.

    Raises:
        AssertionError: names the property that failed.
    """
    make().check()
    trial = _Trial(type(make()).__name__, make, folder, frozenset(times))
    whole, context = trial.place("whole"), FolderRecorder(trial.place("whole"))
    told = Summary.of(make().run(context).summary())
    _check_summary(trial.name, told, whole / "results")
    _check_progress(trial.name, context)
    assert context.kept, f"{trial.name}: no checkpoint was saved; save one wherever `context.pause()` is true"
    expected = trial.outcome(whole, told)
    bare = trial.timeless(make().run().summary())
    assert bare == expected["the summary"], f"{trial.name}: without a folder it gives other numbers"
    share = sittings + 1
    trial.killed(expected, saves=len(context.kept), each=math.ceil(len(context.kept) / share))
    if context.looks:
        trial.stopped(expected, looks=context.looks, each=math.ceil(context.looks / share))
    trial.left(expected, question=context.questions // 2)
    if kills:
        trial.killed_at_random(kills)
    (whole / "results" / "summary.json").write_text(json.dumps(told.of_kind(trial.name), allow_nan=False))
    (whole / "results" / "page.json").write_text(json.dumps(told.page()))
    return whole


@dataclass(frozen=True)
class _Trial:
    """Runs of one experiment in folders below ``folder``, compared with an undisturbed one."""

    name: str
    make: Callable[[], Experiment]
    folder: Path
    times: frozenset[str]

    def place(self, case: str) -> Path:
        """Return the folder of a run; its last part, which results may contain, is the same in all cases."""
        return self.folder / case / "run"

    def killed(self, expected: dict[str, Any], saves: int, each: int) -> None:
        """Kill the run after every ``each`` checkpoints, and resume it."""
        for _ in range(saves + 2):
            try:
                found = self._run("killed", kill_after=each)
            except Killed:
                continue
            return self._compare("killed right after a checkpoint", expected, found)
        raise AssertionError(
            f"{self.name}: killed right after checkpoints, it begins anew instead of going on"
        )

    def stopped(self, expected: dict[str, Any], looks: int, each: int) -> None:
        """Ask the run to stop after every ``each`` steps, and resume it."""
        for _ in range(looks + 2):
            try:
                found = self._run("stopped", pauses=each, due=False)
            except Preempted:
                self._has_checkpoint("stopped")
                continue
            return self._compare("stopped between two steps", expected, found)
        raise AssertionError(f"{self.name}: stopped between steps, it begins anew instead of going on")

    def left(self, expected: dict[str, Any], question: int) -> None:
        """Ask the run to stop at its ``question``-th look, where a resume may repeat the current part."""
        try:
            found = self._run("left", asked=question, due=False)
        except Preempted:
            self._has_checkpoint("left")
            found = self._run("left")
        self._compare("asked to stop halfway", expected, found)

    def killed_at_random(self, kills: int) -> None:
        """Kill processes that run it at random instants, and resume the run in others."""

        def start_or_resume(path: Path) -> int:
            torch.set_num_threads(1)  # the threads of the process that this one is a fork of are not here
            told = self.make().run(FolderRecorder(path / "run")).summary()
            (path / "told.json").write_text(json.dumps(told))
            return 0

        def results(path: Path) -> bytes:
            return repr(self.outcome(path / "run", json.loads((path / "told.json").read_text()))).encode()

        (self.folder / "kills").mkdir()
        told = check_kills(start_or_resume, results, self.folder / "kills", kills=kills)
        different, runs = told["different"], told["runs"]
        assert not different, f"{self.name}: {different} of {runs} runs that were killed come out differently"

    def outcome(self, place: Path, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return everything that must not depend on how a run was run: numbers, rows of metrics, files of results."""
        found: dict[str, Any] = {"the summary": self.timeless(told)}
        found["metrics.jsonl"] = (place / "metrics.jsonl").read_text()
        for path in sorted(place.glob("results/**/*")):
            if path.is_file() and not path.name.endswith(_STORES):
                content = b"" if path.name in self.times else path.read_bytes()
                data = self.timeless(json.loads(content)) if path.suffix == ".json" else content
                found[str(path.relative_to(place))] = data
        return found

    def timeless(self, value: Any) -> Any:
        """Return JSON data without its times."""
        if isinstance(value, Mapping):
            return {key: self.timeless(one) for key, one in value.items() if key not in self.times}
        return [self.timeless(one) for one in value] if isinstance(value, list | tuple) else value

    def _run(self, case: str, **limits: Any) -> dict[str, Any]:
        place = self.place(case)
        return self.outcome(place, self.make().run(FolderRecorder(place, **limits)).summary())

    def _has_checkpoint(self, case: str) -> None:
        there = any(self.place(case).glob("checkpoints/*.ckpt"))
        assert there, f"{self.name}: stopped without a checkpoint; save before you raise Preempted"

    def _compare(self, how: str, expected: dict[str, Any], found: dict[str, Any]) -> None:
        others = sorted(set(found) ^ set(expected))
        assert not others, f"{self.name}: {how} and resumed, other files are left: {', '.join(others)}"
        for what, content in expected.items():
            assert found[what] == content, f"{self.name}: {how} and resumed, {what} differs"


def _check_summary(name: str, told: Summary, results: Path) -> None:
    try:
        json.dumps(told, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{name}: its summary is not JSON of finite numbers: {error}") from error
    assert told.headline, f"{name}: its summary has no headline; say in one line what came out"
    for text in (told.headline, told.missed, *told.remarks):
        assert "\n" not in text, f"{name}: {text!r} is more than a line"
    assert not told.failure, f"{name}: the run failed: {told.failure}"
    assert told.cards, f"{name}: its summary has no cards; show the numbers that matter"
    for figure in told.figures:
        shown = [figure.file] if isinstance(figure, Figure) else [one.file for one in figure.structures]
        missing = [file for file in shown if not (results / file).is_file()]
        assert not missing, f"{name}: its report is to show {missing[0]}, which it has not written"


def _check_progress(name: str, context: Recorder) -> None:
    assert context.lines, f"{name}: tells no progress"
    done = [share for share, _ in context.lines]
    assert all(0.0 <= one <= 1.0 for one in done), f"{name}: progress is no share of 1: {done}"
    assert done == sorted(done), f"{name}: progress goes back: {done}"
    for _, line in context.lines:
        assert line and "\n" not in line, f"{name}: {line!r} is no line of progress"
    steps = [step for step, _ in context.metrics]
    assert steps == sorted(steps), f"{name}: rows of metrics are not in the order of their steps"
