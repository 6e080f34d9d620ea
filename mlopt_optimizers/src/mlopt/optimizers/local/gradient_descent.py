"""Gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.core.batch.segments import Segments
from mlopt.core.kernels.kernel import Kernel, OptimizerKernel
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import Optimizer, State
from mlopt.optimizers.local.kernels import gradient_descent as kernels


@dataclass(frozen=True)
class GradientDescentState(State):
    """An empty state: the next step depends on the present force alone."""


class GradientDescent(Optimizer):
    """Steps along the force: ``x <- retract(x, step * force)`` (Cauchy 1847).

    The soft-sphere descent of Learn2Hop (App. D.2) and the polish of final structures use a step of 1e-3. With
    ``max_step`` a step is shortened, in its direction, so that no row of the problem moves farther.
    """

    step_size: float = setting(1e-3, "displacement per force", unit="length^2/energy", gt=0)
    max_step: float | None = setting(
        None, "largest displacement of a row in one step; none: no limit", unit="length", gt=0
    )

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> GradientDescentState:
        """Return the empty state."""
        return GradientDescentState()

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: GradientDescentState
    ) -> tuple[torch.Tensor, GradientDescentState]:
        """Take a step downhill."""
        move = landscape.segments.spread(self.step_size) * evaluation.force
        if self.max_step is not None:
            move = shortened(landscape.segments, move, self.max_step)
        return landscape.manifold.retract(x, move), state

    def kernel(self) -> OptimizerKernel:
        """See `Optimizer.kernel`."""
        capped = self.max_step is not None
        settings = (self.step_size, self.max_step if capped else 0.0)
        step = Kernel(kernels.step, settings, {"CAPPED": capped})
        return OptimizerKernel(Kernel(kernels.init), step)


def shortened(segments: Segments, move: torch.Tensor, max_step: float) -> torch.Tensor:
    """Return ``move (n_rows, d)``, scaled down problem by problem so that no row is longer than ``max_step``."""
    # clamping under the root, not after it, keeps the derivative finite where nothing moves
    longest = segments.longest2(move).clamp(min=max_step * max_step).sqrt()
    return segments.scale(max_step / longest, move)
