"""Protocols of meta-learning: what parameters are good for (a task), and what improves them (a meta-trainer)."""

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

    theta is a vector without constraints; what it means (logarithms of step sizes, weights of a network) is the task's
    affair. Invariant: a loss is a function of theta, seed and epoch alone, and all theta of an epoch meet the same
    problems (common random numbers).
    """

    _context: Context | None = PrivateAttr(None)

    def within(self, context: Context) -> Self:
        """This task in the surroundings of a run, which it asks whether to leave what takes long and is no step.

        Any method may then raise `Preempted`; what it was asked for is not done.
        """
        made = self.model_copy()
        made._context = context
        return made

    @property
    def context(self) -> Context:
        """The surroundings; where there are none, ones that never interrupt."""
        return self._context or Context()

    @property
    @abstractmethod
    def theta(self) -> torch.Tensor:
        """Where training starts: (p,) float64."""
        raise NotImplementedError(f"{type(self).__name__} must define `theta`")

    @abstractmethod
    def losses(self, theta: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
        """The mean loss (b,) of each of ``theta (b, p)`` over the problems of that epoch; the lower the better.

        Differentiable in theta where the task allows it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `losses`")

    @abstractmethod
    def named(self, theta: torch.Tensor) -> dict[str, float]:
        """The parameters that ``theta (p,)`` stands for, by name, in the units of the settings; {} for networks."""
        raise NotImplementedError(f"{type(self).__name__} must define `named`")

    def evaluate(self, theta: torch.Tensor, seed: int = 0) -> dict[str, float]:
        """What ``theta (p,)`` reaches on problems that no epoch has, for the report."""
        return {}

    @property
    def problems(self) -> int:
        """On how many problems of an epoch one theta is judged: k; 1 where a loss cannot be taken apart."""
        return 1

    @property
    def batch_size(self) -> int | None:
        """How many pairs to compute at once: what the memory holds; None for all."""
        return None

    def pair_losses(
        self, theta: torch.Tensor, problem: torch.Tensor, epoch: int, seed: int = 0
    ) -> torch.Tensor:
        """The loss (m,) of ``theta[i]`` on problem number ``problem[i]``; ``theta (m, p)``, ``problem (m,)`` int64.

        What trainers call that look at single problems, or give each theta problems of its own. Numbers from 0 on,
        without an end: 0 to k - 1 are those that `losses` takes the mean of, and each further k is as good a sample.
        Here, for tasks that cannot tell problems apart, `losses`. Invariant: a loss is the same in any batch.
        """
        return self.losses(theta, epoch, seed)

    def prepare(self) -> None:
        """Compute what is costly and the same in all epochs. Called on every rank before any loss is asked for."""

    def constants(self) -> torch.Tensor:
        """What `prepare` computed, (c,) float64: checkpoints keep it, so that a resumed training need not."""
        return torch.zeros(0, dtype=torch.float64)

    def with_constants(self, constants: torch.Tensor) -> Self:
        """This task with the `constants` of an earlier run of the same task."""
        return self


class SegmentedTask(Task):
    """A task whose inner runs can be cut into segments, each with a theta of its own: what persistent ES needs."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Inner steps of a whole run."""
        raise NotImplementedError(f"{type(self).__name__} must define `length`")

    @abstractmethod
    def begin(self, problem: torch.Tensor, epoch: int, seed: int = 0) -> Any:
        """Runs on the problems ``problem (m,)`` of that epoch, before their first step."""
        raise NotImplementedError(f"{type(self).__name__} must define `begin`")

    @abstractmethod
    def carry(self, run: Any, theta: torch.Tensor, steps: int) -> tuple[Any, torch.Tensor]:
        """The runs ``steps`` inner steps later, with ``theta (m, p)``, and their losses (m,) then; ``run`` is used up.

        Invariant: the last losses of a run that was carried to its end with one theta are its `pair_losses`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `carry`")


class Learnable(Plugin):
    """A family of optimizers, one for each theta: a network's weights, or the constants of a classic.

    Registered as plugins of the kind ``learnable``; a `Task` trains one, and evaluates many theta in one batch.
    """

    @abstractmethod
    def start(self, seed: int = 0) -> torch.Tensor:
        """Where training starts: theta (p,) float64."""
        raise NotImplementedError(f"{type(self).__name__} must define `start`")

    @abstractmethod
    def optimizer(self, theta: torch.Tensor) -> Optimizer:
        """The optimizer of ``theta (p,)``; or of ``(n_problems, p)``, where each problem has its own."""
        raise NotImplementedError(f"{type(self).__name__} must define `optimizer`")

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        """What ``theta (p,)`` stands for, by name, where it is few numbers; {} for networks."""
        return {}

    def write_weights(self, theta: torch.Tensor, path: Path, training: Mapping[str, Any]) -> None:
        """Write ``theta (p,)`` to ``path`` (``.safetensors``) in the form that the optimizer's own settings read.

        training: what to tell of the training: task_family, horizon, estimator, seeds, cost, results, command. Nothing
        is written here: few numbers, as `named` gives them, are settings themselves.
        """


@dataclass
class MetaState:
    """A training between two epochs: all of it, so that it resumes bit for bit.

    theta (p,). epoch: the next one. memory: tensors of the meta-trainer.
    """

    theta: torch.Tensor
    epoch: int = 0
    memory: dict[str, torch.Tensor] = field(default_factory=dict)


class MetaTrainer(Plugin):
    """Improves theta on a task."""

    @abstractmethod
    def advance(self, task: Task, state: MetaState, seed: int = 0) -> tuple[MetaState, dict[str, float]]:
        """One epoch: the state after it, and numbers to record, ``loss`` among them. ``state`` is not changed."""
        raise NotImplementedError(f"{type(self).__name__} must define `advance`")
