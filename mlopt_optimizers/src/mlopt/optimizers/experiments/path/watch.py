"""The watch of a path run: its display of progress, and its pauses."""

from __future__ import annotations

from collections.abc import Callable

from mlopt.core.driver.progress import Progress
from mlopt.core.lazy import torch
from mlopt.core.runs.experiment import Context
from mlopt.core.runs.pace import Pace

#: evaluations of the band between two lines of metrics
_RECORD_EVERY = 10


class PathWatch:
    """An observer of a path run between its steps: first of the relaxing ends, then of the bands.

    giver: the name of the landscape or potential.
    images: number of moving images of a band.
    evaluations: maximal number for each band.
    paths: number of bands.
    """

    def __init__(self, context: Context, giver: str, images: int, evaluations: int, paths: int) -> None:
        self._context, self._pace = context, Pace(context, giver)
        self._images, self._evaluations = images, evaluations
        self._of_bands = images * evaluations * paths  # force calls, at most
        self._of_ends = 0  # force calls

    def of_ends(self, progress: Progress, evaluations: int, fmax: float) -> Callable[[], bool]:
        """Return the `pause` of the ends' relaxation, which is not interrupted.

        evaluations: maximal number for each end.
        fmax: force threshold.
        """

        def look() -> bool:
            self._of_ends = progress.total_calls
            left = progress.active.numel() * (evaluations - progress.calls)
            self._pace.look(self._of_ends, left + self._of_bands)
            if progress.calls and self._pace.due():
                self._show("the ends relax", progress, progress.calls, fmax)
            return False

        look()
        return look

    def of_bands(self, progress: Progress, calls: torch.Tensor, fmax: float) -> Callable[[], bool]:
        """Return the `pause` of a stage.

        calls: (n_bands,) evaluations of each band before this stage.
        fmax: final force threshold.
        """
        before, total = int(calls.max()), int(calls.sum())

        def look() -> int:
            now = before + progress.calls
            left = progress.active.numel() * max(0, self._evaluations - now)
            done = self._of_ends + self._images * (total + progress.total_calls)
            self._pace.look(done, self._images * left)
            return now

        def pause() -> bool:
            now = look()
            if now % _RECORD_EVERY == 0:  # not by time: a run that was killed and resumed has the same lines
                evaluations = now * self._images
                self._context.metric(now, fmax=_largest(progress), gradient_evaluations=evaluations)
            if self._pace.due():
                self._show("the band relaxes", progress, now, fmax)
            return self._context.pause()

        look()
        return pause

    def _show(self, what: str, progress: Progress, calls: int, fmax: float) -> None:
        force = f"largest force {_largest(progress):.3g} (to reach: {fmax:.3g})"
        self._pace.show(0.0, f"{what}: {calls} evaluations, {force}")


def _largest(progress: Progress) -> float:
    """Return the largest force on a row of the active problems."""
    force2 = progress.tally.force2
    return float(force2.max().sqrt()) if len(force2) else 0.0
