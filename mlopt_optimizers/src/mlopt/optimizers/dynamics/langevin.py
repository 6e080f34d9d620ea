"""Langevin dynamics by the BAOAB splitting."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import field_validator

from mlopt.core.batch.random import Draws
from mlopt.core.kernels.kernel import Kernel, OptimizerKernel
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.optimizers.dynamics.integrator import DynamicsState, Motion, Thermostatted
from mlopt.optimizers.dynamics.kernels import thermostats
from mlopt.optimizers.dynamics.mechanics import numbers, thermal_noise


class Langevin(Thermostatted):
    """Langevin dynamics (NVT): friction, and random forces that balance it, on every row.

    The splitting is BAOAB (Leimkuhler & Matthews, Appl. Math. Res. Express 2013, 34, eq. 12). Half a kick and half a
    drift are followed by the exact solution of friction and noise over a step. Then come half a drift and half a kick.
    Positions in a harmonic well have the exact distribution at any stable time step. Kinetic temperatures have an error
    of second order. In a well of angular frequency w they are low by the factor ``1 - (w dt)^2 / 4``.

    Momentum is not conserved: all 3 N degrees of freedom are at the temperature of the thermostat, and the centre of
    mass diffuses.
    """

    conserving: ClassVar[bool] = False

    friction: float = setting(..., "friction coefficient", unit="1/fs, or reduced", ge=0)

    @field_validator("zero_rotation")
    @classmethod
    def _turns(cls, value: bool) -> bool:
        if value:
            raise ValueError(
                "langevin conserves no angular momentum: its noise turns a cluster at once; leave this out"
            )
        return value

    def drift(
        self, motion: Motion, x: torch.Tensor, velocity: torch.Tensor, state: DynamicsState
    ) -> tuple[torch.Tensor, torch.Tensor, DynamicsState]:
        """Return the next point, velocity and state: half a drift, friction and noise, half a drift."""
        landscape, half = motion.landscape, 0.5 * motion.time
        x, velocity = motion.moved(x, velocity, half)
        decay = torch.exp(-numbers(self.friction, landscape.segments, x) * motion.time)
        width = ((1.0 - decay * decay) * self.thermal(motion)).sqrt()
        draws = Draws(state.key, state.counter, landscape.segments)
        noise = thermal_noise(landscape, x, draws, width)
        before = motion.kinetic(velocity)
        velocity = landscape.segments.scale(decay, velocity, noise)
        heat = state.heat + (motion.kinetic(velocity) - before)
        x, velocity = motion.moved(x, velocity, half)
        return x, velocity, replace(state, heat=heat, counter=draws.counter)

    def kernel(self) -> OptimizerKernel:
        """See `Optimizer.kernel`."""
        return self.kernel_with(drift=Kernel(thermostats.langevin, (self.friction, self.temperature)))
