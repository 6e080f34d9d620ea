"""The processes of ``torchrun`` besides the first: they share the computation, and have no run directory."""

from __future__ import annotations

from mlopt.cli.run import environment
from mlopt.core.runs import config, processes
from mlopt.core.runs.directory import RunDirectory
from mlopt.core.runs.experiment import Context, Experiment, Preempted
from mlopt.core.runs.kept_files import FOLDER, KeptFiles
from mlopt.core.runs.preemption import Preemption


class WorkerContext(Context):
    """A context that passes signals on and stores nothing."""

    def __init__(self, preemption: Preemption) -> None:
        super().__init__()
        self._preemption = preemption

    @property
    def stopping(self) -> bool:
        return self.interrupted

    @property
    def interrupted(self) -> bool:
        return self._preemption.requested is not None


def is_worker(experiment: Experiment) -> bool:
    """Return whether this process computes for another one, which has the run directory."""
    return experiment.ranked and processes.is_worker()


def work(experiment: Experiment) -> str:
    """Compute with the others until the first process ends; return one line for people."""
    environment.load_torch()
    with Preemption() as preemption:
        try:
            experiment.run(WorkerContext(preemption))
        except Preempted:
            return "stopped with the first process"
    return ""


def described(run: RunDirectory) -> Experiment:
    """Return the experiment of the first process's run directory, with the files kept there."""
    settings, folder = config.read_yaml(run.config_resolved, "config.resolved.yaml"), run.path(FOLDER)
    kept = KeptFiles.read(folder) or KeptFiles(())
    return kept.applied(settings, folder, "config.resolved.yaml")
