"""FIRE, the fast inertial relaxation engine, in three versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import model_validator

from mlopt.core.kernels.kernel import Kernel, OptimizerKernel
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import Optimizer, State, per_problem, per_row
from mlopt.optimizers.local.kernels import fire as kernels
from mlopt.optimizers.local.kernels.fire import TINY

#: variant -> published delay (N_min) and alpha_start
_PUBLISHED: dict[str, tuple[int, float]] = {"original": (5, 0.1), "2.0": (20, 0.25), "ase": (5, 0.1)}


@dataclass(frozen=True)
class FireState(State):
    """The dynamics of FIRE between two steps.

    velocity (n_rows, d): at the half step before the point in "original", else at the last step.
    dt, alpha (n,): present time step and mixing.
    kick (n,): time for which the force at this point has still to act on the velocity, in "original" alone.
    downhill (n,) int64: steps since the power was last not positive.
    age (n,) int64: all steps, counted by "2.0" alone.
    """

    velocity: torch.Tensor = per_row()
    dt: torch.Tensor = per_problem()
    kick: torch.Tensor = per_problem()
    alpha: torch.Tensor = per_problem()
    downhill: torch.Tensor = per_problem()
    age: torch.Tensor = per_problem()


class Fire(Optimizer):
    """FIRE: molecular dynamics with unit masses that is steered downhill, each problem with a time step of its own.

    While the power P = F.v is positive, velocities are mixed, ``v <- (1 - alpha) v + alpha |v| F/|F|``. After ``delay``
    such steps the time step grows and alpha shrinks. Where P <= 0, velocities are zeroed, the time step is cut and
    alpha reset. ``variant`` chooses the version:

    - ``original``: Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), on velocity Verlet (as JAX-MD, hence Learn2Hop).
    - ``2.0``: Guénolé et al., Comput. Mater. Sci. 175, 109584 (2020): semi-implicit Euler with the mixing after the
      kick, and half a step back where P <= 0. The time step is not cut during the first ``delay`` steps, and not to
      below ``dt_min``. As in their paper, forces are not evaluated again after the step back. Their stop after many
      steps with P <= 0 is left out, because stopping belongs to the driver.
    - ``ase``: `ase.optimize.FIRE`: semi-implicit Euler with the mixing before the kick. Growth starts one step later.
      ``max_step`` limits the norm of the displacement of the whole problem and leaves the velocity as it is.

    Neither paper limits displacements. Here ``max_step`` does (None: no limit), because random starts have enormous
    forces. In the first two versions it shortens the velocity of a problem, so that no row moves farther.

    Time is in length * sqrt(mass / energy) with mass 1. A pair at the Lennard-Jones minimum vibrates with period 0.52
    (r0 = epsilon = 1), and the stiffest mode of a compact cluster with 0.17. Steps beyond 1/pi of that (0.054) cannot
    follow it, which gives the defaults. For a pair of stiffness k, scale all times by sqrt(72 / k).

    Numbers of force calls from a soft-sphere start to a largest force of 1e-3: "original" takes about 230 for LJ13, 340
    for LJ38, and 390 for LJ75. "2.0" takes about as many with ``alpha`` 0.1, and more with its published 0.25.

    Steps can be differentiated through `unroll` between changes of the sign of P, which are jumps.
    """

    variant: Literal["original", "2.0", "ase"] = setting("original", "version of the algorithm")
    dt: float = setting(0.02, "initial time step", unit="time", gt=0)
    dt_max: float = setting(0.04, "largest time step", unit="time", gt=0)
    dt_min: float = setting(2e-4, "smallest time step, for 2.0 only", unit="time", ge=0)
    max_step: float | None = setting(
        0.1, "largest displacement in one step; none: no limit", unit="length", gt=0
    )
    delay: int | None = setting(
        None, "downhill steps before the time step grows; none: as published, 5, and 20 in 2.0", ge=0
    )
    alpha: float | None = setting(
        None,
        "mixing at the start and after going uphill; none: as published, 0.1, and 0.25 in 2.0",
        ge=0,
        le=1,
    )
    grow: float = setting(1.1, "factor on the time step while going downhill", ge=1)
    cut: float = setting(0.5, "factor on the time step after going uphill", gt=0, lt=1)
    fade: float = setting(0.99, "factor on the mixing while going downhill", gt=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.dt_min <= self.dt <= self.dt_max:
            raise ValueError(
                f"dt must lie between dt_min and dt_max, got dt_min {self.dt_min}, dt {self.dt}, dt_max {self.dt_max}"
            )
        return self

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> FireState:
        """Return the state at rest.

        Without velocity the first step finds P = 0 and cuts the time step, which no paper intends. So the time step
        starts larger by as much, except in "2.0", which does not cut so early.
        """
        zeros = x.new_zeros(landscape.segments.n_problems)
        return FireState(
            velocity=torch.zeros_like(x),
            dt=zeros + (self.dt if self.variant == "2.0" else self.dt / self.cut),
            kick=zeros,
            alpha=zeros + self._alpha,
            downhill=zeros.to(torch.int64),
            age=zeros.to(torch.int64),
        )

    @property
    def _alpha(self) -> float:
        return _PUBLISHED[self.variant][1] if self.alpha is None else self.alpha

    @property
    def _delay(self) -> int:
        return _PUBLISHED[self.variant][0] if self.delay is None else self.delay

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: FireState
    ) -> tuple[torch.Tensor, FireState]:
        """Steer, kick, and drift.

        In every version the new velocity is ``a w + b F``, of the old velocity w and the force F. All decisions need
        only the products F.F, F.w and w.w of each problem. So few operations run over rows, and the rest over problems.
        """
        segments, manifold, w = landscape.segments, landscape.manifold, state.velocity
        force = evaluation.force.contiguous()  # else every product below copies it again
        ff, fw, ww = segments.dot(force, force), segments.dot(force, w), segments.dot(w, w)
        kick, age = state.kick, state.age
        if self.variant == "original":  # the second half of the last step's kick is still due
            change = kick * ff
            power = fw + change
            ww = ww + kick * (fw + power)
        else:
            power = fw
        ahead = power > 0
        downhill = (state.downhill + 1) * ahead
        fast = downhill > self._delay + (self.variant == "ase")
        slower, held = state.dt * self.cut, ahead
        if self.variant == "2.0":
            slower, held, age = slower.clamp(min=self.dt_min), ahead | (age < self._delay), age + 1
        dt = torch.where(
            fast, (state.dt * self.grow).clamp(max=self.dt_max), torch.where(held, state.dt, slower)
        )
        alpha = torch.where(fast, state.alpha * self.fade, torch.where(ahead, state.alpha, self._alpha))
        if self.variant == "2.0":
            kicked = ww * ahead + dt * (dt * ff + 2.0 * fw * ahead)  # |ahead w + dt F|^2
            keep = 1.0 - alpha
            a, b = keep * ahead, keep * dt + alpha * _ratio(kicked, ff)
        else:
            a = (1.0 - state.alpha) * ahead
            b = state.alpha * _ratio(ww, ff) * ahead + dt
            if self.variant == "original":
                b, kick = b + (a * kick - 0.5 * dt), 0.5 * dt
        velocity = segments.scale(b, force, segments.scale(a, w))
        length = dt
        if self.max_step is not None and self.variant == "ase":
            norm = segments.dot(velocity, velocity).clamp(min=TINY).rsqrt()
            length = torch.minimum(dt, norm * self.max_step)
        elif (
            self.max_step is not None
        ):  # slow down as well, or the step back from a cut step would fling rows away
            rest = segments.longest2(velocity).clamp(min=TINY).rsqrt() * (self.max_step / dt)
            velocity = segments.scale(rest.clamp(max=1.0), velocity)
        move = segments.scale(length, velocity)
        if self.variant == "2.0":
            move = move + segments.scale((0.5 * ahead - 0.5) * dt, w)
        new_x = manifold.retract(x, move)
        return new_x, FireState(manifold.transport(x, new_x, velocity), dt, kick, alpha, downhill, age)

    def kernel(self) -> OptimizerKernel:
        """See `Optimizer.kernel`."""
        capped = self.max_step is not None
        settings = (
            *(self.dt, self.dt_max, self.dt_min, self.max_step if capped else 0.0),
            *(self._alpha, self.grow, self.cut, self.fade),
        )
        constants = {"VARIANT": list(_PUBLISHED).index(self.variant), "CAPPED": capped, "DELAY": self._delay}
        return OptimizerKernel(
            Kernel(kernels.init, settings, constants), Kernel(kernels.step, settings, constants)
        )


def _ratio(vv: torch.Tensor, ff: torch.Tensor) -> torch.Tensor:
    """Return |v| / |F| (n,), with finite value and derivative where nothing pulls or moves. vv, ff: (n,)."""
    return (vv.clamp(min=TINY) / (ff + TINY)).sqrt()
