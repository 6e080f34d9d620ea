"""The base of integrators, which move all rows by Newton's equations, with or without a thermostat."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from mlopt.core.batch.random import Draws
from mlopt.core.kernels.kernel import Kernel, OptimizerKernel
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import Optimizer, State, per_problem, per_row
from mlopt.optimizers.dynamics.kernels import integrator as kernels
from mlopt.optimizers.dynamics.mechanics import (
    Setting,
    conserved_motions,
    degrees_of_freedom,
    half_square,
    numbers,
    thermal_velocities,
)


@dataclass(frozen=True)
class DynamicsState(State):
    """The motion of each problem between two steps.

    velocity (n_rows, d): velocity at the last point that was evaluated, at a full step. Before the first step it is
    that at the start.
    half (n_rows, d): velocity at the half step before the present point.
    kick (n,): time for which the force at the present point has still to act on ``half``. It is 0 before the first
    step, and half a time step afterwards.
    heat (n,): energy that the thermostat has given so far.
    conserved (n,): total energy at the last point that was evaluated, less the heat until then. It is constant, apart
    from an error of second order in the time step.
    freedom (n,): numbers of degrees of freedom, see `mlopt.optimizers.dynamics.mechanics.degrees_of_freedom`.
    key, counter (n,) int64: random numbers.
    """

    velocity: torch.Tensor = per_row()
    half: torch.Tensor = per_row()
    kick: torch.Tensor = per_problem()
    heat: torch.Tensor = per_problem()
    conserved: torch.Tensor = per_problem()
    freedom: torch.Tensor = per_problem()
    key: torch.Tensor = per_problem()
    counter: torch.Tensor = per_problem()

    def moving(self, velocity: torch.Tensor) -> Self:
        """Return the state before the first step with ``velocity (n_rows, d)`` in place of the one that was drawn."""
        return replace(self, velocity=velocity, half=velocity)


@dataclass(frozen=True)
class Motion:
    """A landscape with numbers in the dtype of its points.

    inertia (n_rows, 1): masses.
    time (n_problems,): time steps.
    """

    landscape: Landscape
    inertia: torch.Tensor
    time: torch.Tensor

    def kinetic(self, velocity: torch.Tensor) -> torch.Tensor:
        """Return the kinetic energy (n_problems,) of ``velocity (n_rows, d)``."""
        return half_square(self.landscape.segments, self.inertia, velocity)

    def moved(
        self, x: torch.Tensor, velocity: torch.Tensor, time: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the point to which ``velocity (n_rows, d)`` leads in ``time (n,)``, and the velocity there."""
        manifold = self.landscape.manifold
        new_x = manifold.retract(x, self.landscape.segments.scale(time, velocity))
        return new_x, manifold.transport(x, new_x, velocity)


class Integrator(Optimizer):
    """Base of integrators: velocity Verlet with one evaluation a step, and places for a thermostat.

    A step completes the half kick by the force at the present point, which makes velocities of that point. It then
    does the next half kick, and the drift to the next point (Swope et al., J. Chem. Phys. 76, 637 (1982)). A subclass
    overrides `end_step`, `begin_step` or `drift`.

    A run of n steps takes n + 1 force calls. No force ends it (`seeks`).
    """

    seeks: ClassVar[str] = "nothing"
    #: whether total momenta stay as they begin; initial velocities then have none, which lowers the degrees of freedom
    conserving: ClassVar[bool] = True

    time_step: float = setting(..., "time step", unit="fs, or reduced", gt=0)
    zero_rotation: bool = setting(
        False, "start free clusters without angular momentum, too; their momentum is always zero"
    )

    @property
    def set_temperature(self) -> Setting:
        """The temperature of the thermostat, or of the initial velocities where there is none; `at` changes it."""
        raise NotImplementedError(f"{type(self).__name__} must define `set_temperature`")

    @property
    def starting_temperature(self) -> Setting:
        """The temperature of the initial velocities."""
        return self.set_temperature

    def at(self, temperature: Setting) -> Self:
        """Return this integrator at another temperature; a tensor has one number for each problem."""
        raise NotImplementedError(f"{type(self).__name__} must define `at`")

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> Any:
        """Return the state at ``x``, with velocities from the Maxwell-Boltzmann distribution."""
        return self.begun(landscape, x, key)

    def begun(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> DynamicsState:
        """Return the state that all integrators share."""
        motions = x.new_zeros(0, *x.shape)
        if self.conserving:
            motions = conserved_motions(landscape, x, self.zero_rotation)
        draws = Draws(key, torch.zeros_like(key), landscape.segments)
        velocity = thermal_velocities(landscape, x, draws, self.starting_temperature, motions)
        zeros = x.new_zeros(landscape.segments.n_problems)
        return DynamicsState(
            velocity=velocity,
            half=velocity,
            kick=zeros,
            heat=zeros,
            conserved=zeros,
            freedom=degrees_of_freedom(landscape, x, motions),
            key=key,
            counter=draws.counter,
        )

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """Complete the last step by the force at ``x``, and make the next up to its second half kick."""
        segments = landscape.segments
        time = numbers(self.time_step, segments, x)
        motion = Motion(landscape, landscape.inertia.to(x)[:, None], time)
        acceleration = evaluation.force / motion.inertia
        velocity = segments.scale(state.kick, acceleration, state.half)
        velocity, state = self.end_step(motion, velocity, state)
        conserved = evaluation.energy + (motion.kinetic(velocity) - state.heat)
        state = replace(state, velocity=velocity, conserved=conserved)
        velocity, state = self.begin_step(motion, velocity, state)
        kick = 0.5 * time
        velocity = segments.scale(kick, acceleration, velocity)
        new_x, velocity, state = self.drift(motion, x, velocity, state)
        return new_x, replace(state, half=velocity, kick=kick)

    def kernel_with(self, **parts: Kernel) -> OptimizerKernel:
        """Return the kernel of velocity Verlet, with a thermostat as ``end_step``, ``begin_step`` or ``drift``.

        A subclass that changes one of these methods puts the same into its `kernel`.
        """
        step = Kernel(kernels.step, (self.time_step,), parts=parts)
        return OptimizerKernel(Kernel(kernels.init), step)

    def end_step(self, motion: Motion, velocity: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """Return ``velocity (n_rows, d)`` at the full step, and the state; ``state.kick`` is 0 at the first point."""
        return velocity, state

    def begin_step(self, motion: Motion, velocity: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """Return the velocity (n_rows, d) with which the next step begins, and the state."""
        return velocity, state

    def drift(
        self, motion: Motion, x: torch.Tensor, velocity: torch.Tensor, state: Any
    ) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Return the next point, the velocity there, both (n_rows, d), and the state."""
        new_x, velocity = motion.moved(x, velocity, motion.time)
        return new_x, velocity, state


class Thermostatted(Integrator):
    """Base of integrators with a thermostat."""

    temperature: float = setting(..., "temperature of the thermostat", unit="K, or reduced", ge=0)
    initial_temperature: float | None = setting(
        None,
        "temperature of the initial velocities; none: that of the thermostat",
        unit="K, or reduced",
        ge=0,
    )

    @property
    def starting_temperature(self) -> Setting:
        """The temperature of the initial velocities."""
        return self.temperature if self.initial_temperature is None else self.initial_temperature

    @property
    def set_temperature(self) -> Setting:
        """The temperature of the thermostat."""
        return self.temperature

    def at(self, temperature: Setting) -> Self:
        """Return this integrator at another temperature; a tensor has one number for each problem."""
        return self.replace(temperature=temperature)

    def thermal(self, motion: Motion) -> torch.Tensor:
        """Return kT (n_problems,) of the thermostat."""
        landscape = motion.landscape
        return landscape.boltzmann * numbers(self.temperature, landscape.segments, motion.time)
