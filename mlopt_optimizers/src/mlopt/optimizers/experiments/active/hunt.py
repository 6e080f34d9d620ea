"""Searches on a potential that is learned as they go; they ask for labels of minima."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.stop import Reason, Stop
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.core.minima.arrays import StructureArrays
from mlopt.core.minima.matching import same_structure
from mlopt.optimizers.experiments.active.learned import Learned
from mlopt.optimizers.experiments.active.walk import Walk
from mlopt.optimizers.experiments.active.wishes import Wish, of_checkpoint, to_checkpoint
from mlopt.optimizers.local.lbfgs import LBFGS

#: force calls, and the force, of the relaxation of a minimum before it is labelled
_RELAXING = Stop(500, 1e-4)


def _is_among(one: StructureArrays, others: Sequence[StructureArrays], tolerance: float) -> bool:
    """Return whether one of the others is the same up to a motion and an exchange of like atoms."""
    return any(same_structure(one, other, 0.0, tolerance) for other in others)


class Hunt(Walk):
    """Global searches.

    In each round all walkers search on the present potential, with the whole budget of `Walk.stop`. The lowest distinct
    minima are relaxed further. The lowest are labelled where they are new, and others where the potential extrapolates.
    Each walker then goes on from its lowest point. The hunt ends after some rounds in which no minimum is lower than
    the labelled ones.

    fresh: a function from the number of a round to random positions of all walkers (n_rows, 3). After a round that
        found nothing lower every second walker begins anew at its random positions.
    tolerance: largest displacement of an atom between equal structures.
    window: energy by which a new minimum has to be lower.
    """

    def __init__(
        self, *args: Any, tolerance: float, window: float, fresh: Callable[[int], torch.Tensor]
    ) -> None:
        super().__init__(*args)
        self.tolerance, self.window, self.fresh = tolerance, window, fresh
        self.quiet = 0
        self.lowest = float("inf")
        self.refused: list[Wish] = []

    def learn(self, learned: Learned) -> None:
        """See `Walk.learn`."""
        self.learned = learned
        best = float("inf") if learned.lowest is None else learned.lowest
        self.quiet = self.quiet + 1 if best > self.lowest - self.window else 0
        self.lowest = min(self.lowest, best)
        if self.rounds == 0:
            self.rounds = 1
            self.begin(self.x, self._allowed())
        elif self.quiet < self.asking.patience:
            self._begin_round()

    def _allowed(self) -> int:
        return self.stop.force_calls

    def advance(self, keep: Callable[[], None]) -> list[Wish]:
        """See `Walk.advance`; nothing is asked for after the last round."""
        while self.quiet < self.asking.patience:
            while not self.progress.done:
                keep()
                self.driver.advance(self.progress, until=self.progress.calls + self._slice)
            wishes = self._wishes()
            if wishes:
                return wishes
            # everything low is known; another stretch may find more
            self.quiet += 1
            if self.quiet < self.asking.patience:
                self._begin_round()
        return []

    def _begin_round(self) -> None:
        """Begin another stretch: where each walker was lowest, or anew; see the class."""
        self.calls = self.used
        found = self.driver.result(self.progress).x
        self.x = torch.where(torch.isfinite(found).all(-1, keepdim=True), found, self.systems.pos)
        self.rounds += 1
        if self.quiet:
            odd = torch.arange(len(self.systems)) % 2 == 1
            anew = self.systems.segments.rows_of(odd) & ~self.systems.fixed
            self.x = torch.where(anew[:, None], self.fresh(self.rounds), self.x)
        self.begin(self.x, self._allowed())

    @property
    def _slice(self) -> int:
        return max(1, self.stop.force_calls // 20)

    @property
    def share(self) -> float:
        """See `Walk.share`; of the patience."""
        return self.quiet / self.asking.patience

    def _wishes(self) -> list[Wish]:
        """Return the minima to label: the lowest that are new, and those where the potential extrapolates."""
        found = self._relaxed()
        labelled = [self.learned.data.systems[index] for index in self.learned.ranked]
        known = [StructureArrays.of(one) for one in [*labelled, *(one.structure for one in self.refused)]]
        lowest: list[Wish] = []
        others: list[Wish] = []
        for one in found:
            if not _is_among(StructureArrays.of(one.structure), known, 0.2 * self.tolerance):
                (lowest if len(lowest) < self.asking.lowest else others).append(one)
        asked = [Wish(one.structure, one.walker, one.calls, one.grade, "lowest") for one in lowest]
        return asked + [one for one in others if one.grade > self.asking.save]

    def _relaxed(self) -> list[Wish]:
        """Return the lowest distinct minima of all walkers, relaxed further, the lowest first."""
        result = self.driver.result(self.progress)
        n_pool = result.pool_energy.shape[1]
        order = torch.argsort(result.pool_energy.flatten(), stable=True)
        order = order[torch.isfinite(result.pool_energy.flatten()[order])][: self.asking.put_aside]
        ptr = self.systems.ptr.tolist()
        picked: list[tuple[int, Systems, StructureArrays]] = []
        for index in order.tolist():
            walker, slot = divmod(index, n_pool)
            pos = result.pool_x[ptr[walker] : ptr[walker + 1], slot]
            one = self.systems[walker].with_pos(pos)
            place = StructureArrays.of(one)
            if not _is_among(place, [known for _, _, known in picked], self.tolerance):
                picked.append((walker, one, place))
            if len(picked) == 4 * self.asking.labels:
                break
        if not picked:
            return []
        systems = Systems.concatenate([one for _, one, _ in picked])
        driver = Driver(AtomsLandscape(systems, self.learned.potential), LBFGS(), _RELAXING)
        relaxed = driver.result(
            driver.advance(driver.begin(systems.pos, problem_keys(0, torch.arange(len(systems)))))
        )
        there = systems.with_pos(relaxed.x)
        grades = self.learned.grader.grade(there).system.tolist()
        found, places = list[Wish](), list[StructureArrays]()
        for index in torch.argsort(relaxed.energy, stable=True).tolist():
            if relaxed.reason[index] is Reason.NON_FINITE:
                continue
            one = there[index]
            place = StructureArrays.of(one)
            if not _is_among(place, places, self.tolerance):
                places.append(place)
                walker = picked[index][0]
                found.append(Wish(one, walker, int(self.used[walker]), grades[index], "put aside"))
        return found

    def minima(self, learned: Learned) -> list[int]:
        """Return the distinct structures of this system among the labels, the lowest first, by their places."""
        found, places = list[int](), list[StructureArrays]()
        for index in learned.ranked:
            place = StructureArrays.of(learned.data.systems[index])
            if not _is_among(place, places, self.tolerance):
                places.append(place)
                found.append(index)
        return found

    def failed(self, wishes: Sequence[Wish]) -> None:
        """See `Walk.failed`: the minima are not asked for again, and their walkers go on."""
        self.refused += wishes

    def to_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """See `Walk.to_checkpoint`."""
        tensors, meta = super().to_checkpoint()
        lowest = None if self.lowest == float("inf") else self.lowest
        positions, told = to_checkpoint(self.refused)
        return tensors | positions, meta | {"quiet": self.quiet, "lowest": lowest, "wishes": told}

    def load_checkpoint(
        self, learned: Learned, tensors: dict[str, torch.Tensor], meta: dict[str, Any]
    ) -> None:
        """See `Walk.load_checkpoint`."""
        super().load_checkpoint(learned, tensors, meta)
        self.refused = of_checkpoint(self.systems[0], tensors, meta["wishes"])
        self.quiet = int(meta["quiet"])
        self.lowest = float("inf") if meta["lowest"] is None else float(meta["lowest"])
