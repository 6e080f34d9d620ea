"""The network of minima and transition states of one landscape, explored in rounds until nothing new is found.

A round starts searches beside known minima, half-way between pairs of them, and below saddles of higher order. All
searches follow minimum modes in one batch. The round keeps the new saddles of first order, goes down from each to both
sides, and adds the new minima.

`Explorer` works on any landscape. The experiment ``network`` wraps it for atoms, see
`mlopt.optimizers.experiments.network.experiment`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from mlopt.core.batch.random import derive, problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import CheckpointError, InputError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.runs.experiment import Preempted
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.saddles.connect import Same, connect
from mlopt.optimizers.saddles.min_mode import Dimer
from mlopt.optimizers.saddles.modes import lowest_modes
from mlopt.optimizers.saddles.starts import downhill, halfway, kicked

#: modes of each saddle that are kept
_MODES = 6


@dataclass(frozen=True)
class Point:
    """A minimum or a saddle: its energy, x (n, d), largest row force, and lowest eigenvalues."""

    energy: float
    x: torch.Tensor
    fmax: float
    values: tuple[float, ...]


@dataclass
class StationaryPoints:
    """The known stationary points: minima, saddles of first order and higher ones, in order of discovery.

    ends: for each saddle the indices of the two minima that it joins, -1 if a way down did not arrive.
    calls: force calls so far.
    rounds: number of rounds made.
    idle: number of rounds since the last new point.
    searches: number of searches begun.
    hits: number of searches that ended at a saddle of first order.
    """

    minima: list[Point] = field(default_factory=list)
    saddles: list[Point] = field(default_factory=list)
    higher: list[Point] = field(default_factory=list)
    ends: list[tuple[int, int]] = field(default_factory=list)
    calls: int = 0
    rounds: int = 0
    idle: int = 0
    searches: int = 0
    hits: int = 0

    def to(self, device: torch.device) -> StationaryPoints:
        """Return the same points on another device."""

        def moved(points: list[Point]) -> list[Point]:
            return [replace(point, x=point.x.to(device)) for point in points]

        return replace(
            self, minima=moved(self.minima), saddles=moved(self.saddles), higher=moved(self.higher)
        )

    def copy(self) -> StationaryPoints:
        """Return a copy with lists of its own."""
        return replace(
            self,
            minima=list(self.minima),
            saddles=list(self.saddles),
            higher=list(self.higher),
            ends=list(self.ends),
        )

    def take(self, other: StationaryPoints) -> None:
        """Take over all points and counts of ``other``."""
        self.__dict__.update(other.__dict__)

    def barriers(self, saddle: int) -> tuple[float, float]:
        """Return the energy of a saddle above the first and the second minimum that it joins; NaN if unknown."""
        energy = self.saddles[saddle].energy
        first, second = (
            energy - self.minima[i].energy if i >= 0 else float("nan") for i in self.ends[saddle]
        )
        return first, second

    def to_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return tensors and plain data that `from_checkpoint` reads."""
        tensors = {}
        meta: dict[str, Any] = {name: getattr(self, name) for name in _COUNTS}
        meta["ends"] = [list(pair) for pair in self.ends]
        for kind in _KINDS:
            points: list[Point] = getattr(self, kind)
            if points:
                tensors[kind] = torch.stack([point.x for point in points])
            meta[kind] = [[point.energy, point.fmax, list(point.values)] for point in points]
        return tensors, meta

    @classmethod
    def from_checkpoint(cls, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> StationaryPoints:
        """Return the points that `to_checkpoint` saved.

        Raises:
            CheckpointError: the checkpoint belongs to something else.
        """
        try:
            points = {
                kind: [
                    Point(energy, x, fmax, tuple(values))
                    for (energy, fmax, values), x in zip(meta[kind], tensors.get(kind, ()), strict=True)
                ]
                for kind in _KINDS
            }
            ends = [(first, second) for first, second in meta["ends"]]
            found = cls(points["minima"], points["saddles"], points["higher"], ends)
            for name in _COUNTS:
                setattr(found, name, int(meta[name]))
            return found
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint is not of a network ({error}): start the run anew"
            ) from error


_KINDS = ("minima", "saddles", "higher")  # by the number of negative modes
_COUNTS = ("calls", "rounds", "idle", "searches", "hits")


@dataclass(frozen=True)
class Explorer:
    """A search for saddles around known minima of ``landscape``, which is of one problem.

    searches: number of searches begun in each round.
    kick: distance of their starts from a known point, in the length of x; see `mlopt.optimizers.saddles.starts`.
    dimer: optimizer that leads to saddles.
    descent: optimizer that relaxes the first points.
    force_calls: limit of each search.
    fmax: largest row force at a stationary point.
    step_off: ``displacement`` of `mlopt.optimizers.saddles.connect.connect`.
    same: criterion that decides if two points are one.
    told: a function that is called at every step with the force calls made before and the progress of the searches.
    """

    landscape: Landscape
    searches: int = 200
    kick: float = 0.4
    dimer: Optimizer = field(default_factory=Dimer)
    descent: Optimizer = field(default_factory=lambda: LBFGS(max_step=0.1))
    force_calls: int = 500
    fmax: float = 1e-6
    step_off: float = 0.05
    same: Same = field(default_factory=lambda: Same(1e-5, 0.05))
    seed: int = 0
    told: Callable[[int, Progress], None] = lambda calls, progress: None

    def __post_init__(self) -> None:
        if self.landscape.segments.n_problems != 1:
            raise InputError(
                f"a network is of one problem; the landscape has {self.landscape.segments.n_problems}: `select` one"
            )
        if self.dimer.seeks != "saddle":
            raise InputError(
                f"{type(self.dimer).__name__} ends at a {self.dimer.seeks}: a network needs an optimizer that ends at "
                f"saddles, such as dimer"
            )

    def settle(
        self, found: StationaryPoints, x: torch.Tensor, pause: Callable[[], bool] | None = None
    ) -> int:
        """Relax the points ``x (k * n, d)``, add the stationary points found, and return the number of new ones.

        Points that are symmetric by construction, such as a planar cluster, may arrive at saddles. These are added too.

        Raises:
            Preempted: ``pause`` was true between two steps.
        """
        new = found.copy()
        many = self._copies(len(x) // self.landscape.segments.n_rows)
        count, _ = self._add(new, *self._run(new, many, self.descent, x, 0, pause))
        count += self._connect(new)
        found.take(new)
        return count

    def round(self, found: StationaryPoints, pause: Callable[[], bool] | None = None) -> int:
        """Make one round and return the number of new points; ``found`` changes only when the round is complete.

        Raises:
            InputError: there is no minimum to begin at.
            Preempted: ``pause`` was true between two steps.
        """
        if not found.minima:
            raise InputError("a network begins at a minimum, and none is known: give one to `settle`")
        new = found.copy()
        many, stream = self._copies(self.searches), 1 + found.rounds
        count, hits = self._add(
            new, *self._run(new, many, self.dimer, self._starts(found, stream), stream, pause)
        )
        count += self._connect(new)
        new.rounds, new.searches, new.hits = (
            found.rounds + 1,
            found.searches + self.searches,
            found.hits + hits,
        )
        new.idle = 0 if count else found.idle + 1
        found.take(new)
        return count

    def _copies(self, k: int) -> Landscape:
        device = self.landscape.segments.ptr.device
        return self.landscape.select(torch.zeros(k, dtype=torch.int64, device=device))

    def _starts(self, found: StationaryPoints, stream: int) -> torch.Tensor:
        """Return starts (searches * n, d): half of them between minima, the rest near minima and higher saddles."""
        points = [point.x for point in found.minima]
        keys = self._keys(stream, self.searches)
        kinds = [(halfway, points), (kicked, points)]
        if found.higher:
            kinds.append((downhill, [point.x for point in found.higher]))
        share = len(keys) // (len(kinds) + 1)
        parts = torch.split(keys, [len(keys) - share * (len(kinds) - 1)] + [share] * (len(kinds) - 1))
        starts: list[torch.Tensor] = []
        for (begin, at), some in zip(kinds, parts, strict=True):
            starts += begin(self.landscape, at, self.kick, some)
        return torch.cat(starts)

    def _keys(self, stream: int, k: int) -> torch.Tensor:
        ids = torch.arange(k, device=self.landscape.segments.ptr.device)
        return problem_keys(int(derive(self.seed, stream)), ids)

    def _run(
        self,
        found: StationaryPoints,
        many: Landscape,
        optimizer: Optimizer,
        x: torch.Tensor,
        stream: int,
        pause: Callable[[], bool] | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return energy (k,), x (k * n, d) and largest force (k,) of the points where the searches ended."""
        driver = Driver(many, optimizer, Stop(self.force_calls, self.fmax))
        keys = self._keys(stream, many.segments.n_problems)
        progress = driver.begin(x, keys)

        def paused() -> bool:
            self.told(found.calls, progress)
            return pause is not None and pause()

        self.told(found.calls, progress)
        driver.advance(progress, paused)
        if not progress.done:
            raise Preempted
        result = driver.result(progress)
        found.calls += int(result.calls.sum())
        return result.energy, result.x, result.fmax

    def _add(
        self, found: StationaryPoints, energy: torch.Tensor, x: torch.Tensor, fmax: torch.Tensor
    ) -> tuple[int, int]:
        """Add stationary points by their number of negative modes, and return the numbers of new points and of hits.

        energy, fmax (k,), x (k * n, d). Higher saddles are kept but do not count, as there are too many of them.
        """
        points = torch.split(x, self.landscape.segments.n_rows)
        fresh: list[int] = []  # of each new point, who met it first
        met: list[int] = []
        hits = 0
        for i in torch.nonzero(fmax < self.fmax).flatten().tolist():
            kind = self._kind(found, float(energy[i]), points[i])
            if kind is not None:
                hits += kind == "saddles"
                continue
            before = [j for j in fresh if self._same(energy, points, i, j)]
            met.append(before[0] if before else i)
            if not before:
                fresh.append(i)
        if not fresh:
            return 0, hits
        modes = lowest_modes(self._copies(len(fresh)), torch.cat([points[i] for i in fresh]), _MODES)
        found.calls += int(modes.calls.sum())
        count = 0
        for place, negative in enumerate(modes.count_negative().tolist()):
            i = fresh[place]
            values = tuple(value for value in modes.values[place].tolist() if value < float("inf"))
            getattr(found, _KINDS[min(negative, 2)]).append(
                Point(float(energy[i]), points[i].clone(), float(fmax[i]), values)
            )
            count += negative < 2
            hits += met.count(i) if negative == 1 else 0
        return count, hits

    def _same(self, energy: torch.Tensor, points: tuple[torch.Tensor, ...], i: int, j: int) -> bool:
        return self.same.points(self.landscape, float(energy[i]), points[i], float(energy[j]), points[j])

    def _kind(self, found: StationaryPoints, energy: float, x: torch.Tensor) -> str | None:
        """Return the name of the list of known points that contains this point; None if it is new."""
        for kind in _KINDS:
            if self._index(getattr(found, kind), energy, x) is not None:
                return kind
        return None

    def _index(self, known: list[Point], energy: float, x: torch.Tensor) -> int | None:
        """Return the index of this point among known ones; None if it is new."""
        for i, point in enumerate(known):
            if self.same.points(self.landscape, point.energy, point.x, energy, x):
                return i
        return None

    def _connect(self, found: StationaryPoints) -> int:
        """Go down from the saddles that are not connected yet, and return the number of new minima."""
        fresh = found.saddles[len(found.ends) :]
        if not fresh:
            return 0
        many, x = self._copies(len(fresh)), torch.cat([saddle.x for saddle in fresh])
        modes = lowest_modes(many, x, 1)
        ways = connect(
            many,
            x,
            modes.vectors[0],
            displacement=self.step_off,
            fmax=self.fmax,
            force_calls=4 * self.force_calls,
        )
        found.calls += int(modes.calls.sum() + ways.calls.sum())
        before = len(found.minima)
        sides = [torch.split(side, self.landscape.segments.n_rows) for side in ways.x]
        for p in range(len(fresh)):
            ends = []
            for side in range(2):
                energy, end = ways.energy[p, side : side + 1], sides[side][p]
                if int(ways.negative[p, side]) == 0:
                    self._add(found, energy, end, ways.fmax[p, side : side + 1])
                index = self._index(found.minima, float(energy), end)
                ends.append(-1 if index is None else index)
            found.ends.append((ends[0], ends[1]))
        return len(found.minima) - before
