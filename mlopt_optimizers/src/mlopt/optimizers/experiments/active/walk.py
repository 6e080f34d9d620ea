"""Walkers on a potential that is learned as they go: they stop where it cannot be trusted, and go on from there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Stream, derive
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.engine import EngineName, choose_engine
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Reason, Stop
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers.experiments.active.learned import Learned
from mlopt.optimizers.experiments.active.settings import Asking
from mlopt.optimizers.experiments.active.wishes import Wish

#: rounds that a search is expected to take
_ROUNDS = 10


class Walk(ABC):
    """All walkers of a run.

    systems: n walkers, with the positions where they begin.
    stop: the conditions that end each walker.
    key (n,): key of each walker's random numbers.
    engine: see `Driver`.

    learned: the knowledge with the potential on which they walk, see `learn`.
    calls (n,): force calls of each walker in former stretches.
    """

    learned: Learned
    driver: Driver
    progress: Progress

    def __init__(
        self,
        systems: Systems,
        optimizer: Optimizer,
        stop: Stop,
        asking: Asking,
        key: torch.Tensor,
        engine: EngineName,
        announce: Callable[[str], None],
    ) -> None:
        self.systems, self.optimizer, self.stop, self.asking = systems, optimizer, stop, asking
        self.key, self.engine, self.announce = key, engine, announce
        self.x = systems.pos
        self.calls = torch.zeros(len(systems), dtype=torch.int64)
        self.rounds = 0
        self.lost = torch.zeros(len(systems), dtype=torch.bool)

    @abstractmethod
    def learn(self, learned: Learned) -> None:
        """Go on with a potential that was fitted to more labels."""

    @abstractmethod
    def advance(self, keep: Callable[[], None]) -> list[Wish]:
        """Walk until labels are needed, and return the wishes for them; no wish means that all walkers have ended.

        keep: a function that is called between two steps, where the walk may be saved. A walk that is loaded from there
            has the same end.
        """

    @abstractmethod
    def failed(self, wishes: Sequence[Wish]) -> None:
        """Take note of structures that could not be labelled."""

    @property
    def share(self) -> float:
        """The share of all force calls that has been used."""
        return float(self.used.sum()) / (self.stop.force_calls * len(self.systems))

    @property
    def used(self) -> torch.Tensor:
        """(n,) force calls of each walker, those of the present stretch included."""
        outcome = self.progress.snapshot()
        return self.calls + outcome.calls

    @property
    def points(self) -> torch.Tensor:
        """(n_rows, 3) the end of a trajectory, a relaxed structure, or the lowest point of a search."""
        return self.driver.result(self.progress).x

    @property
    def reasons(self) -> list[Reason]:
        """Why each walker ended; one that still waits for labels is running."""
        known = list(Reason)
        return [known[code] for code in self.progress.snapshot().reason.tolist()]

    def begin(self, x: torch.Tensor, calls: int) -> None:
        """Begin a stretch of at most ``calls`` force calls at ``x (n_rows, 3)``, without walkers that were given up."""
        landscape = AtomsLandscape(self.systems, self.learned.potential)
        if self.engine == "auto":  # judged by the whole run, for one stretch of it is short
            whole = self.stop.force_calls * (_ROUNDS if self.optimizer.searching else 1)
            chosen = choose_engine("auto", landscape, self.optimizer, whole, self.announce)
            self.engine = "eager" if chosen is None else "fused"
        stop = Stop(calls, self.stop.fmax)
        self.driver = Driver(landscape, self.optimizer, stop, 20, self.engine, self.announce)
        key = derive(self.key, Stream.ROUND, self.rounds)
        self.progress = self.driver.begin(x, key)
        if bool(self.lost.any()):
            self.progress.end(self.lost.long() * Reason.NON_FINITE.code, 0)

    def to_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return tensors and plain data that `load_checkpoint` takes back."""
        tensors, meta = self.progress.to_checkpoint()
        own = {"x": self.x, "calls": self.calls, "lost": self.lost}
        found = {f"progress.{name}": one for name, one in tensors.items()}
        found |= {f"walk.{name}": one for name, one in own.items()}
        return found, {"progress": meta, "rounds": self.rounds}

    def load_checkpoint(
        self, learned: Learned, tensors: dict[str, torch.Tensor], meta: dict[str, Any]
    ) -> None:
        """Take over the walk that was saved; ``learned`` is the knowledge at that time."""
        self.learned, self.rounds = learned, int(meta["rounds"])
        self.x, self.calls, self.lost = (tensors[f"walk.{name}"] for name in ("x", "calls", "lost"))
        self.begin(self.x, self._allowed())
        own = {
            name.removeprefix("progress."): one
            for name, one in tensors.items()
            if name.startswith("progress.")
        }
        self.progress.load_checkpoint(own, meta["progress"])

    @abstractmethod
    def _allowed(self) -> int:
        """Force calls of the present stretch."""
