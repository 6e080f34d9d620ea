"""The experiment `search`: one optimizer from many starts, and the unique minima."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import field_validator

from mlopt.core.atoms.digest import structure_digest
from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import Units
from mlopt.core.batch.random import Stream, derive, problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.engine import EngineName, choose_engine
from mlopt.core.driver.result import Result
from mlopt.core.driver.stop import OnTarget, Reason, Stop
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.optimizer import Optimizer, energies_only
from mlopt.core.protocols.start import StartSampler
from mlopt.core.runs.device import device_of
from mlopt.core.runs.experiment import Context, Experiment, Preempted
from mlopt.core.runs.session import Session
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.experiments.search.polish import Polish
from mlopt.optimizers.experiments.search.watch import SearchWatch
from mlopt.optimizers.searches.settings import Budget, MinimaSettings, Target
from mlopt.optimizers.starts.starts import GivenStart, SphereStart

if TYPE_CHECKING:
    from mlopt.optimizers.experiments.search.result import SearchResult

_ON_TARGET: dict[str, OnTarget] = {"never": "continue", "start": "stop-start", "run": "stop-run"}


class Search(Experiment):
    """A search for the lowest minima of one system from many starts.

    Every entry of a configuration file is an argument here::

        Search(system=SystemSpec(cluster="Ar13"), potential=LennardJones(), optimizer=BasinHopping(), starts=10).run()
    """

    system: SystemSpec = setting(..., "the system: a formula, a crystal or a structure file")
    potential: Annotated[Potential, FromRegistry("potential")] = setting(..., "potential energy")
    optimizer: Annotated[Optimizer, FromRegistry("optimizer")] = setting(..., "local optimizer or search")
    start: Annotated[StartSampler | None, FromRegistry("start")] = setting(
        None, "initial positions of each start; none: those of the file, or random in a ball for a formula"
    )
    starts: int = setting(64, "number of starts", ge=1, le=1_000_000)
    budget: Budget = setting(Budget(), "limits of a start and of the run")
    fmax: float | None = setting(None, "largest force at which a start ends; for local optimizers only", gt=0)
    target: Target | None = setting(None, "energy to reach")
    polish: Polish = setting(Polish(), "relaxation to a small force at the end")
    minima: MinimaSettings = setting(MinimaSettings(), "which minima are stored")
    seed: int = setting(0, "seed of random numbers; the same seed gives the same result", ge=0, le=2**62)
    dtype: Literal["float64", "float32"] = setting(
        "float64", "floating-point type of the search; minima are polished in float64"
    )
    device: str = setting("cpu", "cpu, cuda, cuda:1, ...")
    engine: EngineName = setting(
        "auto",
        "eager: PyTorch; fused: compiled and many times faster, needs kernels of potential, optimizer"
        " and moves; auto: fused where it is possible and faster",
    )

    @field_validator("optimizer")
    @classmethod
    def _of_energies(cls, optimizer: Optimizer) -> Optimizer:
        return energies_only(optimizer)

    def check(self) -> None:
        """Read the structure, try the potential on it and find the device, before anything is written.

        Raises:
            InputError: one of these is impossible.
        """
        device_of(self.device)
        self._stop()
        self.minima.check()
        if not self.system.placed and self._start.given:
            raise InputError(
                "`start: given` needs positions, and a formula has none: give a `system.file`, or another start"
            )
        system = self.system.load()
        self.potential.check(system)
        if self.engine == "fused":
            system = system.to(device_of(self.device), getattr(torch, self.dtype))
            choose_engine("fused", AtomsLandscape(system, self.potential), self.optimizer, 1)

    @property
    def _start(self) -> StartSampler:
        if self.start is not None:
            return self.start
        return SphereStart() if not self.system.placed else GivenStart()

    def run(self, context: Context | None = None) -> SearchResult:
        """Search, polish and verify; write results if ``context`` has a folder for them.

        Raises:
            InputError: as in `check`.
            Preempted: ``context`` asked to stop; a checkpoint has been saved.
        """
        system = self.system.load()
        session = Session(context, structure_digest(system))
        context = session.context
        systems = self._systems(system)
        landscape = AtomsLandscape(systems, self.potential)
        driver = Driver(
            landscape, self.optimizer, self._stop(), self.minima.per_start, self.engine, context.log
        )
        key = problem_keys(self.seed, torch.arange(self.starts, device=systems.pos.device))
        progress = driver.begin(self._starts(systems, landscape.diameter, key), key)

        def save() -> None:
            # where problems run one after the other only their total grows
            session.save(progress.calls or progress.total_calls, *progress.to_checkpoint())

        if session.restored is None:  # at once, so that a resume always knows which structure it is about
            save()
        else:
            progress.load_checkpoint(session.restored.tensors, session.restored.meta)
        session.compiled(driver.prepare(progress, lambda: context.interrupted))
        if context.interrupted:
            save()  # which says how long that took
            raise Preempted
        watch = SearchWatch(session, progress, self.budget, self.target, landscape.giver)
        while not progress.done:
            driver.advance(progress, watch.pause)
            if watch.out_of_time:
                driver.end_all(progress, Reason.TIME)
            watch.record()
            save()  # also when done: polishing can be long, and what is killed in it goes on from here
            session.leave_if_asked()
        watch.end()
        return self._kept(driver.result(progress), system, session, driver.engine_name)

    def _kept(self, result: Result, system: Systems, session: Session, engine: str) -> SearchResult:
        """Polish the points of the search, store the minima, and write the files of a run."""
        # numpy and SQLite are not needed to validate
        from mlopt.optimizers.experiments.search.keeper import Keeper
        from mlopt.optimizers.experiments.search.result import SearchResult

        keeper = Keeper(self.potential, self.config()["potential"], self.polish, self.minima, self.seed)
        kept = keeper.keep(result, system, session.context)
        found = SearchResult(
            result,
            kept.polished,
            kept.minima,
            kept.check,
            units=Units.of(self.potential.units),
            force_calls=int(result.calls.sum()) + kept.calls,
            wall_s=session.seconds,
            target=self.target,
            fmax=self.fmax,
            roughness=kept.roughness,
            warnings=kept.warnings,
            engine=engine,
            compile_s=session.compile_seconds,
        )
        session.context.warn([*found.warnings, *self.potential.remarks()])
        folder = session.context.results()
        if folder is not None:
            found.write(folder)
        return found

    def _stop(self) -> Stop:
        if self.target is None:
            stop = Stop(self.budget.force_calls, self.fmax)
        else:
            on_target = _ON_TARGET[self.target.stop]
            stop = Stop(
                self.budget.force_calls, self.fmax, self.target.energy, self.target.tolerance, on_target
            )
        if (self.optimizer.searching or self.optimizer.seeks == "nothing") and self.fmax is not None:
            raise InputError(
                "`fmax` ends local optimizers only; leave it out with a search such as basin-hopping, and with dynamics"
            )
        return stop

    def _systems(self, system: Systems) -> Systems:
        self.potential.check(system)
        return system.repeat(self.starts).to(device_of(self.device), getattr(torch, self.dtype))

    def _starts(self, systems: Systems, diameter: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        drawn = self._start.sample(systems, diameter, derive(key, Stream.START)).to(systems.pos)
        return torch.where(systems.fixed[:, None], systems.pos, drawn)
