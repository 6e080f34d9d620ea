"""Algorithms that own their loop, such as scipy's. They run problem by problem, and a meter counts evaluations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mlopt.core.batch.random import derive
from mlopt.core.driver.progress import PATIENCE, Progress, Tally
from mlopt.core.driver.stop import Reason, Stop
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.landscapes.manifold import Flat
from mlopt.core.lazy import torch
from mlopt.core.protocols.optimizer import Found, Optimizer, State, per_problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class _EndedError(Exception):
    """Signal, raised through the algorithm, that its problem has ended."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason.value)


@dataclass(frozen=True)
class ExternalState(State):
    """The keys (n,) int64 that seeds come from. Everything else lives inside the algorithm while a problem runs."""

    key: torch.Tensor = per_problem()


class _PausedError(Exception):
    """Signal, raised through the algorithm, that the run stops at once. A resumed run begins the problem anew."""


class Meter:
    """One problem as a function of a flat numpy vector, which holds the m coordinates of its free rows.

    The meter counts evaluations and ends the problem.

    calls: evaluations so far. tally: the record of the problem, as in `Progress`.
    """

    def __init__(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        tally: Tally,
        stop: Stop,
        searching: bool,
        pause: Callable[[], bool] | None = None,
    ) -> None:
        self.landscape, self.stop, self.searching = landscape, stop, searching
        self._pause, self._asked = pause, False
        self.tally, self.calls = tally, 0
        self._x = x
        fixed = (
            torch.zeros(len(x), dtype=torch.bool, device=x.device)
            if landscape.fixed is None
            else landscape.fixed
        )
        self._free = (~fixed)[:, None].expand_as(x)

    @property
    def asked(self) -> bool:
        """True if a pause was asked for while this problem ran."""
        return self._asked

    @property
    def start(self) -> NDArray[np.float64]:
        """A fresh copy of the starting vector, (m,) float64."""
        flat: NDArray[np.float64] = self._x[self._free].to("cpu", torch.float64).numpy(force=True).copy()
        return flat

    def box(self, margin: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return lower and upper bounds (m,) of the vector: the extent of all rows, and ``margin`` on both sides."""
        lower, upper = self._x.amin(0) - margin, self._x.amax(0) + margin
        low, high = (
            bound.expand_as(self._x)[self._free].to("cpu", torch.float64) for bound in (lower, upper)
        )
        return low.numpy(force=True), high.numpy(force=True)

    def rows(self, flat: NDArray[np.float64]) -> torch.Tensor:
        """Return the point (n_rows, d) of a vector ``flat (m,)``. Fixed rows are where they were."""
        values = torch.as_tensor(flat.copy()).to(self._x)
        return self._x.clone().masked_scatter_(self._free, values)

    def energy_and_gradient(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the energy and its gradient (m,) at ``flat (m,)``. This is one force call.

        For a non-finite evaluation the energy is infinite and the gradient zero. When the problem has ended, an
        exception is raised, which the algorithm must let pass.
        """
        if self.calls >= self.stop.force_calls:
            raise _EndedError(Reason.BUDGET)
        if self._pause is not None and self._pause():
            # one request is for a checkpoint, which can wait for the end of this problem; repeated ones are to stop
            if self._asked:
                raise _PausedError
            self._asked = True
        x = self.rows(flat)
        found = self.landscape.evaluate(x)
        self.calls += 1
        self._judge(x, found)
        if int(self.tally.unsound_calls[0]):
            return float("inf"), flat * 0.0
        gradient: NDArray[np.float64] = -found.force[self._free].to("cpu", torch.float64).numpy(force=True)
        return float(found.energy[0]), gradient

    def energy(self, flat: NDArray[np.float64]) -> float:
        """Return the energy alone at ``flat (m,)``, at the same cost."""
        return self.energy_and_gradient(flat)[0]

    def arrived(self, flat: NDArray[np.float64], energy: float) -> None:
        """Record a local minimum that the algorithm has found, at ``flat (m,)``."""
        value = torch.full_like(self.tally.energy, energy)
        found = Found(torch.ones_like(value, dtype=torch.bool), value, self.rows(flat))
        if self.tally.pool_energy.shape[1]:
            self.tally = self.tally.add_minima(found, self.calls, self.landscape.segments)

    def _judge(self, x: torch.Tensor, found: Evaluation) -> None:
        """Record the evaluation at ``x (n_rows, d)``; raise if it ends the problem. The driver has the same order."""
        segments, stop = self.landscape.segments, self.stop
        force2 = segments.longest2(found.force)
        sound = torch.isfinite(found.energy + force2)
        tally = self.tally.count_unsound(sound).update(x, found.energy, force2, segments, self.searching)
        hit = tally.energy <= (torch.nan if stop.target is None else stop.target + stop.target_tolerance)
        self.tally = tally.note_hit(hit, self.calls)
        if int(tally.unsound_calls[0]) >= (1 if self.calls == 1 else PATIENCE):
            raise _EndedError(Reason.NON_FINITE)
        if stop.on_target != "continue" and bool(hit):
            raise _EndedError(Reason.TARGET)
        if stop.fmax is not None and bool(force2 < stop.fmax**2):
            raise _EndedError(Reason.CONVERGED)


class ExternalOptimizer(Optimizer):
    """Base of algorithms that own their loop. Subclasses write `run`.

    Problems run one after the other, each to its end, and a run can be saved between two problems. There is no trace,
    because problems take no steps together.
    """

    searching: ClassVar[bool] = True

    @abstractmethod
    def run(self, meter: Meter, seed: int) -> None:
        """Minimise from ``meter.start``, evaluating through ``meter`` only, with all random numbers from ``seed``.

        It need not end: an exception passes through it when the budget is spent. If it returns earlier, it is called
        again with another seed.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `run`")

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> ExternalState:
        """Return the state, which remembers ``key (n_problems,)``.

        Raises:
            InputError: the landscape is curved; vectors of coordinates know nothing of that.
        """
        if not isinstance(landscape.manifold, Flat):
            raise InputError(
                f"{type(self).__name__} works in flat space, not on {type(landscape.manifold).__name__}; "
                f"take one of mlopt's own optimizers"
            )
        return ExternalState(key)

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """Refuse, because the algorithm owns its loop and has no single step.

        Raises:
            InputError: always.
        """
        raise InputError(f"{type(self).__name__} owns its loop and has no step; use `minimize` or `Driver`")

    def advance(
        self, landscape: Landscape, progress: Progress, stop: Stop, pause: Callable[[], bool] | None = None
    ) -> Progress:
        """Carry the active problems of ``progress`` on, as `Driver.advance` does; ``landscape`` is theirs."""
        asked = False
        while progress.active.numel() and not asked:
            first = torch.zeros(1, dtype=torch.int64, device=progress.x.device)
            _, rows = landscape.segments.select(first)
            meter = Meter(
                landscape.select(first),
                progress.x[rows],
                progress.tally.select(first, rows),
                stop,
                self.searching,
                pause,
            )
            try:
                reason = self._complete(meter, progress.state.key[0])
            except _PausedError:
                break
            progress.tally = progress.tally.put(first, rows, meter.tally)
            codes = torch.zeros_like(progress.active)
            codes[0] = reason.code
            progress.end(codes, meter.calls)
            landscape = landscape.select(torch.nonzero(codes == 0).flatten())
            progress.calls = 0  # of the problems that are left
            asked = meter.asked or (pause is not None and pause())
            if reason is Reason.TARGET and stop.on_target == "stop-run":
                codes = torch.full_like(progress.active, Reason.RUN_TARGET.code)
                progress.end(codes, 0)
        return progress

    def _complete(self, meter: Meter, key: torch.Tensor) -> Reason:
        for attempt in range(meter.stop.force_calls):
            before = meter.calls
            try:
                self.run(meter, int(derive(key, attempt)) & 0x7FFFFFFF)
            except _EndedError as ended:
                return ended.reason
            if meter.calls == before:
                raise InputError(
                    f"{type(self).__name__} returned without evaluating anything; nothing can come of it"
                )
        return Reason.BUDGET
