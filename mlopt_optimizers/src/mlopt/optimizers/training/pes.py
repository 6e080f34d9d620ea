"""Persistent evolution strategies: an update after every segment of a long inner run."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.learning import MetaState, SegmentedTask, Task
from mlopt.core.runs.processes import share_out
from mlopt.optimizers.training.es import estimate
from mlopt.optimizers.training.population import Pairs, checked, noise

#: groups of inner runs that are kept between two epochs; more than any training has
_KEPT = 64


class PES(Pairs):
    """Unbiased gradients of long runs from short segments (Vicol, Metz & Sohl-Dickstein, ICML 2021, Algorithm 2).

    Each epoch carries every inner run on by `segment` steps, with the present theta plus or minus a fresh perturbation.
    The loss of a segment is the loss at its end less the loss at its beginning. It is weighed with the *sum* of the
    perturbations since the run began, because all of them have led there. Without that sum (truncated ES) the effect of
    theta on later segments would be lost. The losses of segments add up to the loss of the whole run. Runs that are at
    their end begin anew on fresh problems.

    `cohorts` begin at different times, so that an epoch sees early and late segments together.

    A training remembers the thetas since the oldest living run began, and not the runs. After a resume the runs are
    computed again from theta and the seeds, which costs one horizon at most. So a checkpoint is small, ranks exchange
    losses alone, and a training may go on with another number of ranks.

    A loss that is not finite gives its pair no weight in that segment.
    """

    segment: int = setting(100, "inner steps between two updates", ge=1)
    cohorts: int = setting(1, "groups of pairs whose runs begin at different times", ge=1)

    def advance(self, task: Task, state: MetaState, seed: int = 0) -> tuple[MetaState, dict[str, float]]:
        if not isinstance(task, SegmentedTask):
            raise InputError(
                f"the meta-trainer `pes` needs a task whose runs can be cut into segments, and {type(task).__name__} "
                f"has none; take `es` or `esmc`"
            )
        segments = -(-task.length // self.segment)
        if self.cohorts > min(self.pairs, segments):
            raise InputError(
                f"`cohorts: {self.cohorts}` needs as many pairs and segments; there are {self.pairs} pairs "
                f"(`population`) and {segments} segments (the horizon {task.length} in pieces of {self.segment})"
            )
        theta, memory = checked(state.theta), dict(state.memory)
        past = memory.get("history", theta.new_zeros(0, len(theta)))
        history = torch.cat([past, theta[None]])  # of the epochs up to this one
        gradient, losses = torch.zeros_like(theta), []
        for cohort in range(self.cohorts):
            age = min((state.epoch + cohort * segments // self.cohorts) % segments, state.epoch)
            if age >= len(history):
                raise InputError(
                    "this state was not made by `pes` with these settings: its history is too short"
                )
            group = _Group(
                task, self.segment, seed, state.epoch - age, torch.arange(cohort, self.pairs, self.cohorts),
                history[-1 - age :], self.sigma,
            )  # fmt: skip
            gained, loss, total = group.losses()
            gradient = gradient + len(total) * estimate(gained, total, self.sigma)
            losses.append(loss)
        gradient = gradient / self.pairs
        metrics = {"loss": float(torch.cat(losses).mean()), "gradient": float(gradient.norm())}
        memory["history"] = history[1 - segments :] if segments > 1 else history[:0]
        theta = theta + self.outer.change(gradient, memory)
        return MetaState(theta, state.epoch + 1, memory), metrics


@dataclass(frozen=True)
class _Group:
    """Pairs whose runs began in the same epoch.

    start: that epoch. members (n,) int64: numbers of the pairs. thetas (age + 1, p): theta in each epoch since then.
    """

    task: SegmentedTask
    segment: int
    seed: int
    start: int
    members: torch.Tensor
    thetas: torch.Tensor
    sigma: float

    def losses(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the gain of ``+`` less that of ``-`` (n,), mean losses (2 n,), and summed perturbations (n, p)."""
        self.task.prepare()
        n, k, age = len(self.members), self.task.problems, len(self.thetas) - 1
        drawn = [
            noise(self.seed, self.start + one, self.members, self.thetas.shape[1], self.sigma)
            for one in range(age + 1)
        ]
        total = torch.zeros_like(drawn[0])
        for one in drawn:
            total = total + one
        problem = self.members[:, None] * k + torch.arange(k)
        table = share_out(
            2 * n * k,
            lambda index: self._share(index, problem.flatten(), drawn),
            batch=self.task.batch_size,
            columns=2,
        )
        now, before = table.reshape(2, n, k, 2).unbind(-1)
        gained = (now[0] - before[0]) - (now[1] - before[1])
        gained = torch.where(torch.isfinite(gained), gained, 0.0).mean(1)
        loss = torch.where(torch.isfinite(now), now, 0.0).mean(2).flatten()
        return gained, loss, total

    def _share(self, index: torch.Tensor, problem: torch.Tensor, drawn: list[torch.Tensor]) -> torch.Tensor:
        """Return losses (m, 2), after this segment and before it, of runs ``index (m,)``: first ``+``, then ``-``."""
        per_side = len(problem)
        sign = torch.where(index < per_side, 1.0, -1.0).to(torch.float64)[:, None]
        place = index % per_side
        pair = place // self.task.problems
        age = len(self.thetas) - 1
        kept = _living.pop(self._name(index, age), None)
        if kept is not None and kept.task is self.task:
            run, before = kept.run, kept.losses
        else:
            run = self.task.begin(problem[place], self.start, self.seed)
            before = torch.zeros(len(index), dtype=torch.float64)  # the same for both signs: it cancels
            for one in range(age):
                run, before = self._carry(run, one, sign, drawn[one][pair])
        run, now = self._carry(run, age, sign, drawn[age][pair])
        if (age + 1) * self.segment < self.task.length:
            _living[self._name(index, age + 1)] = _Kept(self.task, run, now)
        while len(_living) > _KEPT:
            _living.popitem(last=False)
        return torch.stack([now, before], 1)

    def _carry(
        self, run: Any, age: int, sign: torch.Tensor, perturbation: torch.Tensor
    ) -> tuple[Any, torch.Tensor]:
        steps = min(self.segment, self.task.length - age * self.segment)
        with torch.no_grad():
            run, losses = self.task.carry(run, self.thetas[age] + sign * perturbation, steps)
        return run, losses.detach().to("cpu", torch.float64)

    def _name(self, index: torch.Tensor, age: int) -> bytes:
        """Return a digest of everything that runs depend on after ``age`` segments, besides the task."""
        settings = repr(
            (self.seed, self.start, self.segment, self.sigma, age, self.members.tolist(), index.tolist())
        )
        return hashlib.sha256(settings.encode() + self.thetas[:age].contiguous().numpy().tobytes()).digest()


@dataclass(frozen=True)
class _Kept:
    task: SegmentedTask
    run: Any
    losses: torch.Tensor


#: runs that wait for their next segment, by `_Group._name`; a run that is not here is computed again
_living: OrderedDict[bytes, _Kept] = OrderedDict()
