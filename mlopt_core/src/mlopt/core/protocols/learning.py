"""The protocols of meta-learning: a task judges parameters, a meta-trainer improves them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import PrivateAttr

from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.runs.experiment import Context


class Task(Plugin):
    """A family of problems on which parameters theta are judged, epoch by epoch.

    theta is an unconstrained vector. The task defines its meaning, such as logarithms of step sizes or weights of a
    network.

    Invariant: a loss is a function of theta, seed and epoch alone, and all theta of an epoch meet the same problems
    (common random numbers).
    """

    _context: Context | None = PrivateAttr(None)

    def within(self, context: Context) -> Self:
        """Return this task bound to a run; during long computations it asks ``context`` whether to stop.

        Any method may then raise `Preempted`; the result that was asked for is then not computed.
        """
        made = self.model_copy()
        made._context = context
        return made

    @property
    def context(self) -> Context:
        """The context of the run; by default one that never interrupts."""
        return self._context or Context()

    @property
    @abstractmethod
    def theta(self) -> torch.Tensor:
        """The initial theta of a training: (p,) float64."""
        raise NotImplementedError(f"{type(self).__name__} must define `theta`")

    @abstractmethod
    def losses(self, theta: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
        """Return the mean loss (b,) of each of ``theta (b, p)`` over the problems of that epoch; lower is better.

        The losses are differentiable in theta where the task allows it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `losses`")

    @abstractmethod
    def named(self, theta: torch.Tensor) -> dict[str, float]:
        """Return the named parameters of ``theta (p,)`` in the units of the settings; {} for networks."""
        raise NotImplementedError(f"{type(self).__name__} must define `named`")

    def evaluate(self, theta: torch.Tensor, seed: int = 0) -> dict[str, float]:
        """Return results of ``theta (p,)`` on problems outside all epochs, for the report."""
        return {}

    @property
    def problems(self) -> int:
        """The number of problems in an epoch, k; 1 where a loss cannot be split by problem."""
        return 1

    @property
    def batch_size(self) -> int | None:
        """The number of pairs to compute at once, as memory allows; None for all."""
        return None

    def pair_losses(
        self, theta: torch.Tensor, problem: torch.Tensor, epoch: int, seed: int = 0
    ) -> torch.Tensor:
        """Return the loss (m,) of each ``theta[i]`` on problem number ``problem[i]``.

        theta: (m, p). problem: (m,) int64.
        Trainers call it to look at single problems, or to give each theta its own problems. `losses` averages over the
        problems 0 to k - 1. Problem numbers have no upper limit, and each further block of k numbers is as good a
        sample. The default is `losses`, for tasks that cannot split their loss by problem.
        Invariant: a loss is the same in any batch.
        """
        return self.losses(theta, epoch, seed)

    def prepare(self) -> None:
        """Compute once what is costly and the same in all epochs. Every rank calls it before it asks for a loss."""

    def constants(self) -> torch.Tensor:
        """Return what `prepare` computed, (c,) float64. Checkpoints store it, so a resumed training skips `prepare`."""
        return torch.zeros(0, dtype=torch.float64)

    def with_constants(self, constants: torch.Tensor) -> Self:
        """Return this task with the `constants` (c,) of an earlier run of the same task."""
        return self


class SegmentedTask(Task):
    """A task whose inner runs can be cut into segments, each with its own theta, as persistent ES needs."""

    @property
    @abstractmethod
    def length(self) -> int:
        """The number of inner steps in a whole run."""
        raise NotImplementedError(f"{type(self).__name__} must define `length`")

    @abstractmethod
    def begin(self, problem: torch.Tensor, epoch: int, seed: int = 0) -> Any:
        """Return runs on the problems ``problem (m,)`` of that epoch, before their first step."""
        raise NotImplementedError(f"{type(self).__name__} must define `begin`")

    @abstractmethod
    def carry(self, run: Any, theta: torch.Tensor, steps: int) -> tuple[Any, torch.Tensor]:
        """Advance the runs by ``steps`` inner steps with ``theta (m, p)``; return them and their current losses (m,).

        Do not use ``run`` afterwards.
        Invariant: if theta never changes, the losses at the end of a run equal `pair_losses`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `carry`")


class Learnable(Plugin):
    """A family of optimizers, one for each theta: the weights of a network, or the constants of a classical optimizer.

    Learnables are plugins of the kind ``learnable``. A `Task` trains one, and evaluates many theta in one batch.
    """

    @abstractmethod
    def start(self, seed: int = 0) -> torch.Tensor:
        """Return the initial theta of a training, (p,) float64."""
        raise NotImplementedError(f"{type(self).__name__} must define `start`")

    @abstractmethod
    def optimizer(self, theta: torch.Tensor) -> Optimizer:
        """Return the optimizer of ``theta (p,)``; or of ``(n_problems, p)``, where each problem has its own."""
        raise NotImplementedError(f"{type(self).__name__} must define `optimizer`")

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        """Return the parameters that ``theta (p,)`` stands for, by name, if they are few; {} for networks."""
        return {}

    def write_weights(self, theta: torch.Tensor, path: Path, training: Mapping[str, Any]) -> None:
        """Write ``theta (p,)`` to ``path`` (``.safetensors``) in the form that the optimizer's own settings read.

        training: facts for the card: task_family, horizon, estimator, seeds, cost, results, command.
        The default writes nothing, because a few named numbers are settings themselves.
        """


@dataclass
class MetaState:
    """A training between two epochs, complete enough to resume it bit for bit.

    theta: (p,). epoch: the number of the next epoch. memory: tensors of the meta-trainer.
    """

    theta: torch.Tensor
    epoch: int = 0
    memory: dict[str, torch.Tensor] = field(default_factory=dict)


class MetaTrainer(Plugin):
    """A method that improves theta on a task."""

    @abstractmethod
    def advance(self, task: Task, state: MetaState, seed: int = 0) -> tuple[MetaState, dict[str, float]]:
        """Run one epoch; return the new state and numbers to record, ``loss`` among them. ``state`` is not changed."""
        raise NotImplementedError(f"{type(self).__name__} must define `advance`")
