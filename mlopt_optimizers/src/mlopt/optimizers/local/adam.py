"""Adam."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.core.kernels.kernel import Kernel, OptimizerKernel
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import Optimizer, State, per_problem, per_row
from mlopt.optimizers.local.kernels import adam as kernels


@dataclass(frozen=True)
class AdamState(State):
    """The moments of Adam.

    mean, square (n_rows, d): running means of the force and of its square, component by component.
    decay1, decay2 (n,): beta1 and beta2 to the power of the number of steps. They are computed as products, because the
    last bit of `pow` depends on the place in the tensor, and so on the batch.
    """

    mean: torch.Tensor = per_row()
    square: torch.Tensor = per_row()
    decay1: torch.Tensor = per_problem()
    decay2: torch.Tensor = per_problem()


class Adam(Optimizer):
    """Adam (Kingma & Ba, ICLR 2015, arXiv 1412.6980, Algorithm 1), the first baseline of Learn2Hop.

    Learn2Hop tries steps of 0.01, 0.005 and 0.001 (App. C.1) and keeps the other defaults. Each component has moments
    of its own, so the path depends on the axes. On a curved manifold the mean is transported in parallel, and squares
    stay with their embedding coordinates. The step is then projected on the tangent space.
    """

    step_size: float = setting(
        0.01, "approximate displacement of each component in one step", unit="length", gt=0
    )
    beta1: float = setting(0.9, "share of the old mean that is kept", ge=0, lt=1)
    beta2: float = setting(0.999, "share of the old mean square that is kept", ge=0, lt=1)
    epsilon: float = setting(1e-8, "added to the root mean square", unit="energy/length", gt=0)

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> AdamState:
        """Return zero moments."""
        ones = x.new_ones(landscape.segments.n_problems)
        return AdamState(torch.zeros_like(x), torch.zeros_like(x), ones, ones)

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: AdamState
    ) -> tuple[torch.Tensor, AdamState]:
        """Update the moments, correct their bias, and step."""
        segments, manifold = landscape.segments, landscape.manifold
        force = evaluation.force.contiguous()  # strided rows would slow every operation down
        beta1, beta2 = segments.spread(self.beta1), segments.spread(self.beta2)
        mean = force + beta1 * (state.mean - force)
        square2 = force * force
        square = square2 + beta2 * (state.square - square2)
        decay1, decay2 = state.decay1 * self.beta1, state.decay2 * self.beta2
        # without a floor the derivative of the root is infinite where a component of the force is exactly zero
        root = square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()
        root = segments.scale((1.0 - decay2).rsqrt(), root) + segments.spread(self.epsilon)
        move = segments.scale(self.step_size / (1.0 - decay1), mean / root)
        new_x = manifold.retract(x, manifold.project(x, move))
        return new_x, AdamState(manifold.transport(x, new_x, mean), square, decay1, decay2)

    def kernel(self) -> OptimizerKernel:
        """See `Optimizer.kernel`."""
        settings = (self.step_size, self.beta1, self.beta2, self.epsilon)
        return OptimizerKernel(Kernel(kernels.init), Kernel(kernels.step, settings))
