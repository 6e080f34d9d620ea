"""The experiment `network`: minima and transition states of one system of atoms, and their connections."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import field_validator

from mlopt.core.atoms.digest import structure_digest
from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Stream, derive, problem_keys
from mlopt.core.driver.progress import Progress
from mlopt.core.errors import MloptError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.optimizer import Optimizer, local_only
from mlopt.core.runs.device import device_of
from mlopt.core.runs.experiment import Context, Experiment
from mlopt.core.runs.pace import Pace
from mlopt.core.runs.session import Session
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.experiments.network.result import NetworkResult
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.saddles.connect import Same
from mlopt.optimizers.saddles.explorer import Explorer, StationaryPoints
from mlopt.optimizers.saddles.min_mode import Dimer
from mlopt.optimizers.starts.starts import GivenStart, SphereStart


class Network(Experiment):
    """A search for the transition states around the minima of one system, and the minima that they join.

    Random starts (or the structure of a file) are relaxed to the first minima. Each round displaces known minima,
    follows minimum modes to saddles, and descends from new saddles to both sides. The run ends when some rounds in a
    row bring nothing new. This does not prove that nothing is missing: a larger ``patience`` or more searches find
    more.

    Mirror images count once, and so do structures that differ by an exchange of like atoms.
    """

    system: SystemSpec = setting(..., "the system: a formula, a crystal or a structure file")
    potential: Annotated[Potential, FromRegistry("potential")] = setting(..., "potential energy")
    dimer: Annotated[Optimizer, FromRegistry("optimizer")] = setting(Dimer(), "saddle search")
    quench: Annotated[Optimizer, FromRegistry("optimizer")] = setting(
        LBFGS(max_step=0.1), "local optimizer for the first minima"
    )
    starts: int = setting(
        20, "number of random starts for the first minima; of a file its structure is taken", ge=1
    )
    searches: int = setting(200, "number of saddle searches in each round", ge=1)
    kick: float = setting(
        0.4, "largest mean displacement of an atom at the beginning of a saddle search", unit="diameter", gt=0
    )
    force_calls: int = setting(500, "limit for each search and each relaxation", ge=1)
    fmax: float = setting(1e-6, "largest force at a minimum or a saddle", unit="energy/length", gt=0)
    patience: int = setting(3, "rounds without anything new after which the network counts as complete", ge=1)
    rounds: int = setting(50, "largest number of rounds", ge=1)
    energy_window: float = setting(
        1e-5, "points with a larger difference in energy are different", unit="energy", gt=0
    )
    distance_tolerance: float = setting(
        0.05, "largest displacement between atoms of equal structures", unit="length", gt=0
    )
    seed: int = setting(0, "seed of random numbers; the same seed gives the same result", ge=0, le=2**62)
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
        """Read the structure, try the potential on it and find the device.

        Raises:
            InputError: one of these is impossible.
        """
        device_of(self.device)
        self.potential.check(self.system.load())

    def run(self, context: Context | None = None) -> NetworkResult:
        """Explore the network; write results if ``context`` has a folder for them.

        Raises:
            InputError: as in `check`.
            Preempted: ``context`` asked to stop; a checkpoint of the last whole round has been saved.
        """
        system = self.system.load()
        self.potential.check(system)
        session = Session(context, structure_digest(system))
        context, found = session.context, StationaryPoints()
        if session.restored is None:
            session.save(found.rounds, *found.to_checkpoint())
        else:
            found = StationaryPoints.from_checkpoint(session.restored.tensors, session.restored.meta)
            found = found.to(device_of(self.device))
        explorer = self._explorer(system, context, found)
        if not found.minima:
            self._settle(explorer, found, system, session)
        while found.idle < self.patience and found.rounds < self.rounds:
            explorer.round(found, session.asked_to_leave)
            context.metric(
                found.rounds,
                minima=len(found.minima),
                saddles=len(found.saddles),
                force_calls=found.calls,
            )
            context.progress(found.rounds / self.rounds, self._line(found))
            session.save(found.rounds, *found.to_checkpoint())
            session.leave_if_asked()
        result = NetworkResult.of(found, system, self.potential, patience=self.patience)
        result = replace(result, wall_s=session.seconds)
        context.warn([*result.warnings, *self.potential.remarks()])
        folder = context.results()
        if folder is not None:
            result.write(folder)
        return result

    def _settle(self, explorer: Explorer, found: StationaryPoints, system: Systems, session: Session) -> None:
        """Relax starts to the first minima."""
        starts = self._starts(system)
        explorer.settle(found, starts, session.asked_to_leave)
        if not self.system.placed:
            explorer.settle(found, starts * starts.new_tensor([1.0, 1.0, 0.0]), session.asked_to_leave)
        if not found.minima:
            raise MloptError(
                f"no start was relaxed to a minimum with forces below {self.fmax:g} in {self.force_calls} force "
                f"calls: allow more `force_calls`, or a larger `fmax`"
            )

    def _line(self, found: StationaryPoints) -> str:
        return (
            f"round {found.rounds}: {len(found.minima)} minima, {len(found.saddles)} transition states, "
            f"{found.calls:,} force calls"
        )

    def _explorer(self, system: Systems, context: Context, found: StationaryPoints) -> Explorer:
        """Return the explorer; it reports the progress of a round's searches to ``context``."""
        landscape = AtomsLandscape(system.to(device_of(self.device)), self.potential)
        pace = Pace(context, landscape.giver, scope=" in this round")

        def told(before: int, progress: Progress) -> None:
            if not pace.due() and progress.calls:
                return
            calls, left = before + progress.total_calls, progress.active.numel()
            pace.look(calls, left * (self.force_calls - progress.calls))
            line = f"round {found.rounds + 1}: {left} searches go on, {calls:,} force calls"
            pace.show(found.rounds / self.rounds, line)

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
        given = self.system.placed
        systems = system.repeat(1 if given else self.starts).to(device_of(self.device))
        key = derive(
            problem_keys(self.seed, torch.arange(len(systems), device=systems.pos.device)), Stream.START
        )
        sampler = GivenStart() if given else SphereStart()
        return sampler.sample(systems, self.potential.diameter(systems.z), key)
