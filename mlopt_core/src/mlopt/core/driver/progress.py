"""The progress of a minimisation: everything that a checkpoint needs, and nothing that can be derived."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mlopt.core.batch.segments import Segments
from mlopt.core.errors import CheckpointError
from mlopt.core.lazy import torch
from mlopt.core.protocols.optimizer import Found, State, nested, per_problem, per_row

#: two quenches of one problem whose energies differ by less are taken for one minimum until they are compared properly
SAME_ENERGY = 2e-4
#: energies are recorded each time the number of calls has grown by this factor
_TRACE_GROWTH = 1.05
#: consecutive non-finite evaluations after which even a search that can step back gives a problem up
PATIENCE = 10


@dataclass(frozen=True)
class Tally(State):
    """The record of each problem.

    energy (n,), x (n_rows, d): energy and coordinates of the point that counts. This is the lowest point met where
    `Progress.lowest` is set, else the last one.
    force2 (n,): square of the largest row force at that point.
    first_hit (n,) int64: force calls until the target was reached, -1 where it was not.
    unsound_calls (n,) int64: consecutive non-finite evaluations up to now.
    quenches (n,) int64: minima that the search arrived at, counting repeats.
    pool_energy (n, keep), pool_x (n_rows, keep, d): the lowest distinct minima, unsorted. An infinite energy marks an
    empty place.
    pool_calls (n, keep) int64: the force calls after which these minima were found.
    """

    energy: torch.Tensor = per_problem()
    x: torch.Tensor = per_row()
    force2: torch.Tensor = per_problem()
    first_hit: torch.Tensor = per_problem()
    unsound_calls: torch.Tensor = per_problem()
    quenches: torch.Tensor = per_problem()
    pool_energy: torch.Tensor = per_problem()
    pool_x: torch.Tensor = per_row()
    pool_calls: torch.Tensor = per_problem()

    @classmethod
    def empty(cls, segments: Segments, x: torch.Tensor, keep: int) -> Tally:
        """Return the record before the first evaluation, at ``x (n_rows, d)``."""
        n = segments.n_problems
        integers = torch.zeros(n, dtype=torch.int64, device=x.device)
        infinite = x.new_full((n,), torch.inf)
        return cls(
            energy=infinite,
            x=x,
            force2=infinite,
            first_hit=integers - 1,
            unsound_calls=integers,
            quenches=integers,
            pool_energy=x.new_full((n, keep), torch.inf),
            pool_x=x.new_zeros(len(x), keep, x.shape[1]),
            pool_calls=integers.new_zeros(n, keep),
        )

    def update(
        self, x: torch.Tensor, energy: torch.Tensor, force2: torch.Tensor, segments: Segments, lowest: bool
    ) -> Tally:
        """Return the record with an evaluation: the ``lowest`` is kept, else the last.

        x: (n_rows, d). energy, force2: (n,).
        """
        if not lowest:
            return replace(self, energy=energy, x=x, force2=force2)
        better = (energy < self.energy) & torch.isfinite(energy + force2)
        if not bool(better.any()):
            return self
        return replace(
            self,
            energy=torch.where(better, energy, self.energy),
            x=torch.where(segments.rows_of(better)[:, None], x, self.x),
            force2=torch.where(better, force2, self.force2),
        )

    def note_hit(self, hit: torch.Tensor, calls: int) -> Tally:
        """Return the record with ``calls`` for the problems that ``hit (n,)`` the target for the first time."""
        fresh = hit & (self.first_hit < 0)
        return (
            replace(self, first_hit=self.first_hit.masked_fill(fresh, calls)) if bool(fresh.any()) else self
        )

    def count_unsound(self, sound: torch.Tensor) -> Tally:
        """Return the record with one more non-finite evaluation where ``sound (n,)`` is false, and none elsewhere."""
        return replace(self, unsound_calls=torch.where(sound, 0, self.unsound_calls + 1))

    def add_minima(self, found: Found, calls: int, segments: Segments) -> Tally:
        """Return the record with minima that a search has arrived at in its pools."""
        problems = torch.nonzero(found.mask).flatten()
        if not problems.numel():
            return self
        counted = replace(self, quenches=self.quenches + found.mask)
        energy, pool = found.energy[problems], self.pool_energy[problems]
        gap = (pool - energy[:, None]).abs()
        nearest, slot_near = gap.min(1)
        highest, slot_high = pool.max(1)
        same = nearest < SAME_ENERGY
        slot = torch.where(same, slot_near, slot_high)
        present = torch.where(same, pool.gather(1, slot_near[:, None])[:, 0], highest)
        accept = torch.nonzero(energy < present).flatten()
        if not accept.numel():
            return counted
        problems, slot = problems[accept], slot[accept]
        chosen, rows = segments.select(problems)
        pool_energy, pool_x, pool_calls = (
            self.pool_energy.clone(),
            self.pool_x.clone(),
            self.pool_calls.clone(),
        )
        pool_energy[problems, slot] = found.energy[problems]
        pool_calls[problems, slot] = calls
        pool_x[rows, chosen.rows_of(slot)] = found.x[rows]
        return replace(counted, pool_energy=pool_energy, pool_x=pool_x, pool_calls=pool_calls)


@dataclass(frozen=True)
class Outcome(State):
    """The tally of each problem, the code of the reason for its end (0 while it runs), and the force calls it used."""

    tally: Tally = nested()
    reason: torch.Tensor = per_problem()
    calls: torch.Tensor = per_problem()

    @classmethod
    def empty(cls, segments: Segments, tally: Tally) -> Outcome:
        """Return the outcome before any problem has ended."""
        integers = torch.zeros(segments.n_problems, dtype=torch.int64, device=tally.energy.device)
        return cls(tally, integers, integers)


@dataclass
class Progress:
    """A minimisation in flight. The driver owns and changes it; everyone else reads it.

    segments: the rows of all problems.
    calls: force calls that each active problem has used.
    active: (k,) int64, the problems that still run. x, state and tally are theirs, in that order.
    outcome: the outcome of all problems; entries of active ones are filled in when they end.
    trace_calls, trace_energy: numbers of calls, and the energies (n_problems,) in the tallies at each of them.
    """

    segments: Segments
    calls: int
    active: torch.Tensor
    x: torch.Tensor
    state: Any
    tally: Tally
    outcome: Outcome
    trace_calls: list[int]
    trace_energy: list[torch.Tensor]
    #: whether the tally keeps the lowest point of each problem; else the last
    lowest: bool = False
    #: whether any ``unsound_calls`` of the tally is positive, kept here to save looking at every step
    unsound: bool = False

    @property
    def done(self) -> bool:
        """True if every problem has ended."""
        return not self.active.numel()

    @property
    def total_calls(self) -> int:
        """The force calls of all problems together."""
        return int(self.outcome.calls.sum()) + self.calls * self.active.numel()

    def copy(self) -> Progress:
        """Return another progress at the same point. Carrying one on does not change the other."""
        return replace(self, trace_calls=list(self.trace_calls), trace_energy=list(self.trace_energy))

    def snapshot(self) -> Outcome:
        """Return the outcome of all problems now, running ones included."""
        if self.done:
            return self.outcome
        _, rows = self.segments.select(self.active)
        running = torch.zeros_like(self.active)
        return self.outcome.put(self.active, rows, Outcome(self.tally, running, running + self.calls))

    def schedule(self, calls: int) -> list[int]:
        """Return the numbers of calls, up to ``calls``, at which the trace takes its next points."""
        due = []
        last = self.trace_calls[-1] if self.trace_calls else 0
        while (last := max(last + 1, int(last * _TRACE_GROWTH))) <= calls:
            due.append(last)
        return due

    def record(self, calls: int, energy: torch.Tensor) -> None:
        """Add a point to the trace: the energy (k,) in the tally of each active problem after ``calls``."""
        self.trace_calls.append(calls)
        self.trace_energy.append(self.outcome.tally.energy.index_copy(0, self.active, energy))

    def end(self, reason: torch.Tensor, calls: torch.Tensor | int) -> None:
        """Take the problems with a ``reason (k,)`` out of the active ones after ``calls``, (k,) or one number."""
        segments, _ = self.segments.select(self.active)
        ended, rest = torch.nonzero(reason != 0).flatten(), torch.nonzero(reason == 0).flatten()
        _, rows = segments.select(ended)
        _, own_rows = self.segments.select(self.active[ended])
        used = (torch.zeros_like(reason) + calls)[ended]
        part = Outcome(self.tally.select(ended, rows), reason[ended], used)
        self.outcome = self.outcome.put(self.active[ended], own_rows, part)
        _, rows = segments.select(rest)
        self.active = self.active[rest]
        self.x = self.x[rows]
        self.state = self.state.select(rest, rows)
        self.tally = self.tally.select(rest, rows)

    def end_all(self, reason: int) -> None:
        """End every active problem between two steps, for the reason of this code."""
        _, rows = self.segments.select(self.active)
        calls = torch.full_like(self.active, self.calls)
        ended = Outcome(self.tally, torch.full_like(self.active, reason), calls)
        self.outcome = self.outcome.put(self.active, rows, ended)
        self.active = self.active[:0]

    def to_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return tensors and plain data that `load_checkpoint` takes back."""
        tensors = {"active": self.active, "x": self.x}
        tensors |= (
            self.state.tensors("state.") | self.tally.tensors("tally.") | self.outcome.tensors("outcome.")
        )
        if self.trace_energy:
            tensors["trace_energy"] = torch.stack(self.trace_energy)
        return tensors, {"calls": self.calls, "trace_calls": self.trace_calls}

    def load_checkpoint(self, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        """Take over the progress that was saved. Call it on a fresh one of the same driver, from `Driver.begin`.

        Raises:
            CheckpointError: the checkpoint belongs to something else.
        """
        try:
            active = tensors["active"].to(self.active.device)
            if active.numel() < self.active.numel():
                _, rows = self.segments.select(active)
                self.state, self.tally = self.state.select(active, rows), self.tally.select(active, rows)
            self.active, self.x = active, tensors["x"].to(self.x.device)
            self.state = self.state.with_tensors(tensors, "state.")
            self.tally = self.tally.with_tensors(tensors, "tally.")
            self.outcome = self.outcome.with_tensors(tensors, "outcome.")
            self.unsound = bool((self.tally.unsound_calls > 0).any())
            self.calls, self.trace_calls = meta["calls"], list(meta["trace_calls"])
            stacked = tensors.get("trace_energy")
            self.trace_energy = [] if stacked is None else list(stacked.to(self.x.device).unbind(0))
        except KeyError as error:
            raise CheckpointError(
                f"the checkpoint lacks {error}: it was written by another optimizer or version; start the run anew"
            ) from error
