"""Velocity projection, also called QuickMin: dynamics that keep the velocity along the force alone."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import Optimizer, State, per_row
from mlopt.optimizers.local.gradient_descent import shortened


@dataclass(frozen=True)
class VelocityProjectionState(State):
    """The velocity (n_rows, d) at the present point, after the last step."""

    velocity: torch.Tensor = per_row()


class VelocityProjection(Optimizer):
    """Newton's equations with unit masses, where the velocity is projected on the force before every step.

    A step is ``v <- F max(v.F, 0) / |F|^2 + dt F``, then ``x <- retract(x, dt v)``. Products run over the whole
    problem, such as a whole band. Nothing adapts: ``dt`` must stay below ``2 / sqrt(curvature)`` of the stiffest mode.
    For a curvature k, scale all times by ``1 / sqrt(k)``.

    Sources: Jónsson, Mills & Jacobsen, in Classical and Quantum Dynamics in Condensed Phase Simulations (1998),
    section 4. For spins Bessarab, Uzdin & Jónsson, Comput. Phys. Commun. 196, 335 (2015), who carry the velocity along
    by transport, as here.

    Steps can be differentiated through `unroll` between changes of the sign of v.F, where the velocity jumps to zero.
    """

    dt: float = setting(0.02, "time step", unit="time", gt=0)
    max_step: float | None = setting(
        0.1, "largest displacement of a row in one step; none: no limit", unit="length", gt=0
    )

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> VelocityProjectionState:
        """Return the state at rest."""
        return VelocityProjectionState(torch.zeros_like(x))

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: VelocityProjectionState
    ) -> tuple[torch.Tensor, VelocityProjectionState]:
        """Project, kick, and drift."""
        segments, manifold, force = landscape.segments, landscape.manifold, evaluation.force
        ff = segments.dot(force, force).clamp(min=torch.finfo(force.dtype).tiny)
        kept = segments.dot(state.velocity, force).clamp(min=0.0) / ff
        velocity = segments.scale(kept, force) + segments.spread(self.dt) * force
        move = segments.spread(self.dt) * velocity
        if self.max_step is not None:  # the velocity stays: along the force again, it is cut again
            move = shortened(segments, move, self.max_step)
        new_x = manifold.retract(x, move)
        return new_x, VelocityProjectionState(manifold.transport(x, new_x, velocity))
