"""A kind of run: what a configuration file describes, and what it may ask of its surroundings.

An experiment is a plugin; its constructor is the configuration. It runs without a run directory just as well: give
`run` a plain `Context`, or none.
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
    """Raised by an experiment that was told to stop, after it has saved a checkpoint."""


class Context:
    """What surrounds a run. This one keeps nothing and never interrupts; the command line has one with a directory."""

    def __init__(self) -> None:
        self._run_id = uuid.uuid4().hex

    def pause(self) -> bool:
        """Whether to come back between two steps, to `save`: a checkpoint is due or the run has to stop."""
        return False

    @property
    def stopping(self) -> bool:
        """Whether the run has to stop: save, then raise `Preempted`."""
        return False

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked to stop: leave at once what a resume can do over again."""
        return False

    @property
    def seconds_left(self) -> float:
        """Until `stopping` becomes true for lack of time; who can tell how long a step takes stops before."""
        return math.inf

    @property
    def calls_to_follow(self) -> int:
        """Force calls, at most, of what comes after the part of a run that this surrounds, such as a contest's pair."""
        return 0

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint, if there is a place for it."""

    def restored(self) -> Checkpoint | None:
        """The checkpoint to go on from, or None at the start of a run."""
        return None

    def metric(self, step: int, **values: float | int | str | None) -> None:
        """Record a line of metrics. ``step`` orders them; after a resume, later ones are cut off first."""

    def progress(self, done: float, message: str) -> None:
        """Tell a person how far the run is (0 to 1) in one short line."""

    def log(self, message: str) -> None:
        """Write a line to the log."""

    def warn(self, warnings: Iterable[str]) -> None:
        """Write warnings to the log, each once."""
        for warning in dict.fromkeys(warnings):
            self.log(f"warning: {warning}")

    @property
    def run_id(self) -> str:
        """What tells this run from every other; the same after a resume."""
        return self._run_id

    def results(self) -> Path | None:
        """The folder for results, or None where nothing is written."""
        return None


class Experiment(Plugin):
    """Base of all kinds of run."""

    #: whether the processes that ``torchrun`` starts run it together; the first alone then has a run directory
    ranked: ClassVar[bool] = False

    def check(self) -> None:
        """Refuse what cannot work (a file, a device, a species) before anything is written.

        Raises:
            InputError: with what is wrong and what to do.
        """

    @abstractmethod
    def run(self, context: Context | None = None) -> Any:
        """Run, and return an object with ``summary()``: numbers by name, as ``mlopt run --json`` prints them.

        A dictionary, or a `Summary`, which also says what the report shows.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `run`")
