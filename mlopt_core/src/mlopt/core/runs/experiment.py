"""Experiments, the kinds of run, and the context through which an experiment reaches its surroundings.

An experiment is a plugin; its constructor is the configuration. It also runs without a run directory: give `run` a
plain `Context`, or none.
"""

from __future__ import annotations

import math
import uuid
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from mlopt.core.plugins.plugin import Plugin
from mlopt.core.runs.checkpoint import Checkpoint


class Preempted(Exception):
    """The exception of an experiment that was told to stop, raised after it has saved a checkpoint."""


class Context:
    """The surroundings of a run. This base class stores nothing and never interrupts.

    The command line uses a subclass with a run directory.
    """

    def __init__(self) -> None:
        self._run_id = uuid.uuid4().hex

    def pause(self) -> bool:
        """Return whether to pause between two steps and `save`: a checkpoint is due, or the run has to stop."""
        return False

    @property
    def stopping(self) -> bool:
        """True if the run has to stop: save, then raise `Preempted`."""
        return False

    @property
    def interrupted(self) -> bool:
        """True if a stop was requested: leave at once any work that a resume can repeat."""
        return False

    @property
    def seconds_left(self) -> float:
        """The seconds until `stopping` becomes true for lack of time; do not begin a step that takes longer."""
        return math.inf

    @property
    def calls_to_follow(self) -> int:
        """The maximal number of force calls after the current part of a run, such as one pair of a contest."""
        return 0

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Store a checkpoint, if there is a place for it."""

    def restored(self) -> Checkpoint | None:
        """Return the checkpoint to resume from, or None at the start of a run."""
        return None

    def metric(self, step: int, **values: float | int | str | None) -> None:
        """Record a line of metrics. ``step`` orders lines; a resume first drops those after its checkpoint."""

    def progress(self, done: float, message: str) -> None:
        """Show people the progress of the run (0 to 1) in one short line."""

    def log(self, message: str) -> None:
        """Write a line to the log."""

    def warn(self, warnings: Iterable[str]) -> None:
        """Write warnings to the log, each once."""
        for warning in dict.fromkeys(warnings):
            self.log(f"warning: {warning}")

    @property
    def run_id(self) -> str:
        """The unique name of the run; the same after a resume."""
        return self._run_id

    def results(self) -> Path | None:
        """Return the folder for results, or None where nothing is written."""
        return None


class Experiment(Plugin):
    """The base of all kinds of run."""

    #: whether the processes that ``torchrun`` starts run it together; the first alone then has a run directory
    ranked: ClassVar[bool] = False

    def check(self) -> None:
        """Refuse an impossible request (a file, a device, a species) before anything is written.

        Raises:
            InputError: with what is wrong and what to do.
        """

    @abstractmethod
    def run(self, context: Context | None = None) -> Any:
        """Run, and return an object with ``summary()``: numbers by name, as ``mlopt run --json`` prints them.

        The summary is a dictionary, or a `Summary` with the content of the report.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `run`")
