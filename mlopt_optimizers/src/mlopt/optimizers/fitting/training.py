"""Training of potentials that are not linear in their parameters: stages of optimizers, several seeds at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import field_validator

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.batch.random import Stream, derive, problem_keys, uniform
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.external import ExternalOptimizer
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, Plugin, setting
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers.fitting.loss import Loss, LossLandscape
from mlopt.optimizers.local.bfgs import BFGS
from mlopt.optimizers.local.lbfgs import LBFGS

#: parameters up to which a matrix of their inverse Hessian is kept
_DENSE = 2000


class Stage(Plugin):
    """One optimizer, and the number of evaluations that it may take."""

    optimizer: Annotated[Optimizer | None, FromRegistry("optimizer")] = setting(
        None, "what minimises the loss; none: bfgs up to 2,000 parameters, else lbfgs"
    )
    evaluations: int = setting(1000, "of the loss and its gradient, for each seed", ge=1)
    batch: int | None = setting(
        None, "structures that one evaluation takes, for adam and gradient-descent; none: all", ge=1
    )

    @field_validator("optimizer")
    @classmethod
    def _stepwise(cls, optimizer: Optimizer | None) -> Optimizer | None:
        if isinstance(optimizer, ExternalOptimizer):
            raise ValueError(
                f"the optimizer {type(optimizer).__name__} owns its loop and cannot train; take lbfgs, bfgs, adam or "
                f"annealing"
            )
        return optimizer

    def minimiser(self, parameters: int) -> Optimizer:
        """Return the optimizer, for so many parameters: at equal evaluations bfgs ends lower, but it keeps a matrix."""
        if self.optimizer is not None:
            return self.optimizer
        if parameters <= _DENSE:
            return BFGS(max_step=0.5, scale=0.05)
        return LBFGS(memory=30, max_step=0.5, scale=0.05)


class Training(Plugin):
    """The settings of a fit of a potential that is not linear in its parameters.

    Several sets of parameters are trained as one batch, each from a start of its own, its seed. Part of the structures
    is held back, and the loss on these is computed every few evaluations, at a look. Each seed ends with the parameters
    of its lowest loss at any look. The seed with the lowest loss is taken. Structures to test on have no part in this.
    """

    stages: list[Stage] = setting([Stage()], "optimizers, one after the other", min_length=1)
    seeds: int = setting(1, "starts, trained as one batch", ge=1, le=1000)
    loss: Loss = setting(Loss(), "what is made small")
    validation: float = setting(
        0.1, "share of the structures to fit to that is held back; 0: the loss itself decides", ge=0, lt=1
    )
    every: int = setting(50, "evaluations between two looks at those held back", ge=1)
    patience: int | None = setting(
        None, "looks without a better one in any seed that end a stage; none: stages go on", ge=1
    )
    block: int = setting(2000, "atoms that are evaluated at a time; more take more memory", ge=1)

    def held_back(self, structures: int) -> int:
        """Return how many of so many structures are held back.

        Raises:
            InputError: none or all of them, where some should be.
        """
        held = round(self.validation * structures)
        if held == structures or (self.validation > 0 and held == 0):
            raise InputError(
                f"`training.validation`: a share of {self.validation:g} of {structures} structures is {held} of them; "
                f"give more structures, or set it to 0"
            )
        return held


@dataclass(frozen=True)
class Look:
    """The losses of a training after some evaluations of each seed.

    stage: the place of the stage.
    loss (k,): the loss of each seed that its optimizer minimises.
    held_back (k,): the loss on structures that are held back, or ``loss`` where there are none.
    """

    stage: int
    evaluations: int
    loss: list[float]
    held_back: list[float]


@dataclass(frozen=True, eq=False)
class Trained:
    """The outcome of a training.

    theta (k, p): the best parameters of each seed.
    loss, held_back (k,): the losses at these parameters, as in `Look`.
    looks: all looks, in order.
    evaluations: number of evaluations of the loss, for each seed.
    """

    theta: torch.Tensor
    loss: torch.Tensor
    held_back: torch.Tensor
    looks: list[Look]
    evaluations: int

    @property
    def best(self) -> int:
        """The seed with the lowest loss on the structures that were held back."""
        return int(self.held_back.argmin())


class Trainer:
    """A training in flight, which can be saved between two steps and goes on bit for bit.

    potential: the potential, prepared for the data.
    data: the structures to fit to, of which a share is held back.
    starts (k, p): parameters to go on from, one row for each seed; None for those that the potential draws.

    Raises:
        InputError: too few structures to hold any back.
    """

    def __init__(
        self,
        training: Training,
        potential: FittablePotential,
        data: Dataset,
        seed: int,
        starts: torch.Tensor | None = None,
    ) -> None:
        self.training, self.potential, self.seed = training, potential, seed
        key = problem_keys(seed, torch.arange(len(data)))
        order = uniform(key, torch.full_like(key, Stream.HELD_BACK), 1)[:, 0].argsort()
        held = training.held_back(len(data))
        self.order, self.data = order[held:], data
        self.fitted = data.select(self.order.sort().values)
        self.landscape = self._landscape(self.fitted, _blocks(self.fitted, training.block))
        self.held: LossLandscape | None = None
        if held:
            apart = data.select(order[:held].sort().values)
            self.held = self._landscape(apart, _blocks(apart, training.block))
        k = training.seeds
        if starts is None:
            starts = torch.stack([potential.start(seed + one) for one in range(k)])
        self.stage, self.spent, self.waited = 0, 0, 0
        self.best, self.best_loss = starts, torch.full((k,), torch.inf, dtype=torch.float64)
        self.best_held = self.best_loss
        self.looks: list[Look] = []
        self._enter(starts)

    def _landscape(self, data: Dataset, blocks: list[list[int]]) -> LossLandscape:
        parts = [data.select(one) for one in blocks]
        return LossLandscape(self.potential, parts, self.training.loss, self.training.seeds)

    def _enter(self, theta: torch.Tensor) -> None:
        """Begin the present stage at ``theta (k, p)``."""
        stage = self.training.stages[self.stage]
        landscapes = [self.landscape]
        if stage.batch is not None:
            shuffled = self.order.tolist()
            places = [shuffled[at : at + stage.batch] for at in range(0, len(shuffled), stage.batch)]
            whole = self._landscape(self.data, places)
            landscapes = [whole.part(block) for block in range(len(places))]
        # of a part of the structures no loss can be compared with another's: the last point counts
        lowest = None if stage.batch is None else False
        self.drivers = [
            Driver(one, stage.minimiser(theta.shape[1]), Stop(stage.evaluations), keep=0, lowest=lowest)
            for one in landscapes
        ]
        keys = problem_keys(_derived(self.seed, self.stage), torch.arange(self.training.seeds))
        self.progress: Progress = self.drivers[0].begin(theta.reshape(-1, 1), keys)

    @property
    def evaluations(self) -> int:
        """Evaluations of the loss so far, for each seed."""
        return self.spent + self.progress.calls

    @property
    def total(self) -> int:
        """Evaluations that all stages may take."""
        return sum(one.evaluations for one in self.training.stages)

    @property
    def done(self) -> bool:
        """Whether all stages have ended."""
        return self.stage == len(self.training.stages)

    def advance(self, pause: Callable[[], bool] | None = None) -> Look | None:
        """Go on to the next look and return it; None where ``pause()`` was true before."""
        stage = self.training.stages[self.stage]
        until = min((self.progress.calls // self.training.every + 1) * self.training.every, stage.evaluations)
        while not self.progress.done and self.progress.calls < until:
            if stage.batch is None:
                self.progress = self.drivers[0].advance(self.progress, pause, until)
            else:
                calls = self.progress.calls
                self.progress = self._part_of(calls).advance(self.progress, None, calls + 1)
            if not self.progress.done and self.progress.calls < until and pause is not None and pause():
                return None
        return self._look(stage)

    def _part_of(self, step: int) -> Driver:
        """Return the part of the structures that a step takes; all take turns, in an order that each round draws."""
        n = len(self.drivers)
        key = torch.as_tensor(_derived(self.seed, self.stage, step // n)).expand(n)
        order = uniform(key, torch.arange(n), 1)[:, 0].argsort()
        return self.drivers[int(order[step % n])]

    def _look(self, stage: Stage) -> Look:
        theta, loss = self._here()
        if stage.batch is not None:
            loss = self.landscape.losses(theta)
        held = loss if self.held is None else self.held.losses(theta)
        held = torch.where(torch.isfinite(held), held, torch.inf)
        better = held < self.best_held
        self.best = torch.where(better[:, None], theta, self.best)
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.best_held = torch.where(better, held, self.best_held)
        self.waited = 0 if bool(better.any()) else self.waited + 1
        found = Look(self.stage, self.evaluations, loss.tolist(), held.tolist())
        self.looks.append(found)
        patient = self.training.patience is None or self.waited < self.training.patience
        if self.progress.done or self.progress.calls >= stage.evaluations or not patient:
            self._leave(theta)
        return found

    def _here(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the point of each seed that counts (k, p), and its loss (k,)."""
        tally = self.progress.snapshot().tally
        return tally.x.reshape(self.training.seeds, -1), tally.energy

    def _leave(self, theta: torch.Tensor) -> None:
        """End the present stage, and begin the next where this one ended; at the best where it ended in NaN."""
        self.spent, self.progress.calls = self.spent + self.progress.calls, 0
        self.stage, self.waited = self.stage + 1, 0
        if not self.done:
            sound = torch.isfinite(theta).all(1) & torch.isfinite(self._here()[1])
            self._enter(torch.where(sound[:, None], theta, self.best))

    def result(self) -> Trained:
        """Return what has been found so far.

        Raises:
            InputError: the loss was a number at no look.
        """
        if not bool(torch.isfinite(self.best_held).any()):
            raise InputError(
                "fit: the loss is no number wherever training went; take smaller steps (`max_step`, `step_size`), and "
                "look for structures with atoms on top of each other"
            )
        return Trained(self.best, self.best_loss, self.best_held, self.looks, self.evaluations)

    def to_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return tensors and plain data that `load_checkpoint` takes back."""
        tensors = {"best": self.best, "best_loss": self.best_loss, "best_held": self.best_held}
        meta: dict[str, Any] = {
            "stage": self.stage,
            "spent": self.spent,
            "waited": self.waited,
            "looks": [vars(one) for one in self.looks],
        }
        if not self.done:
            own, told = self.progress.to_checkpoint()
            tensors |= {f"progress.{name}": one for name, one in own.items()}
            meta["progress"] = told
        return tensors, meta

    def load_checkpoint(self, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        """Go on from what `to_checkpoint` returned.

        Raises:
            CheckpointError: it is of another training.
        """
        self.best, self.best_loss, self.best_held = (
            tensors[name] for name in ("best", "best_loss", "best_held")
        )
        self.spent, self.waited = int(meta["spent"]), int(meta["waited"])
        self.looks = [Look(**one) for one in meta["looks"]]
        self.stage = int(meta["stage"])
        if not self.done:
            self._enter(self.best)
            own = {
                name.removeprefix("progress."): one
                for name, one in tensors.items()
                if name.startswith("progress.")
            }
            self.progress.load_checkpoint(own, meta["progress"])


def _derived(seed: int, *ids: int) -> int:
    """Return a new seed from a seed and some numbers."""
    return int(derive(seed, *ids))


def _blocks(data: Dataset, atoms: int) -> list[list[int]]:
    """Structures that are evaluated together: consecutive ones of at most so many atoms."""
    return [list(range(first, stop)) for first, stop in data.systems.segments.blocks(atoms)]
