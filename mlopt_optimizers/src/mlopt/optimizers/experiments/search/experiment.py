"""The experiment `search`: many starts, one optimizer, the unique minima that they found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from mlopt.core.atoms.digest import structure_digest
from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import derive, problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.engine import EngineName, choose_engine
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import OnTarget, Reason, Stop
from mlopt.core.errors import CheckpointError, InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.protocols.start import StartSampler
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.device import device_of
from mlopt.core.runs.experiment import Context, Experiment, Preempted
from mlopt.core.runs.pace import Pace
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.experiments.search.clock import SearchClock
from mlopt.optimizers.experiments.search.polish import Polish
from mlopt.optimizers.searches.settings import Budget, MinimaSettings, Target
from mlopt.optimizers.starts.starts import GivenStart, SphereStart

if TYPE_CHECKING:
    from mlopt.optimizers.experiments.search.result import SearchResult

#: keeps the random numbers of starts apart from those of the search that follows
_START_STREAM = 1
_ON_TARGET: dict[str, OnTarget] = {"never": "continue", "start": "stop-start", "run": "stop-run"}
#: seconds between two lines of progress
_REPORT_EVERY = 0.5


class Search(Experiment):
    """Search for the lowest minima of one system from many starts.

    Everything that a configuration file can say is an argument here::

        Search(system=SystemSpec(cluster="Ar13"), potential=LennardJones(), optimizer=BasinHopping(), starts=10).run()
    """

    system: SystemSpec = setting(..., "the atoms")
    potential: Annotated[Potential, FromRegistry("potential")] = setting(..., "the energy")
    optimizer: Annotated[Optimizer, FromRegistry("optimizer")] = setting(..., "local optimizer or search")
    start: Annotated[StartSampler | None, FromRegistry("start")] = setting(
        None, "where each start begins; none: at the structure of a file, anywhere in a ball for a formula"
    )
    starts: int = setting(64, "how many", ge=1, le=1_000_000)
    budget: Budget = setting(Budget(), "when a start ends")
    fmax: float | None = setting(None, "end a start at this largest force; only for local optimizers", gt=0)
    target: Target | None = setting(None, "an energy to reach")
    polish: Polish = setting(Polish(), "the tight relaxation at the end")
    minima: MinimaSettings = setting(MinimaSettings(), "what is kept")
    seed: int = setting(0, "same seed, same result", ge=0, le=2**62)
    dtype: Literal["float64", "float32"] = setting("float64", "of the search; minima are polished in float64")
    device: str = setting("cpu", "cpu, cuda, cuda:1, ...")
    engine: EngineName = setting(
        "auto",
        "eager: PyTorch; fused: compiled, many times faster, where potential, optimizer and moves offer kernels; "
        "auto: fused where that works and the search is long enough to pay for compiling",
    )

    def check(self) -> None:
        """Read the structure, try the potential on it and find the device, before anything is written."""
        device_of(self.device)
        self._stop()
        self.minima.check()
        if self.system.file is None and self._start.given:
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
        return SphereStart() if self.system.file is None else GivenStart()

    def run(self, context: Context | None = None) -> SearchResult:
        """Search, polish, verify; write results where ``context`` has a place for them.

        Raises:
            InputError: as `check`.
            Preempted: ``context`` asked to stop; a checkpoint has been saved.
        """
        from mlopt.optimizers.experiments.search.result import (
            SearchResult,  # numpy and SQLite are not needed to validate
        )

        context = context or Context()
        system = self.system.load()
        systems = self._systems(system)
        ids = torch.arange(self.starts, device=systems.pos.device)
        landscape = AtomsLandscape(systems, self.potential)
        driver = Driver(
            landscape, self.optimizer, self._stop(), self.minima.per_start, self.engine, context.log
        )
        key = problem_keys(self.seed, ids)
        progress = driver.begin(self._starts(systems, landscape.diameter, key), key)
        identity = structure_digest(system)
        clock = SearchClock()
        restored = context.restored()
        if restored is not None:
            if restored.meta.get("system") != identity:
                raise CheckpointError(
                    "the checkpoint is of another structure: has the structure file changed? Put it back as it was, or "
                    "start a new run"
                )
            progress.load_checkpoint(restored.tensors, restored.meta)
            clock = SearchClock.of(restored.meta)

        def save() -> None:
            tensors, meta = progress.to_checkpoint()
            meta |= {"system": identity} | clock.meta
            # where problems run one after the other only their total grows
            context.save(progress.calls or progress.total_calls, Checkpoint(tensors, meta))

        if restored is None:  # at once, so that a resume always knows which structure it is about
            save()
        clock.compile_s += driver.prepare(progress, lambda: context.interrupted)
        if context.interrupted:
            save()  # which says how long that took
            raise Preempted
        clock.start()
        watch = _Watch(self, context, progress, clock, Pace(context, landscape.giver))
        while not progress.done:
            driver.advance(progress, watch.pause)
            if watch.out_of_time:
                driver.end_all(progress, Reason.TIME)
            watch.record()
            save()  # also when done: polishing can be long, and what is killed in it goes on from here
            if context.stopping:
                raise Preempted
        watch.report(final=True)
        return SearchResult.of(self, driver.result(progress), context, clock, driver.engine_name)

    def _stop(self) -> Stop:
        if self.target is None:
            stop = Stop(self.budget.force_calls, self.fmax)
        else:
            on_target = _ON_TARGET[self.target.stop]
            stop = Stop(
                self.budget.force_calls, self.fmax, self.target.energy, self.target.tolerance, on_target
            )
        if self.optimizer.searching and self.fmax is not None:
            raise InputError(
                "`fmax` ends local optimizers only; leave it out with a search such as basin-hopping"
            )
        return stop

    def _systems(self, system: Systems) -> Systems:
        self.potential.check(system)
        return system.repeat(self.starts).to(device_of(self.device), getattr(torch, self.dtype))

    def _starts(self, systems: Systems, diameter: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        drawn = self._start.sample(systems, diameter, derive(key, _START_STREAM)).to(systems.pos)
        return torch.where(systems.fixed[:, None], systems.pos, drawn)


class _Watch:
    """Looks at a search between its steps: metrics, progress, time, and whether to pause."""

    def __init__(
        self, search: Search, context: Context, progress: Progress, clock: SearchClock, pace: Pace
    ) -> None:
        self.search, self.context, self.progress, self.clock = search, context, progress, clock
        self.pace = pace
        self._look()
        self.recorded = len(progress.trace_calls)
        self.next_report = 0.0
        self.out_of_time = False

    def pause(self) -> bool:
        """Called between steps."""
        self.record()
        now = self.clock.seconds
        if now >= self.next_report:
            self.next_report = now + _REPORT_EVERY
            self._look()
            self.report()
        minutes = self.search.budget.minutes
        self.out_of_time = minutes is not None and now > 60.0 * minutes
        return self.out_of_time or self.context.pause()

    def record(self) -> None:
        """A row of metrics for each point that the trace has got: not when it was looked at, but what it says."""
        calls = self.progress.trace_calls
        for calls_then, energy in zip(
            calls[self.recorded :], self.progress.trace_energy[self.recorded :], strict=True
        ):
            self.context.metric(calls_then, **self._numbers(calls_then, energy))
        self.recorded = len(calls)

    def report(self, final: bool = False) -> None:
        """One line for people."""
        numbers = self._numbers(None, self.progress.snapshot().tally.energy)
        done = 1.0 if final else self.progress.calls / self.search.budget.force_calls
        best = numbers["best_energy"]
        parts = [f"{self.progress.total_calls:,} force calls"]
        if best is not None:
            parts.insert(0, f"best {best:.6f}")
        if self.search.target is not None:
            parts.append(f"{numbers['hits']} of {self.search.starts} starts at the target")
        if self.pace.rest and not final:
            parts.append(self.pace.rest)
        self.context.progress(done, ", ".join(parts))

    def _look(self) -> None:
        left = self.progress.active.numel() * (self.search.budget.force_calls - self.progress.calls)
        self.pace.look(self.progress.total_calls, left)

    def _numbers(self, calls: int | None, energy: torch.Tensor) -> dict[str, Any]:
        """Of all starts after ``calls`` of each, or now; energy: theirs at that time."""
        best = float(torch.where(torch.isfinite(energy), energy, torch.inf).min())
        outcome = self.progress.snapshot()
        hit, running = outcome.tally.first_hit >= 0, outcome.reason == 0
        if calls is not None:
            hit = hit & (outcome.tally.first_hit <= calls)
            running = running | (outcome.calls > calls)
        return {
            "best_energy": best if best < float("inf") else None,
            "hits": int(hit.sum()),
            "running": int(running.sum()),
        }
