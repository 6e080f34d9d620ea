"""Nosé-Hoover chains: deterministic dynamics at constant temperature."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlopt.core.kernels.kernel import Kernel, OptimizerKernel
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import per_problem
from mlopt.optimizers.dynamics.integrator import DynamicsState, Motion, Thermostatted
from mlopt.optimizers.dynamics.kernels import thermostats
from mlopt.optimizers.dynamics.mechanics import numbers

#: weights of the three parts of a fourth-order Suzuki-Yoshida step
WEIGHT = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))


@dataclass(frozen=True)
class NoseHooverState(DynamicsState):
    """Dynamics with a chain of thermostats.

    rates (n, chain): d(eta)/dt of the thermostats, one over time.
    """

    rates: torch.Tensor = per_problem()


class NoseHoover(Thermostatted):
    """Nosé-Hoover chains (NVT): a thermostat that is a chain of extra degrees of freedom, without random numbers.

    The kinetic energy scatters canonically if the system is ergodic; a single stiff oscillator with a short chain is
    not. Momenta are conserved. The thermostats act for half a time step at both ends of velocity Verlet, by a
    Suzuki-Yoshida splitting of three parts, as in ASE. Their masses are ``f kT t^2`` for the first and ``kT t^2`` for
    the others, with the relaxation time t and f degrees of freedom.

    Source: Martyna, Tuckerman, Tobias & Klein, Mol. Phys. 87, 1117 (1996), section 4.
    """

    relaxation_time: float = setting(
        ..., "period scale of the thermostats; about 100 time steps", unit="fs, or reduced", gt=0
    )
    temperature: float = setting(..., "temperature of the thermostat", unit="K, or reduced", gt=0)
    chain: int = setting(3, "number of thermostats in the chain", ge=1, le=20)

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> NoseHooverState:
        """Return the state at ``x``, with thermostats at rest."""
        rates = x.new_zeros(landscape.segments.n_problems, self.chain)
        return NoseHooverState(**vars(self.begun(landscape, x, key)), rates=rates)

    def end_step(
        self, motion: Motion, velocity: torch.Tensor, state: NoseHooverState
    ) -> tuple[torch.Tensor, NoseHooverState]:
        """Let the thermostats act for the second half of a step, unless it is the start."""
        return self._act(motion, velocity, state.kick, state)

    def begin_step(
        self, motion: Motion, velocity: torch.Tensor, state: NoseHooverState
    ) -> tuple[torch.Tensor, NoseHooverState]:
        """Let the thermostats act for the first half of a step."""
        return self._act(motion, velocity, 0.5 * motion.time, state)

    def _act(
        self, motion: Motion, velocity: torch.Tensor, time: torch.Tensor, state: NoseHooverState
    ) -> tuple[torch.Tensor, NoseHooverState]:
        """Let the thermostats act for ``time (n,)``."""
        segments = motion.landscape.segments
        relaxation = numbers(self.relaxation_time, segments, velocity)
        chain = _Chain(self.thermal(motion), 1.0 / (relaxation * relaxation), state.freedom)
        kinetic, factor = motion.kinetic(velocity), torch.ones_like(time)
        twice, rates = 2.0 * kinetic, list(state.rates.unbind(1))
        for weight in (WEIGHT, 1.0 - 2.0 * WEIGHT, WEIGHT):
            part = weight * time
            for j in reversed(range(self.chain)):
                rates[j] = chain.turned(rates, j, twice, part)
            shrink = torch.exp(-part * rates[0])
            factor, twice = factor * shrink, twice * shrink * shrink
            for j in range(self.chain):
                rates[j] = chain.turned(rates, j, twice, part)
        heat = state.heat + (0.5 * twice - kinetic)
        state = replace(state, heat=heat, rates=torch.stack(rates, 1))
        return segments.scale(factor, velocity), state

    def kernel(self) -> OptimizerKernel:
        """See `Optimizer.kernel`."""
        settings = (self.temperature, self.relaxation_time)
        chain = Kernel(thermostats.nose_hoover, settings, {"CHAIN": self.chain})
        return self.kernel_with(end_step=chain, begin_step=chain)


@dataclass(frozen=True)
class _Chain:
    """A chain of thermostats, all (n,). thermal: kT. stiffness: one over the relaxation time squared. freedom: f."""

    thermal: torch.Tensor
    stiffness: torch.Tensor
    freedom: torch.Tensor

    def turned(
        self, rates: list[torch.Tensor], j: int, twice: torch.Tensor, part: torch.Tensor
    ) -> torch.Tensor:
        """Return the rate (n,) of thermostat ``j`` after half of ``part``, driven by the one before it.

        twice: twice the kinetic energy (n,).
        """
        many = self.freedom.clamp(min=1.0)
        if j == 0:
            push = (twice / self.thermal - self.freedom) / many * self.stiffness
        else:
            push = (many if j == 1 else 1.0) * rates[j - 1] * rates[j - 1] - self.stiffness
        if j + 1 == len(rates):
            return rates[j] + 0.5 * part * push
        drag = torch.exp(-0.25 * part * rates[j + 1])
        return (rates[j] * drag + 0.5 * part * push) * drag
