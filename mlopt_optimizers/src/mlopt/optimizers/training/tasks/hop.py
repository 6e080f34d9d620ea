"""The task `hop`: find the global minima of a family of systems soon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import model_validator

from mlopt.core.batch.random import derive, problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.engine import EngineName
from mlopt.core.driver.progress import Outcome
from mlopt.core.driver.stop import Stop
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.learning import Learnable, Task
from mlopt.core.protocols.start import StartSampler
from mlopt.core.reporting.statistics import Estimate, mean_calls_to_hit, wilson
from mlopt.optimizers.learned.hop.learnable import LearnedHop
from mlopt.optimizers.starts.starts import SphereStart
from mlopt.optimizers.training.tasks.inner_runs import carried
from mlopt.optimizers.training.tasks.systems import Case, labels_of

#: the epoch whose starts are for `HopTask.evaluate` alone
HELD_OUT = 2**31
#: height above the target, in its energy, that costs half of what a miss can cost besides
_HALF = 0.01


class HopCase(Case):
    """A system whose lowest known energy is to be found."""

    start: Annotated[StartSampler, FromRegistry("start")] = setting(
        SphereStart(), "initial positions of each search"
    )
    target: float = setting(..., "energy of the global minimum, or the lowest known", unit="energy")
    force_calls: int | None = setting(None, "limit for each start; none: that of the task", ge=1)
    starts: int | None = setting(None, "number in each epoch; none: that of the task", ge=1)


class HopTask(Task):
    """The task of learning a search. The loss of a start is the share of its force calls after which it hit the target.

    A start without a hit has a loss between 1 and 2, which is 1 + h / (h + s). Here h is the height of its lowest
    energy above the target, and s a hundredth of the target. So any hit ranks before any miss, and misses rank by
    height. All thetas of an epoch meet the same starts and draw the same random numbers. A whole population is one
    batch, in which every problem has its own theta.
    """

    systems: list[HopCase] = setting(..., "the systems, of any sizes and potentials", min_length=1)
    learnable: Annotated[Learnable, FromRegistry("learnable")] = setting(
        LearnedHop(), "optimizer that theta stands for"
    )
    starts: int = setting(12, "number for each system in each epoch", ge=1)
    force_calls: int = setting(20_000, "limit for each start", ge=1)
    held_out: int = setting(100, "number of starts of each system in an evaluation", ge=1)
    engine: EngineName = setting("auto", "eager, fused or auto, as in `search`")

    @model_validator(mode="before")
    @classmethod
    def _as_it_was(cls, values: Any) -> Any:
        """Read the keys of cards that ship: `cluster` in place of `system`, and one `start` for all systems."""
        if not isinstance(values, Mapping) or not isinstance(values.get("systems"), list):
            return values
        shared = {"start": values["start"]} if "start" in values else {}
        systems = [
            shared | {"system" if name == "cluster" else name: value for name, value in one.items()}
            if isinstance(one, Mapping)
            else one
            for one in values["systems"]
        ]
        return {name: value for name, value in values.items() if name != "start"} | {"systems": systems}

    @property
    def theta(self) -> torch.Tensor:
        """The theta (p,) float64 where the learnable begins.

        Raises:
            InputError: a system or its potential cannot work.
        """
        for one in self.systems:
            one.check()
        return self.learnable.start()

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        return self.learnable.named(theta)

    @property
    def problems(self) -> int:
        return sum(self._starts)

    @property
    def _starts(self) -> list[int]:
        return [one.starts or self.starts for one in self.systems]

    def losses(self, theta: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
        return self.table(theta, epoch, seed).mean(1)

    def table(self, theta: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
        """Return the loss (b, problems) of each start, for each of ``theta (b, p)``, system after system."""
        b, k = len(theta), self.problems
        every = torch.arange(k).repeat(b)
        return self.pair_losses(theta.repeat_interleave(k, 0), every, epoch, seed).reshape(b, k)

    def pair_losses(
        self, theta: torch.Tensor, problem: torch.Tensor, epoch: int, seed: int = 0
    ) -> torch.Tensor:
        losses = torch.full((len(problem),), 2.0, dtype=torch.float64)
        within, group, first = problem % self.problems, problem // self.problems, 0
        for place, (case, starts) in enumerate(zip(self.systems, self._starts, strict=True)):
            mine = torch.nonzero((within >= first) & (within < first + starts)).flatten()
            number = within[mine] - first + starts * group[mine]
            first += starts
            if mine.numel():
                outcome = self._outcome(case, place, theta[mine], number, epoch, seed)
                losses[mine] = self._loss(case, outcome)
        return losses

    def _loss(self, case: HopCase, outcome: Outcome) -> torch.Tensor:
        """Return the loss (m,) float64 of each start."""
        tally = outcome.tally
        height = (tally.energy.to(torch.float64) - case.target).clamp(min=0.0)
        # a search that met no finite energy is as high as can be
        miss = torch.where(height.isfinite(), 1.0 + height / (height + _HALF * abs(case.target)), 2.0)
        share = tally.first_hit / (case.force_calls or self.force_calls)
        return torch.where(tally.first_hit > 0, share, miss)

    def _outcome(
        self, case: HopCase, place: int, theta: torch.Tensor, number: torch.Tensor, epoch: int, seed: int
    ) -> Outcome:
        """Return the outcome of searches with ``theta (m, p)``, each from the start of its ``number (m,)``."""
        calls = case.force_calls or self.force_calls
        key = derive(problem_keys(seed, number), epoch, place)
        systems = case.begun(key)
        stop = Stop(calls, target=case.target, target_tolerance=case.tolerance, on_target="stop-start")
        searches, landscape = self.learnable.optimizer(theta), AtomsLandscape(systems, case.potential)
        driver = Driver(landscape, searches, stop, keep=1, engine=self.engine)
        return carried(driver, driver.begin(systems.pos, key), self.context).outcome

    def evaluate(self, theta: torch.Tensor, seed: int = 0) -> dict[str, float]:
        """Return ``held_out``, the mean loss on held-out starts, and the hits of each system.

        Hits come with their share and, if there are any, with the calls to a hit, each with its 95 % interval.
        """
        found, loss = dict[str, float](), 0.0
        number, labels = torch.arange(self.held_out), labels_of(self.systems)
        for place, (case, label, starts) in enumerate(zip(self.systems, labels, self._starts, strict=True)):
            outcome = self._outcome(case, place, theta.expand(len(number), -1), number, HELD_OUT, seed)
            first = [None if hit < 0 else hit for hit in outcome.tally.first_hit.tolist()]
            hits = sum(hit is not None for hit in first)
            numbers = {"hits": float(hits)} | _spelled("hit_rate", wilson(hits, self.held_out))
            if hits:
                numbers |= _spelled("calls_to_hit", mean_calls_to_hit(first, outcome.calls.tolist()))
            found |= {f"{label}.{name}": value for name, value in numbers.items()}
            loss += starts / self.problems * float(self._loss(case, outcome).mean())
        return {"held_out": loss} | found


def _spelled(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
