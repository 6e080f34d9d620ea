"""The watch of a search: its metrics, its display of progress, and its pauses."""

from __future__ import annotations

from typing import Any

from mlopt.core.driver.progress import Progress
from mlopt.core.lazy import torch
from mlopt.core.runs.pace import Pace
from mlopt.core.runs.session import Session
from mlopt.optimizers.searches.settings import Budget, Target


class SearchWatch:
    """An observer of a search between its steps: metrics, progress, time, and whether to pause.

    giver: the name of the landscape or potential. out_of_time: True if the wall time of the budget is spent.
    """

    def __init__(
        self, session: Session, progress: Progress, budget: Budget, target: Target | None, giver: str
    ) -> None:
        self._session, self._context, self._progress = session, session.context, progress
        self._budget, self._target = budget, target
        self._pace = Pace(session.context, giver)
        self._look()
        self._recorded = len(progress.trace_calls)
        self.out_of_time = False

    def pause(self) -> bool:
        """Return whether to pause; called between steps."""
        self.record()
        if self._pace.due():
            self._look()
            self._pace.show(self._progress.calls / self._budget.force_calls, self._line())
        minutes = self._budget.minutes
        self.out_of_time = minutes is not None and self._session.seconds > 60.0 * minutes
        return self.out_of_time or self._context.pause()

    def record(self) -> None:
        """Write a row of metrics for each new point of the trace; rows do not depend on when this is called."""
        calls = self._progress.trace_calls
        for calls_then, energy in zip(
            calls[self._recorded :], self._progress.trace_energy[self._recorded :], strict=True
        ):
            self._context.metric(calls_then, **self._numbers(calls_then, energy))
        self._recorded = len(calls)

    def end(self) -> None:
        """Show the last line."""
        self._context.progress(1.0, self._line())

    def _line(self) -> str:
        numbers = self._numbers(None, self._progress.snapshot().tally.energy)
        best = numbers["best_energy"]
        parts = [] if best is None else [f"best {best:.6f}"]
        parts.append(f"{self._progress.total_calls:,} force calls")
        if self._target is not None:
            starts = self._progress.segments.n_problems
            parts.append(f"{numbers['hits']} of {starts} starts at the target")
        return ", ".join(parts)

    def _look(self) -> None:
        left = self._progress.active.numel() * (self._budget.force_calls - self._progress.calls)
        self._pace.look(self._progress.total_calls, left)

    def _numbers(self, calls: int | None, energy: torch.Tensor) -> dict[str, Any]:
        """Return counts over all starts after ``calls`` of each, or now. energy: (n,) theirs at that time."""
        best = float(torch.where(torch.isfinite(energy), energy, torch.inf).min())
        outcome = self._progress.snapshot()
        hit, running = outcome.tally.first_hit >= 0, outcome.reason == 0
        if calls is not None:
            hit = hit & (outcome.tally.first_hit <= calls)
            running = running | (outcome.calls > calls)
        return {
            "best_energy": best if best < float("inf") else None,
            "hits": int(hit.sum()),
            "running": int(running.sum()),
        }
