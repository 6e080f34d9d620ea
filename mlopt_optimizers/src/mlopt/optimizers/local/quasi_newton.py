"""The base of quasi-Newton methods: one evaluation per step, a limit on steps, and undoing of steps uphill.

A method defines in `_quasi_newton` what it learns from a step and its next direction.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self

from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import Optimizer, State, per_problem, per_row
from mlopt.optimizers.local.kernels.lbfgs import LEAST_RATIO, MAX_SHRINKS

#: cosine of the angle between a step and the change of the force, below which nothing is learned from a force that is
#: no gradient: its derivative is not symmetric, and pairs at large angles make directions that run away. Of 63 bands on
#: the Müller-Brown surface with a climbing image, 40 converge without this, and 59 with it (0.1 to 0.2 are alike)
_MIN_COSINE = 0.2


@dataclass(frozen=True)
class QuasiNewtonState(State):
    """The last accepted point, and the step tried from there.

    x, force (n_rows, d), energy (n,): the last accepted point.
    step (n_rows, d): the move tried from there.
    shrinks (n,) int64: how often the present step was shortened; -1 before the first evaluation.
    """

    x: torch.Tensor = per_row()
    force: torch.Tensor = per_row()
    energy: torch.Tensor = per_problem()
    step: torch.Tensor = per_row()
    shrinks: torch.Tensor = per_problem()


def beginning(landscape: Landscape, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the fields of `QuasiNewtonState` before the first evaluation."""
    n, zeros = landscape.segments.n_problems, torch.zeros_like(x)
    shrinks = torch.full((n,), -1, dtype=torch.int64, device=x.device)
    return {"x": x, "force": zeros, "energy": x.new_full((n,), torch.inf), "step": zeros, "shrinks": shrinks}


@dataclass(frozen=True)
class Change:
    """The result of a step, from which a method learns.

    s, y: (n_rows, d) the step, and the force before it minus that after it, both tangent at the new point.
    force: (n_rows, d) at the new point. learn: (n,) bool, true if there was a step and it was not undone.
    lost: (n,) bool, true where ever shorter steps still led uphill, so that the learned curvature is wrong.
    """

    s: torch.Tensor
    y: torch.Tensor
    force: torch.Tensor
    learn: torch.Tensor
    lost: torch.Tensor


def curved(landscape: Landscape, s: torch.Tensor, sy: torch.Tensor, yy: torch.Tensor) -> torch.Tensor:
    """Return (n,) bool, true where the curvature along the steps ``s (n_rows, d)`` is that of a minimum.

    sy, yy: (n,) products of step and change of force. Where the force is no gradient, their angle counts too.
    """
    if landscape.conservative:
        return sy > LEAST_RATIO * yy
    return sy > _MIN_COSINE * (yy * landscape.segments.dot(s, s)).sqrt()


class QuasiNewton(Optimizer):
    """The base of optimizers that step to the estimated zero of the force, by the curvature of earlier steps.

    No row moves farther than ``max_step``. There is no line search: a step that raises the energy is undone and
    repeated shorter, at one force call each. Where the force is no gradient (a band), energies are not compared.
    """

    max_step: float | None = setting(
        0.3, "largest displacement of a row in one step; none: no limit", unit="length", gt=0
    )
    scale: float = setting(0.014, "initial inverse curvature", unit="length^2/energy", gt=0)
    shrink: float = setting(0.2, "factor on a step that went uphill", gt=0, lt=1)
    rise: float = setting(1e-9, "rise in energy that is accepted, relative to 1 + |energy|", ge=0)

    @abstractmethod
    def _quasi_newton(
        self, landscape: Landscape, x: torch.Tensor, state: Any, change: Change
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the step (n_rows, d) before any limit, and the fields of the state that hold the learned curvature."""
        raise NotImplementedError(f"{type(self).__name__} must define `_quasi_newton`")

    def tolerating(self, rise: float) -> Self:
        """See `Optimizer.tolerating`: raise the setting `rise` to at least this."""
        return self if rise <= self.rise else self.replace(rise=rise)

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """Accept the point and take a quasi-Newton step, or go back and try a shorter one."""
        segments, manifold = landscape.segments, landscape.manifold
        energy, force = evaluation.energy, evaluation.force
        began = state.shrinks >= 0
        back = torch.zeros_like(began)
        if landscape.conservative:
            allowed = state.energy + self.rise * (1.0 + state.energy.abs())
            back = began & (state.shrinks < MAX_SHRINKS) & (energy > allowed)

        s = manifold.transport(state.x, x, manifold.difference(state.x, x))
        y = manifold.transport(state.x, x, state.force) - force
        shrinks = torch.zeros_like(state.shrinks)
        here, gone = x, bool(back.any())
        if gone:  # to the old point, with what was known there
            rows = segments.rows_of(back)[:, None]
            here = torch.where(rows, state.x, x)
            y = torch.where(rows, 0.0, y)  # the force is again that of before
        learn = began & ~back
        lost = learn & (state.shrinks >= MAX_SHRINKS)
        step, learned = self._quasi_newton(landscape, here, state, Change(s, y, force, learn, lost))
        step = manifold.project(here, segments.scale(self._factor(landscape, step, force), step))
        if gone:
            force = torch.where(rows, state.force, force)
            energy = torch.where(back, state.energy, energy)
            step = torch.where(rows, self.shrink * state.step, step)
            shrinks = torch.where(back, state.shrinks + 1, 0)
        new = replace(state, x=here, force=force, energy=energy, step=step, shrinks=shrinks, **learned)
        return manifold.retract(here, step), new

    def _factor(self, landscape: Landscape, step: torch.Tensor, force: torch.Tensor) -> torch.Tensor:
        """Return (n,) the factors that keep steps (n_rows, d) below ``max_step`` and turn them downhill."""
        segments = landscape.segments
        downhill = torch.where(segments.dot(step, force) < 0, -1.0, 1.0).to(step.dtype)
        if self.max_step is None:
            return downhill
        longest = segments.longest2(step).sqrt()
        return (self.max_step / longest.clamp(min=self.max_step)) * downhill
