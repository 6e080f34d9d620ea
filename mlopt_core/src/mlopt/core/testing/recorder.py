"""Contexts for tests of experiments, which store everything and request stops."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mlopt.core.runs import checkpoint
from mlopt.core.runs.checkpoint import Checkpoint, dumps, loads
from mlopt.core.runs.experiment import Context


class Recorder(Context):
    """A context that stores everything, and requests a stop after so many ``pauses`` or queries of ``stopping``."""

    def __init__(self, folder: Path | None = None, pauses: float = math.inf, asked: float = math.inf) -> None:
        super().__init__()
        self.folder, self.pauses, self.asked = folder, pauses, asked
        self.saved: list[bytes] = []
        self.metrics: list[tuple[int, dict[str, Any]]] = []
        self.lines: list[tuple[float, str]] = []
        self.logged: list[str] = []
        self.questions = 0

    def pause(self) -> bool:
        self.pauses -= 1
        return self.pauses < 0

    @property
    def stopping(self) -> bool:
        self.questions += 1
        return self.pauses < 0 or self.questions > self.asked

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        self.saved.append(dumps(checkpoint))

    def metric(self, step: int, **values: float | int | str | None) -> None:
        self.metrics.append((step, dict(values)))

    def progress(self, done: float, message: str) -> None:
        self.lines.append((done, message))

    def log(self, message: str) -> None:
        self.logged.append(message)

    def results(self) -> Path | None:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder


class Resumed(Recorder):
    """A context that resumes from the last checkpoint of another."""

    def __init__(self, before: Recorder, **settings: Any) -> None:
        super().__init__(before.folder, **settings)
        self._run_id, self.last = before.run_id, [getattr(before, "last", b""), *before.saved][-1]

    def restored(self) -> Checkpoint | None:
        return loads(self.last, "in memory")


class Killed(BaseException):
    """The exception that ends a run at once, like a signal that cannot be caught."""


class FolderRecorder(Recorder):
    """A context that stores checkpoints, metrics and results in a folder, and resumes from them.

    pauses, asked: as in `Recorder`.
    due: True if a checkpoint is due at every safe point; False for none before a stop.
    kill_after: number of stored checkpoints right after which `Killed` is raised.

    kept: the numbers of the checkpoints, in order of arrival.
    looks: number of calls of `pause`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pauses: float = math.inf,
        asked: float = math.inf,
        kill_after: float = math.inf,
        due: bool = True,
    ) -> None:
        super().__init__(folder / "results", pauses, asked)
        self._run_id, self._checkpoints, self._rows = "run", folder / "checkpoints", folder / "metrics.jsonl"
        self._due, self._left, self.kept, self.looks = due, kill_after, list[int](), 0
        folder.mkdir(parents=True, exist_ok=True)
        found = checkpoint.newest_sound(self._checkpoints)
        self._found = None if found is None else found[1]
        newest = -1 if found is None else int(found[0].stem.removeprefix("step-"))
        rows = self._rows.read_text().splitlines() if self._rows.exists() else []
        rows = [row for row in rows if json.loads(row)["step"] <= newest]
        self._rows.write_text("".join(f"{row}\n" for row in rows))

    def pause(self) -> bool:
        self.looks += 1
        return super().pause() or self._due

    def restored(self) -> Checkpoint | None:
        return self._found

    def save(self, step: int, checkpoint_: Checkpoint) -> None:
        checkpoint.save(self._checkpoints, step, checkpoint_)
        self.kept.append(step)
        if len(self.kept) >= self._left:
            raise Killed

    def metric(self, step: int, **values: float | int | str | None) -> None:
        super().metric(step, **values)
        with self._rows.open("a") as rows:
            rows.write(json.dumps({"step": step, **values}) + "\n")
