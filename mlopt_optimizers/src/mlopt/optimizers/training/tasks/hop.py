"""The task `hop`: how soon a search finds the global minima of a family of clusters."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import model_validator

from mlopt.core.atoms.elements import parse_formula
from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import derive, problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.engine import EngineName
from mlopt.core.driver.progress import Outcome
from mlopt.core.driver.stop import Stop
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, Plugin, setting
from mlopt.core.protocols.learning import Learnable, Task
from mlopt.core.protocols.start import StartSampler
from mlopt.core.reporting.statistics import Estimate, mean_calls_to_hit, wilson
from mlopt.optimizers.learned.hop.learnable import LearnedHop
from mlopt.optimizers.starts.starts import SphereStart
from mlopt.optimizers.training.tasks.inner_runs import carried

#: the epoch whose starts are for `HopTask.evaluate` alone
HELD_OUT = 2**31
#: keeps the random numbers of starts apart from those of the search that follows
_START_STREAM = 1
#: height above the target, in its energy, that costs half of what a miss can cost besides
_HALF = 0.01


class Hunt(Plugin):
    """A cluster and the lowest energy that is known of it."""

    cluster: str = setting(..., "formula, such as Ar38")
    potential: Annotated[Potential, FromRegistry("potential")] = setting(..., "the energy")
    target: float = setting(..., "energy of the global minimum, or the lowest known", unit="energy")
    tolerance: float = setting(1e-3, "above it, and still reached", unit="energy", ge=0)
    force_calls: int | None = setting(None, "of each start; none: those of the task", ge=1)
    starts: int | None = setting(None, "in each epoch; none: those of the task", ge=1)

    @property
    def elements(self) -> list[int]:
        """Atomic numbers.

        Raises:
            InputError: it is no formula.
        """
        return parse_formula(self.cluster)


class HopTask(Task):
    """Learn a search: the loss of a start is the share of its force calls after which it hit the target.

    A start that did not hit has a loss between 1 and 2: 1 + h / (h + s), with the height h of its lowest energy above
    the target, and s a hundredth of that. So any hit ranks before any miss, and misses by how near they came. All theta
    of an epoch meet the same starts and draw the same random numbers; a whole population is one batch, in which every
    problem has its own theta.
    """

    systems: list[Hunt] = setting(..., "the family; several sizes and potentials may be mixed", min_length=1)
    learnable: Annotated[Learnable, FromRegistry("learnable")] = setting(LearnedHop(), "what is learned")
    start: Annotated[StartSampler, FromRegistry("start")] = setting(SphereStart(), "where searches begin")
    starts: int = setting(12, "of each cluster, in each epoch", ge=1)
    force_calls: int = setting(20_000, "of each start", ge=1)
    held_out: int = setting(100, "starts of each cluster in an evaluation", ge=1)
    engine: EngineName = setting("auto", "see engines: eager, fused, or auto")

    @model_validator(mode="after")
    def _known(self) -> Self:
        for one in self.systems:
            one.potential.check(Systems.cluster(one.elements))
        return self

    @property
    def theta(self) -> torch.Tensor:
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
        """The loss of each start: (b, problems), cluster after cluster."""
        b, k = len(theta), self.problems
        every = torch.arange(k).repeat(b)
        return self.pair_losses(theta.repeat_interleave(k, 0), every, epoch, seed).reshape(b, k)

    def pair_losses(
        self, theta: torch.Tensor, problem: torch.Tensor, epoch: int, seed: int = 0
    ) -> torch.Tensor:
        losses = torch.full((len(problem),), 2.0, dtype=torch.float64)
        within, group, first = problem % self.problems, problem // self.problems, 0
        for place, (hunt, starts) in enumerate(zip(self.systems, self._starts, strict=True)):
            mine = torch.nonzero((within >= first) & (within < first + starts)).flatten()
            number = within[mine] - first + starts * group[mine]
            first += starts
            if mine.numel():
                outcome = self._outcome(hunt, place, theta[mine], number, epoch, seed)
                losses[mine] = self._loss(hunt, outcome)
        return losses

    def _loss(self, hunt: Hunt, outcome: Outcome) -> torch.Tensor:
        """Of each start."""
        tally = outcome.tally
        height = (tally.energy.to(torch.float64) - hunt.target).clamp(min=0.0)
        # a search that met no finite energy is as high as can be
        miss = torch.where(height.isfinite(), 1.0 + height / (height + _HALF * abs(hunt.target)), 2.0)
        share = tally.first_hit / (hunt.force_calls or self.force_calls)
        return torch.where(tally.first_hit > 0, share, miss)

    def _outcome(
        self, hunt: Hunt, place: int, theta: torch.Tensor, number: torch.Tensor, epoch: int, seed: int
    ) -> Outcome:
        """Search with ``theta (m, p)``, each from the start of its ``number (m,)``."""
        calls = hunt.force_calls or self.force_calls
        key = derive(problem_keys(seed, number), epoch, place)
        systems = Systems.cluster(hunt.elements, len(number))
        x = self.start.sample(systems, hunt.potential.diameter(systems.z), derive(key, _START_STREAM))
        stop = Stop(calls, target=hunt.target, target_tolerance=hunt.tolerance, on_target="stop-start")
        searches, landscape = self.learnable.optimizer(theta), AtomsLandscape(systems, hunt.potential)
        driver = Driver(landscape, searches, stop, keep=1, engine=self.engine)
        return carried(driver, driver.begin(x, key), self.context).outcome

    def evaluate(self, theta: torch.Tensor, seed: int = 0) -> dict[str, float]:
        """On held-out starts: ``held_out``, the mean loss; for each cluster hits, their share, calls to a hit if any.

        Shares and calls come with their 95 % intervals.
        """
        found, loss = dict[str, float](), 0.0
        number = torch.arange(self.held_out)
        for place, (hunt, starts) in enumerate(zip(self.systems, self._starts, strict=True)):
            outcome = self._outcome(hunt, place, theta.expand(len(number), -1), number, HELD_OUT, seed)
            first = [None if hit < 0 else hit for hit in outcome.tally.first_hit.tolist()]
            hits = sum(hit is not None for hit in first)
            numbers = {"hits": float(hits)} | _spelled("hit_rate", wilson(hits, self.held_out))
            if hits:
                numbers |= _spelled("calls_to_hit", mean_calls_to_hit(first, outcome.calls.tolist()))
            found |= {f"{hunt.cluster}.{name}": value for name, value in numbers.items()}
            loss += starts / self.problems * float(self._loss(hunt, outcome).mean())
        return {"held_out": loss} | found


def _spelled(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
