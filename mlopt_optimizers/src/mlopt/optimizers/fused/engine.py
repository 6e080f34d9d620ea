"""The fused engine. It runs slices of a minimisation, each system on its own in compiled code."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlopt.core.driver.engine import Engine
from mlopt.core.driver.progress import PATIENCE, Progress
from mlopt.core.driver.stop import Reason, Stop
from mlopt.core.errors import InputError
from mlopt.core.kernels.kernel import Kernel, NoKernelError, OptimizerKernel, PotentialKernel
from mlopt.core.landscapes.landscape import AtomsLandscape, Landscape
from mlopt.core.lazy import torch
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers.fused.compiled import load, module_text
from mlopt.optimizers.fused.kernel_guard import changed_since_kernel
from mlopt.optimizers.fused.launch import LAUNCHERS, Launcher, Work
from mlopt.optimizers.fused.pack import Bucket, Packed, atoms_of, buckets_of, offsets, pack, unpack
from mlopt.optimizers.fused.rollout import FIRST_HIT, rollout
from mlopt.optimizers.fused.written import written

#: seconds between two looks at what a run has to do besides: pausing, reporting
_SLICE = 0.3
#: steps of the first slice, when nothing is known about the speed
_FIRST_STEPS = 20
#: scratch space of optimizers, in numbers an atom; the force and the row energies come on top
_SCRATCH = 10


class FusedEngine(Engine):
    """The engine in which Numba compiles potential, optimizer and loop into one kernel."""

    def refusal(self, landscape: Landscape, optimizer: Optimizer) -> str | None:
        """See `Engine.refusal`."""
        try:
            import numba  # noqa: F401
        except ImportError as error:
            return f"Numba, which compiles the kernels, cannot be imported ({error}); `pip install numba`."
        if type(landscape) is not AtomsLandscape:  # a subclass may evaluate something else
            return f"{type(landscape).__name__} is not a landscape of atoms alone."
        pos, name = landscape.systems.pos, type(landscape.potential).__name__
        launcher = LAUNCHERS.get(pos.device.type)
        if launcher is None:
            return f"there are no kernels for the device {pos.device}."
        if pos.dtype not in (torch.float32, torch.float64):
            return f"there are no kernels for {pos.dtype}."
        reason = launcher.refusal()
        if reason is not None:
            return reason
        try:
            kernel = landscape.potential.kernel(_species(landscape))
            written(_rollout(kernel, optimizer.kernel(), {}))
        except (NoKernelError, InputError) as error:
            return f"{error}."
        changed = changed_since_kernel(landscape.potential) or changed_since_kernel(optimizer)
        if changed is not None:
            return f"{changed}."
        if kernel.lanes == "one" and pos.device.type != "cpu":
            return f"the kernel of {name} is for the CPU alone."
        if landscape.systems.periodic and kernel.cutoff is None:
            return f"{name} has a kernel for free clusters only, and a system is periodic."
        if optimizer.searching and landscape.segments.n_rows and not _tells_rows(landscape):
            return f"{name} gives no `row_energy`, which its kernel does: moves would not be the same."
        return None

    def prepare(
        self,
        landscape: Landscape,
        optimizer: Optimizer,
        progress: Progress,
        stop: Stop,
        leave: Callable[[], bool],
        announce: Callable[[str], None],
    ) -> float:
        """See `Engine.prepare`."""
        if not isinstance(landscape, AtomsLandscape) or progress.done:
            return 0.0
        return _Program.of(landscape, optimizer, progress, stop, announce).prepare(progress, leave)

    def advance(
        self,
        landscape: Landscape,
        optimizer: Optimizer,
        progress: Progress,
        stop: Stop,
        pause: Callable[[], bool] | None,
        until: int | None,
        announce: Callable[[str], None],
    ) -> Progress:
        """See `Engine.advance`."""
        if not isinstance(landscape, AtomsLandscape):
            raise InputError(f"{type(landscape).__name__} is not a landscape of atoms")
        program = _Program.of(landscape, optimizer, progress, stop, announce)
        steps, stepped = _FIRST_STEPS, False
        last = stop.force_calls if until is None else min(until, stop.force_calls)
        while progress.active.numel() and progress.calls != until:
            if stepped and pause is not None and pause():
                break
            stepped = True
            began, calls = time.perf_counter(), progress.calls
            limit = max(calls + 1, min(calls + steps, last))
            batch = program.run(progress, limit)
            reached = stop.on_target == "stop-run" and batch.first_hit < math.inf
            if reached:
                # the others went on while one arrived: again to that call and no farther, as the eager loop ends
                batch = program.run(progress, int(batch.first_hit), final=True)
            program = program.select(batch.write(progress, reached))
            around = time.perf_counter() - began - batch.seconds
            speed = (limit - calls) / max(batch.seconds, 1e-9)
            steps = max(1, min(8 * steps, int(speed * max(_SLICE, 10.0 * around))))
        return progress


def _species(landscape: AtomsLandscape) -> tuple[int, ...]:
    return tuple(torch.unique(landscape.systems.z).tolist())


def _tells_rows(landscape: AtomsLandscape) -> bool:
    """Return whether the potential gives energies of atoms, as all kernels do. The first system is tried."""
    part = landscape.select(torch.zeros(1, dtype=torch.int64, device=landscape.systems.pos.device))
    x = torch.zeros_like(part.systems.pos)
    x[:, 0] = part.diameter.to(x).cumsum(0)
    with torch.no_grad():
        return part.evaluate(x).row_energy is not None


def _rollout(potential: PotentialKernel, optimizer: OptimizerKernel, constants: Mapping[str, int]) -> Kernel:
    """Return the loop of a rollout, with potential and optimizer as its parts."""
    parts: dict[str, Any] = {
        "evaluate": Kernel(potential.function, (), potential.constants, potential.parts, potential.theta),
        "step": optimizer.step,
    }
    if optimizer.finish is not None:
        parts["finish"] = optimizer.finish
    return Kernel(rollout, (), constants, parts)


def _theta(parts: list[torch.Tensor], like: torch.Tensor, n: int) -> torch.Tensor:
    """Return theta of all kernels side by side: (n, p), or (1, p) where no problem has a theta of its own."""
    own = any(one.ndim == 2 for one in parts)
    rows = [one.detach().to(like).expand(n if own else 1, -1) for one in parts]
    return torch.cat(rows, 1).contiguous() if rows else like.new_zeros(1, 1)


@dataclass(frozen=True)
class _Slice:
    """Systems of one size after some steps. ended (b, 2) int64: code of the reason, or 0, and calls. trace (b, t)."""

    bucket: Bucket
    x: torch.Tensor
    state: Packed
    tally: Packed
    ended: torch.Tensor
    trace: torch.Tensor


@dataclass(frozen=True)
class _Batch:
    """All systems after some steps. seconds: time in compiled code."""

    slices: list[_Slice]
    trace_calls: list[int]
    seconds: float

    @property
    def first_hit(self) -> float:
        """The calls at which the first system ended at the target; infinity if none did."""
        reason, calls = torch.cat([one.ended for one in self.slices]).unbind(1)
        # what fails with an energy of minus infinity is at the target as well
        at_target = torch.cat([one.tally.counts[:, FIRST_HIT] for one in self.slices]) == calls
        hits = calls[(reason == Reason.TARGET.code) | ((reason != 0) & at_target)]
        return float(hits.min()) if hits.numel() else math.inf

    def write(self, progress: Progress, run_ends: bool) -> torch.Tensor:
        """Write the systems into ``progress``, and return the indices of its active problems that are left, int64."""
        progress.x = progress.x.clone()
        reason, calls = torch.zeros_like(progress.active), torch.zeros_like(progress.active)
        trace = progress.x.new_zeros(len(progress.active), len(self.trace_calls))
        for one in self.slices:
            one.bucket.rows_out(progress.x, one.x.reshape(len(one.x), 3, -1))
            reason[one.bucket.problems], calls[one.bucket.problems] = one.ended.unbind(1)
            trace[one.bucket.problems] = one.trace
        progress.state = unpack(progress.state, [(one.bucket, one.state) for one in self.slices])
        progress.tally = unpack(progress.tally, [(one.bucket, one.tally) for one in self.slices])
        progress.unsound = bool((progress.tally.unsound_calls > 0).any())
        if run_ends:
            others = (reason == Reason.BUDGET.code) | (reason == Reason.RUNNING.code)
            reason = torch.where(others, Reason.RUN_TARGET.code, reason)
        progress.calls = int(calls.max())
        for at, energy in zip(self.trace_calls, trace.unbind(1), strict=True):
            if at <= progress.calls:
                progress.record(at, energy)
        left = torch.nonzero(reason == 0).flatten()
        if left.numel() < reason.numel():
            progress.end(reason, calls)
        return left


@dataclass(frozen=True)
class _Program:
    """The compiled kernel of a potential and an optimizer, with its data about the active problems."""

    landscape: AtomsLandscape
    stop: Stop
    potential: PotentialKernel
    spare: tuple[int, int]
    reals: Callable[[int], int]
    settings: torch.Tensor
    theta: torch.Tensor
    chunk: Any
    launcher: Launcher

    @classmethod
    def of(
        cls,
        landscape: AtomsLandscape,
        optimizer: Optimizer,
        progress: Progress,
        stop: Stop,
        announce: Callable[[str], None],
    ) -> _Program:
        """Return the program for ``progress``: its kernel is written, and loaded or compiled."""
        like, launcher = progress.x, LAUNCHERS[progress.x.device.type]
        potential: PotentialKernel = landscape.potential.kernel(_species(landscape))
        kernel: OptimizerKernel = optimizer.kernel()
        constants = {
            "SEARCHING": int(optimizer.searching),
            "LOWEST": int(progress.lowest),
            "KEEP": progress.tally.pool_energy.shape[1],
            "PATIENCE": PATIENCE if optimizer.recovers else 1,
        }
        if optimizer.searching:
            for name in ("found_x", "found_energy", "arrived"):
                constants[name.upper()] = offsets(progress.state, name)
        found = written(_rollout(potential, kernel, constants))
        dtype, columns = str(like.dtype).removeprefix("torch."), len(potential.table[0][0])
        target = launcher.target
        chunk = load(module_text(found.text, found.name, columns, dtype, target), target, announce)
        n = len(progress.active)
        settings = [
            torch.as_tensor(one, dtype=like.dtype, device=like.device).expand(n) for one in found.settings
        ]
        return cls(
            landscape,
            stop,
            potential,
            (kernel.spare_numbers, kernel.spare_counts),
            kernel.reals,
            torch.stack(settings, 1) if settings else like.new_zeros(n, 0),
            _theta(found.theta, like, n),
            chunk,
            launcher,
        )

    def select(self, problems: torch.Tensor) -> _Program:
        """Return the program for some of the problems."""
        if problems.numel() == len(self.settings):
            return self
        theta = self.theta if len(self.theta) == 1 else self.theta[problems]
        landscape, settings = self.landscape.select(problems), self.settings[problems]
        return replace(self, landscape=landscape, settings=settings, theta=theta)

    def run(self, progress: Progress, limit: int, final: bool = False) -> _Batch:
        """Carry every active system on to ``limit`` calls or to its end. ``progress`` is not changed.

        final: the run ends at ``limit``, as if that were the budget, and no step follows.
        """
        schedule = progress.schedule(limit)
        slices, seconds = [], 0.0
        for bucket in buckets_of(self.landscape.segments):
            slices.append(self._prepare(bucket, progress, len(schedule)))
            budget = limit if final else self.stop.force_calls
            work = self._work(slices[-1], progress, limit, schedule, budget)
            seconds += self.launcher.run(self.chunk, work)
        return _Batch(slices, schedule, seconds)

    def _prepare(self, bucket: Bucket, progress: Progress, traced: int) -> _Slice:
        b = len(bucket.problems)
        return _Slice(
            bucket,
            bucket.rows_in(progress.x).reshape(b, -1).contiguous(),
            pack(progress.state, bucket, progress.x, self.spare),
            pack(progress.tally, bucket, progress.x),
            torch.zeros(b, 2, dtype=torch.int64, device=progress.x.device),
            progress.x.new_zeros(b, traced),
        )

    def prepare(self, progress: Progress, leave: Callable[[], bool]) -> float:
        """Compile the kernel if need be, and return the seconds that took."""
        first = self._prepare(buckets_of(self.landscape.segments)[0], progress, 0)
        return self.launcher.prepare(self.chunk, self._work(first, progress, progress.calls, [], 0), leave)

    def _work(self, one: _Slice, progress: Progress, limit: int, schedule: list[int], budget: int) -> Work:
        """Return the arguments of the kernel for the systems of a slice."""
        n, stop, like = one.bucket.n, self.stop, progress.x
        atoms = atoms_of(self.landscape, one.bucket, self.potential.species, like)
        target = math.nan if stop.target is None else stop.target + stop.target_tolerance
        limits = [budget, stop.target is not None, stop.on_target != "continue", stop.fmax is not None]
        arrays = {
            "x": one.x,
            "rows": one.state.rows,
            "numbers": one.state.numbers,
            "counts": one.state.counts,
            "best": one.tally.rows,
            "tally_numbers": one.tally.numbers,
            "tally_counts": one.tally.counts,
            **vars(atoms),
            "trace": one.trace,
            "ended": one.ended,
            "settings": self.settings[one.bucket.problems].contiguous(),
            "theta": self.theta if len(self.theta) == 1 else self.theta[one.bucket.problems].contiguous(),
            "table": like.new_tensor(self.potential.table).flatten(0, 1),
            # in the precision in which the eager loop compares
            "conditions": like.new_tensor([target, (stop.fmax or 0.0) ** 2]),
            "limits": torch.tensor(limits, dtype=torch.int64, device=like.device),
            "trace_calls": torch.tensor(schedule, dtype=torch.int64, device=like.device),
        }
        space = {
            "scratch": (4 * n + _SCRATCH * n + self.reals(n), like.dtype),
            "reals": (self.potential.reals(n), like.dtype),
            "integers": (1 + self.potential.integers(n), torch.int64),
        }
        return Work(n, len(one.x), progress.calls, limit - progress.calls, arrays, space)
