"""The meta-trainer that differentiates through the steps of the optimizer that it trains."""

from __future__ import annotations

import math
from typing import Literal

from mlopt.core.errors import MloptError
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.learning import MetaState, MetaTrainer, Task
from mlopt.optimizers.training.outer_adam import OuterAdam


class UnrolledGradient(MetaTrainer):
    """Descent along the gradient of the loss, taken by differentiating through every inner step.

    ``barzilai-borwein`` is steepest descent with the step ``s.s / s.y`` of Barzilai & Borwein (IMA J. Numer. Anal. 8,
    141 (1988)). Here s is the last change of theta and y that of the gradient. Bushuev & Lobanov 2020 train in this
    way, with 20 steps on the problems of an epoch. Where ``s.y`` is not positive, the last step size is kept. A change
    is shortened to `max_change`, because losses of truncated runs are steep. The step size carries over to the next
    epoch. ``adam`` is that of Kingma & Ba, for noisier losses.

    If the loss or gradient is not finite, the epoch ends, and theta stays where the last finite gradient was.
    """

    descent: Literal["barzilai-borwein", "adam"] = setting(
        "barzilai-borwein", "method that updates theta by the gradient"
    )
    steps: int = setting(20, "updates on the problems of one epoch", ge=1)
    step_size: float = setting(0.02, "first step, times the gradient; for Adam the size of every step", gt=0)
    max_change: float = setting(0.25, "longest change of theta in one step", gt=0)

    def advance(self, task: Task, state: MetaState, seed: int = 0) -> tuple[MetaState, dict[str, float]]:
        theta = state.theta.detach().clone()
        memory = {name: value.clone() for name, value in state.memory.items()}
        first = math.nan
        loss = math.nan
        for step in range(self.steps):
            point = theta.clone().requires_grad_(True)
            found = task.losses(point[None], state.epoch, seed)[0]
            (gradient,) = torch.autograd.grad(found, point)
            if not bool(torch.isfinite(found) & torch.isfinite(gradient).all()):
                if "theta" not in memory:
                    raise MloptError(
                        f"the loss of {type(task).__name__} is not finite at its first parameters; start elsewhere"
                    )
                theta = memory["theta"]  # back to where it was finite, and no farther in this epoch
                break
            loss = float(found.detach())
            first = loss if step == 0 else first
            change = self._change(theta, gradient, memory)
            memory["theta"], memory["gradient"] = theta, gradient
            theta = theta + change
        metrics = {"loss": loss, "loss_before": first, "gradient": float(memory["gradient"].norm())}
        return MetaState(theta, state.epoch + 1, memory), metrics

    def _change(
        self, theta: torch.Tensor, gradient: torch.Tensor, memory: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return the next change (p,) of ``theta (p,)`` for ``gradient (p,)``, and update ``memory``."""
        if self.descent == "adam":
            change = OuterAdam(step_size=self.step_size, decay=1.0).change(gradient, memory)
        else:
            step = memory.get("step", torch.full((), self.step_size, dtype=theta.dtype))
            if "gradient" in memory:
                s, y = theta - memory["theta"], gradient - memory["gradient"]
                curvature = (s * y).sum()
                if bool(curvature > 0):
                    step = (s * s).sum() / curvature
            memory["step"] = step
            change = -step * gradient
        length = change.norm()
        return change * (self.max_change / length) if bool(length > self.max_change) else change
