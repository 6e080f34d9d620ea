"""The experiment `md`: molecular dynamics of many walkers in one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import field_validator, model_validator

from mlopt.core.atoms.digest import structure_digest
from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Stream, derive, problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.engine import EngineName, choose_engine
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Reason, Stop
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.start import StartSampler
from mlopt.core.runs.device import device_of
from mlopt.core.runs.experiment import Context, Experiment, Preempted
from mlopt.core.runs.session import Session
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.dynamics.integrator import Integrator
from mlopt.optimizers.experiments.md.recording import Recording
from mlopt.optimizers.experiments.md.watch import DynamicsWatch
from mlopt.optimizers.experiments.search.polish import Polish, polish
from mlopt.optimizers.starts.starts import GivenStart, SphereStart

if TYPE_CHECKING:
    from mlopt.optimizers.experiments.md.result import MdResult


class MolecularDynamics(Experiment):
    """Molecular dynamics of one system by several walkers, at one temperature or at several.

    Walkers differ in their initial velocities, and in the random numbers of their thermostats. All of them are one
    batch. A walker whose energy becomes non-finite or explodes has failed, as has one whose atoms come closer than
    `min_distance`. Its trajectory ends there, and the others go on.

    Every entry of a configuration file is an argument here::

        MolecularDynamics(
            system=SystemSpec(file="si.extxyz"), potential=StillingerWeber(), steps=1000,
            integrator=Langevin(time_step=1.0, temperature=300.0, friction=0.01),
        ).run()
    """

    system: SystemSpec = setting(..., "the system: a structure file, a crystal or a formula")
    potential: Annotated[Potential, FromRegistry("potential")] = setting(..., "potential energy")
    integrator: Annotated[Integrator, FromRegistry("optimizer")] = setting(
        ..., "velocity-verlet, langevin, bussi or nose-hoover"
    )
    steps: int = setting(..., "number of time steps", ge=1)
    walkers: int = setting(1, "number of trajectories, at each of the temperatures", ge=1, le=1_000_000)
    temperatures: list[float] | None = setting(
        None, "temperatures of the walkers; none: that of the integrator", unit="K, or reduced", min_length=1
    )
    every: int = setting(10, "steps between two frames: of trajectories, energies and checks", ge=1)
    equilibration: int = setting(0, "steps at the beginning that averages leave out", ge=0)
    min_distance: float | None = setting(
        None, "distance of two atoms, in a frame, below which a walker has failed", unit="length", gt=0
    )
    trajectories: bool = setting(True, "write the frames of each walker")
    start: Annotated[StartSampler | None, FromRegistry("start")] = setting(
        None, "initial positions of each walker; none: those of the file, or random in a ball for a formula"
    )
    relax: Polish | None = setting(None, "relaxation before the dynamics; none: as the start is")
    seed: int = setting(0, "seed of random numbers; the same seed gives the same result", ge=0, le=2**62)
    dtype: Literal["float64", "float32"] = setting("float64", "floating-point type of the dynamics")
    device: str = setting("cpu", "cpu, cuda, cuda:1, ...")
    engine: EngineName = setting("auto", "eager, fused or auto, as in `search`")

    @field_validator("temperatures")
    @classmethod
    def _positive(cls, value: list[float] | None) -> list[float] | None:
        for one in value or []:
            if not 0 < one < float("inf"):
                raise ValueError(f"a temperature must be positive and finite, got {one}")
        return value

    @model_validator(mode="after")
    def _some_left(self) -> MolecularDynamics:
        if self.equilibration >= self.steps:
            raise ValueError(
                f"equilibration must be less than steps, got {self.equilibration} and {self.steps}: "
                f"no frame would be left for averages"
            )
        return self

    def check(self) -> None:
        """Read the structure, try the potential on it and find the device, before anything is written.

        Raises:
            InputError: one of these is impossible.
        """
        device_of(self.device)
        if not self.system.placed and self._start.given:
            raise InputError(
                "`start: given` needs positions, and a formula has none: give a `system.file`, or another start"
            )
        if not self._start.given and self.relax is None:
            raise InputError(
                "atoms at random places push each other apart at once: add `relax: {}`, which relaxes them first, or "
                "give a `system.file` or `system.crystal`"
            )
        system = self.system.load()
        self.potential.check(system)
        if self.engine == "fused":
            system = system.to(device_of(self.device), getattr(torch, self.dtype))
            choose_engine("fused", AtomsLandscape(system, self.potential), self.integrator, 1)

    @property
    def _start(self) -> StartSampler:
        if self.start is not None:
            return self.start
        return GivenStart() if self.system.placed else SphereStart()

    def run(self, context: Context | None = None) -> MdResult:
        """Relax the start if asked to, and follow all walkers; write results if ``context`` has a folder for them.

        Raises:
            InputError: as in `check`.
            CheckpointError: a trajectory is shorter than it was when the checkpoint was written.
            Preempted: ``context`` asked to stop; a checkpoint has been saved.
        """
        system = self.system.load()
        self.potential.check(system)
        session = Session(context, structure_digest(system))
        context, restored = session.context, session.restored
        systems = system.repeat(self._n_walkers).to(device_of(self.device), getattr(torch, self.dtype))
        landscape = AtomsLandscape(systems, self.potential)
        key = problem_keys(self.seed, torch.arange(self._n_walkers, device=systems.pos.device))
        relaxed = torch.zeros(self._n_walkers, dtype=torch.int64)
        begun = restored is not None and bool(restored.meta["begun"])
        x = systems.pos
        if not begun:
            session.save(0, {}, {"begun": False})  # at once, so that a stop while relaxing finds it
            x, relaxed = self._begun(system, systems, landscape, key, session)
        # one call more than there are evaluations, so that the last frame gets its velocities
        stop = Stop(self.steps + 2)
        driver = Driver(landscape, self._integrator(systems), stop, 0, self.engine, context.log)
        progress = driver.begin(x, key)
        folder = context.results()
        recording = Recording(
            landscape,
            torch.tensor(self._temperatures, dtype=torch.float64) * landscape.boltzmann,
            self.min_distance,
            folder if self.trajectories else None,
        )
        if begun and restored is not None:
            progress.load_checkpoint(restored.tensors, restored.meta["progress"])
            recording.load_checkpoint(restored.tensors, restored.meta["recording"])
            relaxed = restored.tensors["relaxed"]
        else:
            recording.begin()

        def save() -> None:
            tensors, meta = progress.to_checkpoint()
            kept, told = recording.to_checkpoint()
            session.save(
                progress.calls,
                tensors | kept | {"relaxed": relaxed},
                {"begun": True, "progress": meta, "recording": told},
            )

        if landscape.units.reduced:
            context.log("units are reduced: temperatures are energies, and no number of kelvin")
        session.compiled(driver.prepare(progress, lambda: context.interrupted))
        if context.interrupted:
            save()  # which says how long that took
            raise Preempted
        watch = DynamicsWatch(session, progress, self.steps, landscape.giver)
        while not progress.done:
            self._to_next_frame(driver, progress, recording, watch)
            if watch.asked or context.pause() or progress.done:
                save()
                session.leave_if_asked()
        watch.end()
        return self._told(driver, progress, recording, session, int(relaxed.sum()))

    def _to_next_frame(
        self, driver: Driver, progress: Progress, recording: Recording, watch: DynamicsWatch
    ) -> None:
        """Go on to the next frame and record it, or until a pause."""
        frame = min(-(-progress.calls // self.every) * self.every, self.steps)
        driver.advance(progress, watch.pause, until=frame + 1)
        if progress.done or progress.calls <= frame:
            return
        recording.frame(frame, progress)
        watch.record(frame, recording)
        if frame == self.steps:
            driver.end_all(progress, Reason.BUDGET)

    @property
    def _n_walkers(self) -> int:
        return len(self._temperatures)

    def _integrator(self, systems: Systems) -> Integrator:
        """Return the integrator, with the temperature of each walker."""
        if self.temperatures is None:
            return self.integrator
        return self.integrator.at(systems.pos.new_tensor(self._temperatures))

    @property
    def _temperatures(self) -> list[float]:
        """The temperature of each walker: of its thermostat, or of its initial velocities where it has none."""
        given = self.temperatures or [float(self.integrator.set_temperature)]
        return [one for one in given for _ in range(self.walkers)]

    def _begun(
        self,
        system: Systems,
        systems: Systems,
        landscape: AtomsLandscape,
        key: torch.Tensor,
        session: Session,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where the walkers begin, (n_rows, 3), and the force calls (n_walkers,) that it took to relax them."""
        n, pause = len(systems), session.asked_to_leave
        drawn = self._start.sample(systems, landscape.diameter, derive(key, Stream.START)).to(systems.pos)
        x = torch.where(systems.fixed[:, None], systems.pos, drawn)
        calls = torch.zeros(n, dtype=torch.int64)
        if self.relax is None:
            return x, calls
        each = x.reshape(n, -1)
        alike = bool((each == each[0]).all())  # one relaxation serves all
        precise = system.to(systems.pos.device) if alike else system.repeat(n).to(systems.pos.device)
        placed = precise.with_pos(x[: len(precise.pos)].to(torch.float64))
        found, spent = polish(self.potential, placed, self.relax, pause)
        calls[: len(spent)] = spent.cpu()
        return (found.repeat(n) if alike else found).pos.to(x), calls

    def _told(
        self, driver: Driver, progress: Progress, recording: Recording, session: Session, relaxing: int
    ) -> MdResult:
        """Return the result, and write its files."""
        from mlopt.core.atoms.units import Units
        from mlopt.optimizers.experiments.md.result import MdResult

        result = driver.result(progress)
        found = MdResult(
            units=Units.of(self.potential.units),
            time_step=self.integrator.time_step,
            temperature=torch.tensor(self._temperatures, dtype=torch.float64),
            steps=recording.steps,
            series=recording.stacked,
            reasons=result.reason,
            lived=result.calls.cpu() - 1,
            atoms=int(progress.segments.counts[0]),
            planned=self.steps,
            equilibration=self.equilibration,
            force_calls=int(result.calls.sum()) + relaxing,
            wall_s=session.seconds,
            compile_s=session.compile_seconds,
            engine=driver.engine_name,
        )
        session.context.warn([*found.warnings, *self.potential.remarks()])
        folder = session.context.results()
        if folder is not None:
            found.write(folder)
        return found
