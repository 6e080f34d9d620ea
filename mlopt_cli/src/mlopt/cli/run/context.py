"""The context of a run of the command line: its directory, its log, signals, and the display.

Metrics are forced to the disk before a checkpoint is written, so a checkpoint never contains more than the metrics. A
resume drops the rows after its checkpoint. Each checkpoint has the identity of its run, and continues no other.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

from mlopt.cli.terminal.display import Display
from mlopt.core.errors import MloptError
from mlopt.core.files import atomic
from mlopt.core.runs.checkpoint import Checkpoint, save
from mlopt.core.runs.directory import RunDirectory
from mlopt.core.runs.experiment import Context
from mlopt.core.runs.identity import Identity
from mlopt.core.runs.lock import timestamp
from mlopt.core.runs.preemption import CheckpointClock, Preemption

_STATUS_EVERY = 5.0  # seconds between two updates of STATUS.json, each of which is forced to the disk


class RunContext(Context):
    """The context of a run with a directory. Hold the directory's lock while it is in use."""

    def __init__(
        self,
        run: RunDirectory,
        preemption: Preemption,
        clock: CheckpointClock,
        display: Display,
        identity: Identity,
        restored: Checkpoint | None = None,
        max_minutes: float = math.inf,
    ) -> None:
        self.run = run
        self._preemption = preemption
        self._clock = clock
        self._display = display
        self._identity = identity
        self._restored = restored
        self._ends = time.monotonic() + 60.0 * max_minutes
        self._next_status = 0.0
        self._state: dict[str, Any] = {}

    @property
    def run_id(self) -> str:
        return self.run.run_id

    def pause(self) -> bool:
        return self.stopping or self._clock.due()

    @property
    def stopping(self) -> bool:
        return self.interrupted or self.seconds_left <= 0.0

    @property
    def interrupted(self) -> bool:
        return self._preemption.requested is not None

    @property
    def seconds_left(self) -> float:
        return self._ends - time.monotonic()

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        atomic.sync(self.run.path("metrics.jsonl"))
        save(self.run.path("checkpoints"), step, self._identity.seal(checkpoint))

    def restored(self) -> Checkpoint | None:
        return self._restored

    def metric(self, step: int, **values: float | int | str | None) -> None:
        self.run.append_metrics({"step": step, **values})

    def progress(self, done: float, message: str) -> None:
        self._display.update(done, message)
        self._state = {"done": done, "message": message}
        now = time.monotonic()
        if now >= self._next_status:
            self._next_status = now + _STATUS_EVERY
            with contextlib.suppress(MloptError):  # as for the log
                self.status("running")

    def log(self, message: str) -> None:
        self._display.note(message)
        self.record(message)

    def results(self) -> Path:
        return self.run.path("results")

    def close(self) -> None:
        """Show the last state; nothing is drawn after it."""
        self._display.close()

    def record(self, text: str) -> None:
        """Write to log.txt alone, each line with the time; a full disk does not end the run."""
        with contextlib.suppress(MloptError):
            for line in text.splitlines():
                atomic.append_line(self.run.path("log.txt"), f"{timestamp()} {line}")

    def status(self, state: str, message: str = "") -> None:
        """Write STATUS.json."""
        progress = {key: value for key, value in self._state.items() if value == value}  # no NaN
        self.run.write_status(state, message, progress)
