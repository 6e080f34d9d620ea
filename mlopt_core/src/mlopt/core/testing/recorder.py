"""Surroundings of a run for tests of experiments: they keep everything, and ask it to stop when told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mlopt.core.runs.checkpoint import Checkpoint, dumps, loads
from mlopt.core.runs.experiment import Context


class Recorder(Context):
    """Keeps everything; asks to stop after ``pauses`` steps of the search, or when ``stopping`` was asked so often."""

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
    """Goes on from the last checkpoint of another."""

    def __init__(self, before: Recorder, **settings: Any) -> None:
        super().__init__(before.folder, **settings)
        self._run_id, self.last = before.run_id, [getattr(before, "last", b""), *before.saved][-1]

    def restored(self) -> Checkpoint | None:
        return loads(self.last, "in memory")
