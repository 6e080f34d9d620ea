"""The watch of molecular dynamics: metrics, the display of progress, and pauses."""

from __future__ import annotations

from mlopt.core.driver.progress import Progress
from mlopt.core.lazy import torch
from mlopt.core.runs.pace import Pace
from mlopt.core.runs.session import Session
from mlopt.optimizers.experiments.md.recording import CONSERVED, POTENTIAL, TEMPERATURE, Recording


class DynamicsWatch:
    """An observer of a run between its steps.

    giver: the name of the potential. asked: whether the last piece of the run ended by a pause.
    """

    def __init__(self, session: Session, progress: Progress, steps: int, giver: str) -> None:
        self._context, self._progress, self._steps = session.context, progress, steps
        self._pace = Pace(session.context, giver)
        self._look()
        self._line = "no frame yet"
        self.asked = False

    def pause(self) -> bool:
        """Return whether to pause; called between steps."""
        if self._pace.due():
            self._look()
            self._pace.show(min(1.0, self._progress.calls / (self._steps + 1)), self._line)
        self.asked = self._context.pause()
        return self.asked

    def record(self, step: int, recording: Recording) -> None:
        """Write the row of metrics of a frame: means over the walkers that it has."""
        self.asked = False
        rows = recording.last
        rows = rows[torch.isfinite(rows).all(1)]
        running = int(self._progress.active.numel())
        if not len(rows):
            return
        mean = rows.mean(0).tolist()
        self._context.metric(
            self._progress.calls,
            steps=step,
            temperature=mean[TEMPERATURE],
            potential=mean[POTENTIAL],
            conserved=mean[CONSERVED],
            running=running,
        )
        self._line = f"step {step:,}, temperature {mean[TEMPERATURE]:.4g}, {running} walkers running"

    def end(self) -> None:
        """Show the last line."""
        self._context.progress(1.0, self._line)

    def _look(self) -> None:
        left = self._progress.active.numel() * (self._steps + 1 - self._progress.calls)
        self._pace.look(self._progress.total_calls, max(0, left))
