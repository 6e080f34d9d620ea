"""A band between two minima that relaxes on a potential while this is learned. Labels decide on ends and saddle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from mlopt.core.batch.random import Stream, derive
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.stop import Reason, Stop
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.contacts import around_contacts
from mlopt.optimizers.bands.initial import geodesic
from mlopt.optimizers.bands.settings import BandSettings
from mlopt.optimizers.experiments.active.journey import Journey
from mlopt.optimizers.experiments.active.learned import Learned
from mlopt.optimizers.experiments.active.wishes import Trigger, Wish

Phase = Literal["ends", "band", "climbing", "over"]

_NAMES = ("initial", "saddle", "final")
#: images begin to climb at this many times the largest force of the relaxed band
_CLIMB_BELOW = 10.0


class BandBetween(BandSettings):
    """A nudged elastic band from the system to another minimum; its highest image climbs to the saddle."""

    final: SystemSpec = setting(..., "the other end: the same atoms in the same order and cell")


class BandWalk(Journey):
    """A nudged elastic band whose two ends and images are the walkers.

    First the ends relax on the present potential, and are labelled. They move on with the next potential until forces
    of labels are small, and are constant from then on. Then the band relaxes between them, and its highest image
    climbs. When the band has relaxed, this image is labelled. The band goes on with the next potential, until the
    forces of that label are small as well. So energies of both ends and of the saddle are labels. Whatever moves waits
    where the potential cannot be trusted, as in a `Journey`.

    Of walkers 0, 1, ..., M + 1 the first and the last are the ends.

    band: settings of images and springs.
    settled: limit of the largest force of a label at an end or at the saddle. If the forces at a point stop falling,
        its best label is taken after ``patience`` rounds.
    best: three numbers for each of ``initial``, ``saddle`` and ``final``: the largest force of its best label, the
        place of that label, and the number of labels since then. None of the latter was better.
    accepted: those of the three points that are found.
    asked: walkers whose labels decide next.
    level: whether the path has no summit.
    """

    def __init__(self, *args: Any, band: BandSettings, settled: float) -> None:
        super().__init__(*args)
        self.band, self.settled = band, settled
        self.phase: Phase = "ends"
        self.best: dict[str, tuple[float, int, int]] = {}
        self.accepted: list[str] = []
        self.asked: list[int] = []
        self.level = False

    # -- the walk --------------------------------------------------------------------------------------------------

    def learn(self, learned: Learned) -> None:
        """See `Walk.learn`."""
        self.learned, self.wishes = learned, []
        if self.phase == "over":
            return
        if self.rounds:
            self.x, self.calls = self._points(), self.used
            self._judge()
        self.rounds += 1
        if self._allowed() <= 0:
            self.phase = "over"
        self.begin(self.x, self._allowed())

    def advance(self, keep: Callable[[], None]) -> list[Wish]:
        """See `Walk.advance`."""
        while self.phase != "over":
            wishes = super().advance(keep)
            if wishes:
                return wishes
            reasons = self.progress.snapshot().reason
            if bool((reasons != Reason.CONVERGED.code).any()):
                self.lost |= (reasons == Reason.NON_FINITE.code).any()
                self._turn("over")
            elif self.phase == "band":
                self._turn("climbing")
            else:
                return self._stationary()
        return []

    def _turn(self, phase: Phase) -> None:
        """Go on with another phase where all walkers are."""
        self.x, self.calls, self.phase = self._points(), self.used, phase
        self.begin(self.x, self._allowed())

    def begin(self, x: torch.Tensor, calls: int) -> None:
        """See `Walk.begin`; ``x`` has the rows of all walkers."""
        moving = torch.tensor(self.moving, dtype=torch.int64)
        systems, (_, rows) = self.systems.select(moving), self.systems.segments.select(moving)
        fmax, key = self.stop.fmax or 0.0, derive(self.key, Stream.ROUND, self.rounds)
        landscape: AtomsLandscape | Band = AtomsLandscape(systems, self.learned.potential)
        if self.phase in ("band", "climbing"):
            landscape, key = self._made(x), key[:1]
            fmax *= _CLIMB_BELOW if self.phase == "band" else 1.0
        else:
            key = key[moving]
        self.driver = Driver(landscape, self.optimizer, Stop(max(1, calls), fmax), 20, "eager", self.announce)
        self.progress = self.driver.begin(x[rows], key)

    def _made(self, x: torch.Tensor) -> Band:
        """Return the band on the present potential, between the ends among the points ``x`` of all walkers."""
        size = len(self.systems[0].pos)
        one = AtomsLandscape(self.systems[0], self.learned.potential)
        band = self.band.make(one, x[:size], x[-size:])
        return band.replace(climb=self.band.climbing) if self.phase == "climbing" else band

    def _laid(self) -> torch.Tensor:
        """Return the points of all walkers, with images on the shortest path between the ends or around contacts."""
        size = len(self.systems[0].pos)
        band = self._made(self.x)
        images, _ = around_contacts(band, geodesic(band), self.key[:1])
        return torch.cat([self.x[:size], images, self.x[-size:]])

    # -- walkers ---------------------------------------------------------------------------------------------------

    @property
    def moving(self) -> list[int]:
        """The walkers of the present phase: ends that are not accepted yet, all images, or none."""
        last = len(self.systems) - 1
        if self.phase == "ends":
            return [one for one, name in ((0, "initial"), (last, "final")) if name not in self.accepted]
        return [] if self.phase == "over" else list(range(1, last))

    def _under_way(self) -> torch.Tensor:
        moving = torch.tensor(self.moving, dtype=torch.int64)
        if self.phase == "ends":
            return moving[self.progress.active]
        return moving[: 0 if self.progress.done else None]

    def _points(self) -> torch.Tensor:
        _, rows = self.systems.segments.select(torch.tensor(self.moving, dtype=torch.int64))
        return self.x.index_copy(0, rows, super()._points())

    @property
    def used(self) -> torch.Tensor:
        """See `Walk.used`; an evaluation of the band is a call of each image."""
        calls = self.progress.snapshot().calls
        moving = torch.tensor(self.moving, dtype=torch.int64)
        return self.calls.index_add(0, moving, calls.expand(len(moving)))

    @property
    def points(self) -> torch.Tensor:
        """See `Walk.points`."""
        return self._points()

    @property
    def reasons(self) -> list[Reason]:
        """See `Walk.reasons`; all walkers share one."""
        if bool(self.lost.any()):
            reason = Reason.NON_FINITE
        elif self.phase != "over":
            reason = Reason.RUNNING
        else:
            reason = Reason.BUDGET if self.stationary is None else Reason.CONVERGED
        return [reason] * len(self.systems)

    # -- what labels decide ----------------------------------------------------------------------------------------

    @property
    def stationary(self) -> tuple[int, int, int] | None:
        """The places of the labels of the initial state, the saddle and the final state, or None if one is missing."""
        if len(self.accepted) < len(_NAMES):
            return None
        initial, saddle, final = (self.best[name][1] for name in _NAMES)
        return initial, saddle, final

    @property
    def largest_force(self) -> float:
        """The largest force that a label has at the ends and at the saddle."""
        return max((self.best[one][0] for one in self.accepted), default=float("nan"))

    @property
    def warnings(self) -> list[str]:
        """Warnings for the user about the ends and the saddle."""
        lines = [
            f"the largest force of a label at the {name} state is {force:.3g} at best, above {self.settled:g}: "
            f"the potential is too stiff there; raise its `level`, or take a larger `polish_fmax`"
            for name, (force, _, _) in self.best.items()
            if name in self.accepted and force > self.settled
        ]
        if self.level:
            lines.append("no image of the band is higher than its ends: give more images, or other minima")
        elif self.phase == "over" and self.stationary is None and not bool(self.lost.any()):
            lines.append("`force_calls` were spent before the saddle was found; raise them")
        return lines

    def _stationary(self) -> list[Wish]:
        """Return the points to be labelled where the potential has no force: the ends, or the highest image."""
        self._turn(self.phase)
        trigger: Trigger = "end"
        self.asked = self.moving
        if self.phase == "climbing":
            size = len(self.systems[0].pos)
            images = self._made(self.x).look(self.x[size:-size])
            if not bool(images.climbing.any()):
                self.level = True
                self._turn("over")
                return []
            height = torch.where(images.climbing, images.energy, -torch.inf)
            trigger, self.asked = "saddle", [1 + int(height.argmax())]
        there = self.systems.with_pos(self.x)
        grades = self.learned.grader.grade(there.select(self.asked)).system.tolist()
        return [
            Wish(there[one], one, int(self.calls[one]), grade, trigger)
            for one, grade in zip(self.asked, grades, strict=True)
        ]

    def _judge(self) -> None:
        """Look at the labels of the ends or of the saddle, and go on with the next phase where they are good."""
        for walker in self.asked:
            self._compare(walker)
        self.asked = []
        if self.stationary is not None:
            self.phase = "over"
        if self.phase == "ends" and len(self.accepted) == 2:
            self.phase = "band"
            self.x = self._laid()

    def _compare(self, walker: int) -> None:
        """Take the label of an end or of the saddle for the best where it is, and for the last where it is good."""
        _, rows = self.systems.segments.select(torch.tensor([walker]))
        place = self.learned.place_of(self.x[rows])
        if place is None:
            return
        label = self.learned.data.select([place])
        force = float(torch.where(label.systems.fixed[:, None], 0.0, label.force).norm(dim=-1).max())
        name = {0: "initial", len(self.systems) - 1: "final"}.get(walker, "saddle")
        least, where, rounds = self.best.get(name, (float("inf"), place, 0))
        found = (force, place, 0) if force < least else (least, where, rounds + 1)
        if found[0] <= self.settled or found[2] >= self.asking.patience:
            self.accepted.append(name)
            self.x = self.x.index_copy(0, rows, self.learned.data.systems[found[1]].pos)
        self.best[name] = found

    def failed(self, wishes: Sequence[Wish]) -> None:
        """See `Walk.failed`: without a label there, the band is given up."""
        if any(one.trigger != "put aside" for one in wishes):
            self._turn("over")
            self.lost[:] = True

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def to_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """See `Walk.to_checkpoint`."""
        tensors, meta = super().to_checkpoint()
        best = [[name, *found] for name, found in self.best.items()]
        return tensors, meta | {
            "phase": self.phase,
            "best": best,
            "accepted": self.accepted,
            "level": self.level,
        }

    def load_checkpoint(
        self, learned: Learned, tensors: dict[str, torch.Tensor], meta: dict[str, Any]
    ) -> None:
        """See `Walk.load_checkpoint`."""
        self.phase, self.accepted, self.level = meta["phase"], list(meta["accepted"]), meta["level"]
        self.best = {name: (force, place, rounds) for name, force, place, rounds in meta["best"]}
        super().load_checkpoint(learned, tensors, meta)
