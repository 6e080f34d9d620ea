"""Dynamics and relaxations on a potential that is learned as they go: every point counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Reason
from mlopt.core.lazy import torch
from mlopt.optimizers.dynamics.integrator import Integrator
from mlopt.optimizers.experiments.active.learned import Learned
from mlopt.optimizers.experiments.active.walk import Walk
from mlopt.optimizers.experiments.active.wishes import Trigger, Wish, of_checkpoint, to_checkpoint


class Journey(Walk):
    """Molecular dynamics and relaxations: every point counts.

    Grades are computed every few force calls. Where one is above ``stop``, the steps since the last look are repeated
    one by one, up to the first such point. So no point beyond it is labelled or walked through. Integrators go on from
    there with their velocities. Other optimizers begin anew there, because their memory belongs to the former
    potential.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.wishes: list[Wish] = []
        self.continues = isinstance(self.optimizer, Integrator)

    def learn(self, learned: Learned) -> None:
        """See `Walk.learn`."""
        self.learned, self.wishes = learned, []
        if self.rounds == 0:
            self.rounds = 1
            self.begin(self.x, self._allowed())
        elif self.continues:
            before = self.progress
            self.begin(self.x, self._allowed())
            self.progress = before
        elif int(self.used.max()) < self.stop.force_calls:
            self.x, self.calls = self._points(), self.used
            self.rounds += 1
            self.begin(self.x, self._allowed())

    def _allowed(self) -> int:
        return self.stop.force_calls - int(self.calls.max())

    def advance(self, keep: Callable[[], None]) -> list[Wish]:
        """See `Walk.advance`."""
        before: Progress | None = None
        every, seen = self.asking.every, self._under_way()
        while True:
            if self._look(before, seen) or self.progress.done or len(self.wishes) >= self.asking.put_aside:
                return self.wishes
            keep()
            before, seen = self.progress.copy(), self._under_way()
            self.driver.advance(self.progress, until=(self.progress.calls // every + 1) * every)

    def _under_way(self) -> torch.Tensor:
        """Return the walkers (k,) that have not ended."""
        return self.progress.active

    def _look(self, before: Progress | None, seen: torch.Tensor) -> bool:
        """Put structures aside, and return whether a walker has to wait: the present point is then its first beyond.

        before: the walk at the last look. seen: walkers that were under way then.
        """
        grades = self._grades(seen)
        if bool((grades > self.asking.stop).any()) and before is not None and self.asking.every > 1:
            reached = self.progress.calls if not self.progress.done else before.calls + self.asking.every
            self.progress = before.copy()
            while self.progress.calls < reached and not self.progress.done:
                self.driver.advance(self.progress, until=self.progress.calls + 1)
                grades = self._grades(seen)
                if bool((grades > self.asking.stop).any()):
                    break
                self._put_aside(seen, grades)
        self._put_aside(seen, grades)
        return bool((grades > self.asking.stop).any())

    def _grades(self, walkers: torch.Tensor) -> torch.Tensor:
        """Return the grades of walkers (k,) where they are now."""
        return self.learned.grader.grade(self.systems.with_pos(self._points()).select(walkers)).system

    def _points(self) -> torch.Tensor:
        """Return the points of all walkers: the next ones to evaluate, or those where they ended."""
        outcome = self.progress.snapshot()
        _, rows = self.progress.segments.select(self.progress.active)
        return outcome.tally.x.index_copy(0, rows, self.progress.x)

    def _put_aside(self, walkers: torch.Tensor, grades: torch.Tensor) -> None:
        beyond = torch.nonzero(grades > self.asking.save).flatten()
        if not beyond.numel():
            return
        there, calls = self.systems.with_pos(self._points()), self.used
        # a walk that was loaded looks again at the points that it was saved at
        known = {(one.walker, one.calls) for one in self.wishes}
        for place in beyond.tolist():
            walker, grade = int(walkers[place]), float(grades[place])
            if (walker, int(calls[walker])) in known:
                continue
            trigger: Trigger = "stopped" if grade > self.asking.stop else "put aside"
            self.wishes.append(Wish(there[walker], walker, int(calls[walker]), grade, trigger))

    def failed(self, wishes: Sequence[Wish]) -> None:
        """See `Walk.failed`: walkers that wait there are given up."""
        for one in wishes:
            self.lost[one.walker] |= one.trigger == "stopped"
        ended = self.lost[self.progress.active].long() * Reason.NON_FINITE.code
        self.progress.end(ended, self.progress.calls)

    def to_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """See `Walk.to_checkpoint`."""
        tensors, meta = super().to_checkpoint()
        positions, told = to_checkpoint(self.wishes)
        return tensors | positions, meta | {"wishes": told}

    def load_checkpoint(
        self, learned: Learned, tensors: dict[str, torch.Tensor], meta: dict[str, Any]
    ) -> None:
        """See `Walk.load_checkpoint`."""
        super().load_checkpoint(learned, tensors, meta)
        self.wishes = of_checkpoint(self.systems[0], tensors, meta["wishes"])
