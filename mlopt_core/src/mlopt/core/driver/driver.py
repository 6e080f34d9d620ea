"""The loop: evaluate once, judge, step. It serves all problems at once, and each ends at its own time.

`minimize` runs to the end. `Driver` does the same in pieces: `begin` makes a `Progress`, and `advance` carries it on
until it is done or asked to pause. A `Progress` can be saved and loaded, bit for bit.

Invariant: the fate of a problem depends on its own point, key and number of calls, never on its batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.engine import EngineName, choose_engine
from mlopt.core.driver.external import ExternalOptimizer
from mlopt.core.driver.progress import PATIENCE, Outcome, Progress, Tally
from mlopt.core.driver.result import Result
from mlopt.core.driver.stop import OnTarget, Reason, Stop
from mlopt.core.errors import InputError, PluginError
from mlopt.core.landscapes.evaluation import Evaluation, changed, check_evaluation, version
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.protocols.optimizer import Optimizer


class Driver:
    """One optimizer on one landscape.

    keep: number of the lowest distinct minima that a search remembers for each problem.
    engine: see `choose_engine`.
    announce: a function that receives a line when a kernel has to be compiled.
    lowest: True to report the lowest point of each problem, False for the last one. By default searches report the
        lowest point and local optimizers the last one. A local optimizer that may climb (`wanders`) also reports the
        lowest, if no `fmax` is set and the landscape is `conservative`.
    """

    def __init__(
        self,
        landscape: Landscape,
        optimizer: Optimizer,
        stop: Stop,
        keep: int = 10,
        engine: EngineName = "eager",
        announce: Callable[[str], None] = lambda message: None,
        lowest: bool | None = None,
    ) -> None:
        if optimizer.searching and stop.fmax is not None:
            raise InputError(
                f"`fmax` cannot end {type(optimizer).__name__}: it searches on after every minimum. "
                f"Leave `fmax` out and limit `force_calls`; the tolerance of its quench is its own setting."
            )
        if optimizer.seeks == "nothing" and stop.fmax is not None:
            raise InputError(
                f"`fmax` cannot end {type(optimizer).__name__}: dynamics pass points without force and go on. "
                f"Leave `fmax` out and limit `force_calls`, which is one more than the number of steps."
            )
        self.landscape = landscape
        self.optimizer = optimizer
        self.stop = stop
        self.keep = keep if optimizer.searching else 0
        self.engine = choose_engine(engine, landscape, optimizer, stop.force_calls, announce)
        self.announce = announce
        wanders = optimizer.wanders and stop.fmax is None and landscape.conservative
        self.lowest = optimizer.searching or (wanders if lowest is None else lowest)

    @property
    def engine_name(self) -> str:
        """The engine that carries a run on: ``eager`` or ``fused``."""
        return "eager" if self.engine is None else "fused"

    def begin(self, x: torch.Tensor, key: torch.Tensor) -> Progress:
        """Return the progress before the first evaluation.

        x: (n_rows, d), where each problem starts. key: (n_problems,) int64, from `problem_keys`.

        Raises:
            InputError: shapes that do not fit the landscape.
        """
        segments = self.landscape.segments
        if x.ndim != 2 or len(x) != segments.n_rows:
            raise InputError(
                f"`x` must have shape ({segments.n_rows}, d) to fit the landscape, got {tuple(x.shape)}"
            )
        if key.shape != (segments.n_problems,):
            raise InputError(f"`key` must have shape ({segments.n_problems},), got {tuple(key.shape)}")
        tally = Tally.empty(segments, x, self.keep)
        return Progress(
            segments=segments,
            calls=0,
            active=torch.arange(segments.n_problems, device=x.device),
            x=x,
            state=self.optimizer.init(self.landscape, x, key),
            tally=tally,
            outcome=Outcome.empty(segments, tally),
            trace_calls=[],
            trace_energy=[],
            lowest=self.lowest,
        )

    def prepare(self, progress: Progress, leave: Callable[[], bool] = lambda: False) -> float:
        """Have the engine compile its kernel for ``progress``; return the seconds that took, 0 if it is ready.

        Without this call `advance` compiles the kernel, and cannot be interrupted meanwhile.

        leave: a function that is called again and again while compiling; true gives the compilation up.
        """
        if self.engine is None or progress.done or isinstance(self.optimizer, ExternalOptimizer):
            return 0.0
        landscape, optimizer = self._of_active(progress)
        return self.engine.prepare(landscape, optimizer, progress, self.stop, leave, self.announce)

    def _of_active(self, progress: Progress) -> tuple[Landscape, Optimizer]:
        if progress.active.numel() == self.landscape.segments.n_problems:
            return self.landscape, self.optimizer
        return self.landscape.select(progress.active), self.optimizer.select(progress.active)

    def advance(
        self, progress: Progress, pause: Callable[[], bool] | None = None, until: int | None = None
    ) -> Progress:
        """Carry ``progress`` on until every problem has ended, or until a pause between two steps.

        It pauses when ``pause()`` is true, which is first asked after one step. It also pauses when every active
        problem has made ``until`` force calls and the steps that follow them.
        Invariant: a run in pieces is the whole run, bit for bit.

        Raises:
            InputError: ``until`` for an optimizer that owns its loop.
            PluginError: the landscape, or its potential, changed the point in place or returned what does not fit.
        """
        if isinstance(self.optimizer, ExternalOptimizer) and until is not None:
            raise InputError(
                f"`until` cannot stop {type(self.optimizer).__name__}, which owns its loop and runs each problem to "
                f"its end; leave `until` out, or take one of mlopt's own optimizers"
            )
        if progress.done or (until is not None and progress.calls >= until):
            return progress
        landscape, optimizer = self._of_active(progress)
        with torch.no_grad():
            if isinstance(optimizer, ExternalOptimizer):
                return optimizer.advance(landscape, progress, self.stop, pause)
            if self.engine is not None:
                return self.engine.advance(
                    landscape, optimizer, progress, self.stop, pause, until, self.announce
                )
            # at least one step; otherwise slow saves would stop all progress
            stepped = False
            while progress.active.numel() and progress.calls != until:
                if stepped and pause is not None and pause():
                    break
                evaluation = _evaluate(landscape, progress.x, thorough=not stepped)
                stepped = True
                progress.calls += 1
                reason = self._judge(progress, landscape, evaluation)
                if reason is not None:
                    progress.end(reason, progress.calls)
                    if not progress.active.numel():
                        break
                    rest = torch.nonzero(reason == 0).flatten()
                    _, rows = landscape.segments.select(rest)
                    landscape, optimizer = landscape.select(rest), optimizer.select(rest)
                    evaluation = evaluation.select(rest, rows)
                x, state = optimizer.step(landscape, progress.x, evaluation, progress.state)
                progress.x, progress.state = x, state
                found = optimizer.found(state)
                if found is not None and self.keep:
                    progress.tally = progress.tally.add_minima(found, progress.calls, landscape.segments)
        return progress

    def _judge(self, progress: Progress, landscape: Landscape, evaluation: Evaluation) -> torch.Tensor | None:
        """Record the evaluation and return reason codes (k,), 0 for problems that go on; None if all go on."""
        stop, segments = self.stop, landscape.segments
        force2 = segments.longest2(evaluation.force)
        reason = self._failures(progress, evaluation.energy + force2)
        tally = progress.tally.update(progress.x, evaluation.energy, force2, segments, progress.lowest)
        reached = False
        if stop.target is not None:
            hit = tally.energy <= stop.target + stop.target_tolerance
            tally = tally.note_hit(hit, progress.calls)
            if stop.on_target != "continue" and bool(hit.any()):
                reason = _also(reason, hit, Reason.TARGET)
                reached = stop.on_target == "stop-run"
        progress.tally = tally
        if stop.fmax is not None:
            quiet = force2 < stop.fmax**2
            reason = _also(reason, quiet, Reason.CONVERGED) if bool(quiet.any()) else reason
        if progress.schedule(progress.calls):
            progress.record(progress.calls, tally.energy)
        if reached or progress.calls >= stop.force_calls:
            everyone = torch.ones_like(force2, dtype=torch.bool)
            return _also(reason, everyone, Reason.RUN_TARGET if reached else Reason.BUDGET)
        return reason

    def _failures(self, progress: Progress, numbers: torch.Tensor) -> torch.Tensor | None:
        """Return codes (k,), NON_FINITE where ``numbers (k,)`` give a problem up, else 0; None if none is."""
        # one number suffices while all is finite; an overflowing sum only costs a closer look
        if math.isfinite(float(numbers.sum())) and not progress.unsound:
            return None
        progress.tally = progress.tally.count_unsound(torch.isfinite(numbers))
        unsound = progress.tally.unsound_calls
        progress.unsound = bool((unsound > 0).any())
        patience = PATIENCE if self.optimizer.recovers and progress.calls > 1 else 1
        given_up = unsound >= patience
        return _also(None, given_up, Reason.NON_FINITE) if bool(given_up.any()) else None

    def end_all(self, progress: Progress, reason: Reason) -> Progress:
        """End every problem that still runs."""
        if not progress.done:
            progress.end_all(reason.code)
        return progress

    def result(self, progress: Progress) -> Result:
        """Return the result so far, of problems that have ended and of those that still run."""
        return Result.of(self.landscape, progress, self.stop)


def _evaluate(landscape: Landscape, x: torch.Tensor, thorough: bool) -> Evaluation:
    """Evaluate at ``x (n_rows, d)``, and refuse an evaluation that no optimizer could work with.

    thorough: also find changes to ``x`` that torch does not count, such as those made by way of numpy.
    """
    kept = x.clone() if thorough else None
    before = version(x)
    found = landscape.evaluate(x)
    check_evaluation(found, x, landscape.segments.n_problems, before, landscape.giver)
    if kept is not None and not bool(((kept == x) | kept.isnan()).all()):  # by way of numpy, for instance
        raise PluginError(changed(landscape.giver))
    return found


def _also(reason: torch.Tensor | None, mask: torch.Tensor, new: Reason) -> torch.Tensor:
    """Return reason codes (k,) with ``new`` where ``mask (k,)`` is true and the code was 0, which stands for none."""
    if reason is None:
        return mask * new.code
    return torch.where((reason == 0) & mask, new.code, reason)


def minimize(
    landscape: Landscape,
    optimizer: Optimizer,
    x: torch.Tensor,
    *,
    force_calls: int = 10_000,
    fmax: float | None = None,
    target: float | None = None,
    target_tolerance: float = 1e-3,
    on_target: OnTarget = "continue",
    keep: int = 10,
    seed: int = 0,
    ids: torch.Tensor | None = None,
    engine: EngineName = "auto",
) -> Result:
    """Minimise every problem of ``landscape`` from ``x (n_rows, d)``.

    seed, ids: problem ``i`` draws random numbers from the stream ``(seed, ids[i])``. ``ids (n_problems,)`` is
        0, 1, 2, ... by default. The same seed and id give the same result in any batch.
    keep: number of the lowest distinct minima that a search remembers for each problem.
    engine: ``eager``, ``fused`` (compiled, many times faster), or ``auto``: see `choose_engine`.
    The other arguments are those of `Stop`.

    Raises:
        InputError: conditions or shapes that do not fit together.
    """
    driver = Driver(
        landscape, optimizer, Stop(force_calls, fmax, target, target_tolerance, on_target), keep, engine
    )
    ids = torch.arange(landscape.segments.n_problems, device=x.device) if ids is None else ids
    return driver.result(driver.advance(driver.begin(x, problem_keys(seed, ids))))


def unroll(
    landscape: Landscape, optimizer: Optimizer, x: torch.Tensor, *, steps: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take ``steps`` steps from ``x (n_rows, d)`` and detach nothing, to differentiate through an optimizer.

    Return the last point (n_rows, d), and energies (steps + 1, n_problems) before each step and after the last.
    Gradients flow to ``x``, to tensors in the optimizer's settings (see `Plugin.replace`), and to the landscape.
    """
    ids = torch.arange(landscape.segments.n_problems, device=x.device)
    state = optimizer.init(landscape, x, problem_keys(seed, ids))
    energies = []
    evaluation = landscape.evaluate(x)
    for _ in range(steps):
        energies.append(evaluation.energy)
        x, state = optimizer.step(landscape, x, evaluation, state)
        evaluation = landscape.evaluate(x)
    return x, torch.stack([*energies, evaluation.energy])
