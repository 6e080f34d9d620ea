"""The experiment `network`: minima and transition states of one system of atoms, and which joins which."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import field_validator

from mlopt.core.atoms.digest import structure_digest
from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import Units
from mlopt.core.batch.random import derive, problem_keys
from mlopt.core.driver.progress import Progress
from mlopt.core.errors import CheckpointError, MloptError
from mlopt.core.files import atomic
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.minima.verification import Check, Reading, check_records
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.optimizer import Optimizer, local_only
from mlopt.core.reporting.summary import Summary
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.device import device_of
from mlopt.core.runs.experiment import Context, Experiment, Preempted
from mlopt.core.runs.pace import Pace
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.structures.write import write_extxyz
from mlopt.optimizers.experiments.network import page
from mlopt.optimizers.experiments.search.polish import readings
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.saddles.connect import Same
from mlopt.optimizers.saddles.explorer import Explorer, Found, Point
from mlopt.optimizers.saddles.min_mode import Dimer
from mlopt.optimizers.starts.starts import GivenStart, SphereStart

if TYPE_CHECKING:
    from ase import Atoms

#: keeps the random numbers of starts apart from those of the searches
_START_STREAM = 1
#: seconds between two lines of progress
_REPORT_EVERY = 1.0


class Network(Experiment):
    """Find the transition states around the minima of one system, and the minima that they join.

    Random starts (or the structure of a file) are relaxed to the first minima. Each round then kicks known minima,
    follows minimum modes to saddles, and goes down from the new ones to both sides, until some rounds in a row have
    brought nothing new. That is no proof that nothing is missing: ask for more patience, or more searches.

    Mirror images, and structures that differ by an exchange of like atoms, count once.
    """

    system: SystemSpec = setting(..., "the atoms")
    potential: Annotated[Potential, FromRegistry("potential")] = setting(..., "the energy")
    dimer: Annotated[Optimizer, FromRegistry("optimizer")] = setting(Dimer(), "what leads to saddles")
    quench: Annotated[Optimizer, FromRegistry("optimizer")] = setting(
        LBFGS(max_step=0.1), "what leads to the first minima"
    )
    starts: int = setting(20, "random starts for the first minima; of a file its structure is taken", ge=1)
    searches: int = setting(200, "dimers in each round", ge=1)
    kick: float = setting(
        0.4, "largest mean displacement of an atom that a search begins with", unit="diameter", gt=0
    )
    force_calls: int = setting(500, "of each search, and of each relaxation", ge=1)
    fmax: float = setting(1e-6, "largest atomic force at a minimum or a saddle", unit="energy/length", gt=0)
    patience: int = setting(3, "rounds without anything new after which the network is done", ge=1)
    rounds: int = setting(50, "at most so many", ge=1)
    energy_window: float = setting(
        1e-5, "points whose energies differ by more are different", unit="energy", gt=0
    )
    distance_tolerance: float = setting(
        0.05, "largest displacement between atoms of equal structures", unit="length", gt=0
    )
    seed: int = setting(0, "same seed, same result", ge=0, le=2**62)
    device: str = setting("cpu", "cpu, cuda, cuda:1, ...")

    @field_validator("dimer")
    @classmethod
    def _climbs(cls, dimer: Optimizer) -> Optimizer:
        if dimer.seeks != "saddle":
            raise ValueError(
                f"{type(dimer).__name__} ends at a {dimer.seeks}; take one that ends at saddles, such as dimer"
            )
        return dimer

    @field_validator("quench")
    @classmethod
    def _local(cls, quench: Optimizer) -> Optimizer:
        return local_only(quench)

    def check(self) -> None:
        """Read the structure, try the potential on it and find the device."""
        device_of(self.device)
        self.potential.check(self.system.load())

    def run(self, context: Context | None = None) -> NetworkResult:
        """Explore; write results where ``context`` has a place for them.

        Raises:
            InputError: as `check`.
            Preempted: ``context`` asked to stop; a checkpoint has been saved, of the last whole round.
        """
        context, began, spent = context or Context(), time.monotonic(), 0.0
        system = self.system.load()
        self.potential.check(system)
        identity, found = structure_digest(system), Found()
        explorer = self._explorer(system, context, found)
        restored = context.restored()
        if restored is not None:
            if restored.meta.get("system") != identity:
                raise CheckpointError(
                    "the checkpoint is of another structure: has the structure file changed? Put it back as it was, or "
                    "start a new run"
                )
            found = Found.from_checkpoint(restored.tensors, restored.meta)
            found = found.to(explorer.landscape.segments.ptr.device)
            spent = float(restored.meta["seconds"])

        def elapsed() -> float:
            return spent + time.monotonic() - began

        def save() -> None:
            tensors, meta = found.to_checkpoint()
            meta |= {"system": identity, "seconds": elapsed()}
            context.save(found.rounds, Checkpoint(tensors, meta))

        def pause() -> bool:
            return context.stopping

        if restored is None:
            save()
        if not found.minima:
            starts = self._starts(system)
            explorer.settle(found, starts, pause)
            if self.system.file is None:
                explorer.settle(found, starts * starts.new_tensor([1.0, 1.0, 0.0]), pause)
            if not found.minima:
                raise MloptError(
                    f"no start was relaxed to a minimum with forces below {self.fmax:g} in {self.force_calls} force "
                    f"calls: allow more `force_calls`, or a larger `fmax`"
                )
        while found.idle < self.patience and found.rounds < self.rounds:
            explorer.round(found, pause)
            save()
            context.metric(
                found.rounds,
                minima=len(found.minima),
                saddles=len(found.saddles),
                force_calls=found.calls,
            )
            context.progress(found.rounds / self.rounds, self._line(found))
            if context.stopping:
                raise Preempted
        return NetworkResult.of(self, found, context, elapsed)

    def _line(self, found: Found) -> str:
        return (
            f"round {found.rounds}: {len(found.minima)} minima, {len(found.saddles)} transition states, "
            f"{found.calls:,} force calls"
        )

    def _explorer(self, system: Systems, context: Context, found: Found) -> Explorer:
        """The explorer; it tells ``context`` how far the searches of a round are."""
        landscape = AtomsLandscape(system.to(device_of(self.device)), self.potential)
        pace, shown = Pace(context, landscape.giver, scope=" in this round"), 0.0

        def told(before: int, progress: Progress) -> None:
            nonlocal shown
            if progress.calls and time.monotonic() < shown:
                return
            shown = time.monotonic() + _REPORT_EVERY
            calls, left = before + progress.total_calls, progress.active.numel()
            pace.look(calls, left * (self.force_calls - progress.calls))
            line = f"round {found.rounds + 1}: {left} searches go on, {calls:,} force calls"
            rest = pace.rest
            context.progress(found.rounds / self.rounds, f"{line}, {rest}" if rest else line)

        return Explorer(
            landscape,
            searches=self.searches,
            kick=self.kick * float(self.potential.diameter(system.z).mean()),
            dimer=self.dimer,
            descent=self.quench,
            force_calls=self.force_calls,
            fmax=self.fmax,
            same=Same(self.energy_window, self.distance_tolerance),
            seed=self.seed,
            told=told,
        )

    def _starts(self, system: Systems) -> torch.Tensor:
        given = self.system.file is not None
        systems = system.repeat(1 if given else self.starts).to(device_of(self.device))
        key = derive(
            problem_keys(self.seed, torch.arange(len(systems), device=systems.pos.device)), _START_STREAM
        )
        sampler = GivenStart() if given else SphereStart()
        return sampler.sample(systems, self.potential.diameter(systems.z), key)


@dataclass(frozen=True)
class NetworkResult:
    """Outcome of `Network`: minima and saddles by energy; ``ends[i]``: the minima that saddle i joins, -1 unknown.

    check: how the minima, and then the saddles, did when they were evaluated again.
    """

    network: Network
    minima: list[Point]
    saddles: list[Point]
    ends: list[tuple[int, int]]
    found: Found
    check: Check
    wall_s: float

    @classmethod
    def of(
        cls, network: Network, found: Found, context: Context, elapsed: Callable[[], float]
    ) -> NetworkResult:
        """Sort, evaluate everything once more from the coordinates that are stored, and write the files of a run."""
        order = sorted(range(len(found.minima)), key=lambda i: found.minima[i].energy)
        rank = {old: new for new, old in enumerate(order)} | {-1: -1}
        tops = sorted(range(len(found.saddles)), key=lambda i: found.saddles[i].energy)
        ends = [tuple(sorted(rank[end] for end in found.ends[i])) for i in tops]
        minima, saddles = [found.minima[i] for i in order], [found.saddles[i] for i in tops]
        check = _verify(network, minima + saddles)
        found.calls += check.calls + network.potential.trial(network.system.load()).calls
        result = cls(network, minima, saddles, [(a, b) for a, b in ends], found, check, elapsed())
        context.warn([*result.warnings, *network.potential.remarks()])
        folder = context.results()
        if folder is not None:
            result.write(folder)
        return result

    @property
    def warnings(self) -> list[str]:
        """What to know before one trusts the energies: of the potential, and of points that do not hold."""
        lines = list(self.network.potential.trial(self.network.system.load()).warnings)
        missed = self.check.missed
        if missed:
            lines.append(
                f"{len(missed)} of {len(self.minima) + len(self.saddles)} points have another energy when they are "
                f"evaluated again (the first: {self.check.verifications[missed[0]].reason}). They are kept, with "
                f"`verified` false. A potential should give the same energy for the same coordinates"
            )
        return lines

    @property
    def complete(self) -> bool:
        """Whether the last rounds brought nothing new and every saddle joins two known minima."""
        joined = all(min(pair) >= 0 for pair in self.ends)
        return joined and self.found.idle >= self.network.patience

    def table(self) -> list[dict[str, Any]]:
        """One row a transition state, ready for ``pandas.DataFrame``."""
        rows = []
        for i, (saddle, pair) in enumerate(zip(self.saddles, self.ends, strict=True)):
            over = [saddle.energy - self.minima[end].energy if end >= 0 else None for end in pair]
            rows.append(
                {
                    "saddle": i,
                    "energy": saddle.energy,
                    "minimum_1": pair[0] if pair[0] >= 0 else None,
                    "minimum_2": pair[1] if pair[1] >= 0 else None,
                    "barrier_1": over[0],
                    "barrier_2": over[1],
                    "lowest_eigenvalues": list(saddle.values),
                    "fmax": saddle.fmax,
                }
                | self._notes(len(self.minima) + i)
            )
        return rows

    def _notes(self, point: int) -> dict[str, Any]:
        """What verification says about a point, counted over minima and then saddles, where it says anything."""
        told = self.check.verifications[point]
        notes: dict[str, Any] = {} if told.ok else {"verified": False}
        if not told.ok and math.isfinite(told.energy):
            notes["energy_again"] = told.energy
        return notes if told.zero_width is None else notes | {"energy_zero_width": told.zero_width}

    def atoms(self) -> tuple[list[Atoms], list[Atoms]]:
        """Minima and saddles as ASE atoms, each with its energy in ``info``, lowest first."""
        groups = []
        for points, before in ((self.minima, 0), (self.saddles, len(self.minima))):
            images = []
            for i, point in enumerate(points):
                one = _system(self.network, [point]).to_atoms()[0]
                one.info |= {"index": i, "energy": point.energy, "lowest_eigenvalue": point.values[0]}
                one.info |= self._notes(before + i)
                images.append(one)
            groups.append(images)
        return groups[0], groups[1]

    def summary(self) -> Summary:
        """The numbers that ``mlopt run --json`` prints, and what the report shows."""
        return page.summarise(self, self._numbers())

    def _numbers(self) -> dict[str, Any]:
        barriers = [row["barrier_1"] for row in self.table() if row["minimum_1"] == 0 != row["minimum_2"]]
        return {
            "experiment": "network",
            "status": "finished",
            "best_energy": self.minima[0].energy,
            "minima": len(self.minima),
            "transition_states": len(self.saddles),
            "connected": sum(min(pair) >= 0 for pair in self.ends),
            "lowest_barrier": min((b for b in barriers if b is not None), default=None),
            "force_calls": self.found.calls,
            "rounds": self.found.rounds,
            "searches": self.found.searches,
            "searches_at_saddles": self.found.hits,
            "wall_s": round(self.wall_s, 3),
            "converged": self.complete,
            "unverified_points": len(self.check.missed),
            "verified_within": self.check.within(self.minima[0].energy),
            "units": str(Units.of(self.network.potential.units)),
        } | ({"warnings": self.warnings} if self.warnings else {})

    def write(self, folder: Path) -> None:
        """Write ``network.json``, ``minima.extxyz``, ``saddles.extxyz`` and ``disconnectivity.svg``."""
        minima = [
            {"minimum": i, "energy": one.energy, "fmax": one.fmax, "lowest_eigenvalues": list(one.values)}
            | self._notes(i)
            for i, one in enumerate(self.minima)
        ]
        atomic.write_json(folder / "network.json", {"minima": minima, "saddles": self.table()})
        for name, images in zip(("minima", "saddles"), self.atoms(), strict=True):
            write_extxyz(folder / f"{name}.extxyz", images)
        page.draw(self, folder)


def _system(network: Network, points: list[Point]) -> Systems:
    """The structures of ``points`` on the CPU."""
    base = network.system.load().repeat(len(points))
    return base.with_pos(torch.cat([point.x for point in points]).to(base.pos))


def _verify(network: Network, points: list[Point]) -> Check:
    """Evaluate once more, from the coordinates that are stored."""
    systems = _system(network, points)

    def evaluate(indices: list[int]) -> list[Reading]:
        return readings(AtomsLandscape(systems.select(indices), network.potential))

    return check_records([point.energy for point in points], evaluate)
