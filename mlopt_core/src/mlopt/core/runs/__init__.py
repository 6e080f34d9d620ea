"""Runs: configuration, directory, checkpoints, signals and processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.runs.checkpoint import Checkpoint
    from mlopt.core.runs.config import load_experiment, override, read_file
    from mlopt.core.runs.directory import RunDirectory
    from mlopt.core.runs.experiment import Context, Experiment, Preempted
    from mlopt.core.runs.identity import Identity
    from mlopt.core.runs.nested import NestedContext
    from mlopt.core.runs.pace import Pace
    from mlopt.core.runs.preemption import CheckpointClock, ExitCode, Preemption
    from mlopt.core.runs.session import Session

__all__ = [
    "Checkpoint",
    "CheckpointClock",
    "Context",
    "ExitCode",
    "Experiment",
    "Identity",
    "NestedContext",
    "Pace",
    "Preempted",
    "Preemption",
    "RunDirectory",
    "Session",
    "load_experiment",
    "override",
    "read_file",
]

__getattr__ = names_of(
    __name__,
    {
        "checkpoint": ("Checkpoint",),
        "config": ("load_experiment", "override", "read_file"),
        "directory": ("RunDirectory",),
        "experiment": ("Context", "Experiment", "Preempted"),
        "identity": ("Identity",),
        "nested": ("NestedContext",),
        "pace": ("Pace",),
        "preemption": ("CheckpointClock", "ExitCode", "Preemption"),
        "session": ("Session",),
    },
)
