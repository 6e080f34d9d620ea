"""Stochastic velocity rescaling, the thermostat of Bussi, Donadio and Parrinello."""

from __future__ import annotations

from dataclasses import replace

from mlopt.core.batch.random import Draws
from mlopt.core.kernels.kernel import Kernel, OptimizerKernel
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.optimizers.dynamics.integrator import DynamicsState, Motion, Thermostatted
from mlopt.optimizers.dynamics.kernels import thermostats
from mlopt.optimizers.dynamics.mechanics import numbers


class Bussi(Thermostatted):
    """Stochastic velocity rescaling (NVT): all velocities of a problem are scaled by one random factor a step.

    The kinetic energy follows the exact solution of its stochastic equation over a step, so its canonical distribution
    does not depend on the relaxation time. Dynamics are disturbed little, and momenta are conserved.

    Source: Bussi, Donadio & Parrinello, J. Chem. Phys. 126, 014101 (2007), eq. A7. The sum of squares of the
    degrees of freedom is drawn term by term, because a draw of its distribution would need rejections.
    """

    relaxation_time: float = setting(
        ..., "relaxation time of the kinetic energy", unit="fs, or reduced", gt=0
    )

    def end_step(
        self, motion: Motion, velocity: torch.Tensor, state: DynamicsState
    ) -> tuple[torch.Tensor, DynamicsState]:
        """Scale the velocities of a full step, unless it is the start."""
        segments, width = motion.landscape.segments, velocity.shape[1]
        draws = Draws(state.key, state.counter, segments)
        normal = draws.normal_rows(width).to(velocity)
        within = torch.arange(len(velocity), device=velocity.device) - segments.rows_of(segments.ptr[:-1])
        place = within[:, None] * width + torch.arange(width, device=velocity.device)
        first = segments.sum(torch.where(place == 0, normal, 0.0))
        others = (place > 0) & (place < segments.rows_of(state.freedom)[:, None])
        squares = segments.sum(torch.where(others, normal * normal, 0.0))
        # the first point has kick 0, hence no time for heat to flow
        relaxation = numbers(self.relaxation_time, segments, velocity)
        decay = torch.exp(-2.0 * state.kick / relaxation)
        kinetic = motion.kinetic(velocity)
        scaled = (kinetic > 0) & (state.freedom > 0) & (state.kick > 0)
        safe = torch.where(scaled, kinetic, 1.0)
        size2 = (1.0 - decay) * 0.5 * self.thermal(motion) / safe
        along = decay.sqrt() + size2.sqrt() * first
        square = along * along + size2 * squares
        factor = torch.where(scaled, torch.where(along < 0, -1.0, 1.0) * square.sqrt(), 1.0)
        heat = torch.where(scaled, (square - 1.0) * kinetic, 0.0)
        state = replace(state, heat=state.heat + heat, counter=draws.counter)
        return segments.scale(factor, velocity), state

    def kernel(self) -> OptimizerKernel:
        """See `Optimizer.kernel`."""
        return self.kernel_with(end_step=Kernel(thermostats.bussi, (self.temperature, self.relaxation_time)))
