"""Velocity Verlet: dynamics at constant energy."""

from __future__ import annotations

from typing import Self

from mlopt.core.kernels.kernel import OptimizerKernel
from mlopt.core.plugins.plugin import setting
from mlopt.optimizers.dynamics.integrator import Integrator
from mlopt.optimizers.dynamics.mechanics import Setting


class VelocityVerlet(Integrator):
    """Newton's equations at constant number, volume and energy (NVE), by velocity Verlet.

    The total energy oscillates with an amplitude proportional to the square of the time step. It does not drift as long
    as the time step is well below 1/pi of the shortest period. The temperature belongs to the initial velocities alone.
    A system that starts at a minimum keeps half of it, because the other half becomes potential energy.

    Source: Swope, Andersen, Berens & Wilson, J. Chem. Phys. 76, 637 (1982).
    """

    initial_temperature: float = setting(
        ..., "temperature of the initial velocities", unit="K, or reduced", ge=0
    )

    @property
    def set_temperature(self) -> Setting:
        """The temperature of the initial velocities."""
        return self.initial_temperature

    def at(self, temperature: Setting) -> Self:
        """Return this integrator with another temperature of the initial velocities."""
        return self.replace(initial_temperature=temperature)

    def kernel(self) -> OptimizerKernel:
        """See `Optimizer.kernel`."""
        return self.kernel_with()
