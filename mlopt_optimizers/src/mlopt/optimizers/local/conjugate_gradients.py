"""Nonlinear conjugate gradients, with a line search that takes one evaluation a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import Optimizer, State, per_problem, per_row

#: after so many trials along one line the last point is taken, and the next line follows the force
_MOST_TRIALS = 12
#: a trial keeps this part of the bracket away from both of its ends
_MARGIN = 0.1
#: a trial farther out is at most so many times as far as the last one
_GROWTH = 5.0
#: directions are given up where consecutive forces are less orthogonal than this (Powell's restart)
_ORTHOGONAL = 0.2
#: a direction is given up where the cosine of its angle to the force is below this
_LEAST_COSINE = 1e-3


@dataclass(frozen=True)
class ConjugateGradientsState(State):
    """The line that is searched: its beginning, its direction, and the bracket around its minimum.

    x, force, direction: (n_rows, d), energy: (n,), at the beginning. slope: (n,) force . direction there, positive.
    length: (n,) of the trial; points of the line are ``x + length * direction``.
    low, low_energy, low_slope: (n,) the farthest trial up to which the energy falls; 0 for the beginning.
    high, high_energy, high_slope: (n,) the nearest trial that was too far; infinite, 0 and 0 before there is one.
    trials: (n,) int64, number along this line; -1 before the first evaluation.
    """

    x: torch.Tensor = per_row()
    force: torch.Tensor = per_row()
    direction: torch.Tensor = per_row()
    energy: torch.Tensor = per_problem()
    slope: torch.Tensor = per_problem()
    length: torch.Tensor = per_problem()
    low: torch.Tensor = per_problem()
    low_energy: torch.Tensor = per_problem()
    low_slope: torch.Tensor = per_problem()
    high: torch.Tensor = per_problem()
    high_energy: torch.Tensor = per_problem()
    high_slope: torch.Tensor = per_problem()
    trials: torch.Tensor = per_problem()


class ConjugateGradients(Optimizer):
    """Conjugate gradients (Polak & Ribière) with restarts: directions follow Nocedal & Wright, eq. 5.44 and 5.52.

    Each evaluation is a trial on a line. Two conditions accept a trial (strong Wolfe, up to rounding). The energy must
    not exceed that at the beginning of the line, and the slope must be at most ``accuracy`` of that there. Otherwise
    the next trial is the minimum of a cubic through the ends of the bracket (eq. 3.59), or, without a bracket, a
    farther point. No trial moves a row farther than ``max_step`` from the beginning of its line. Where the force is no
    gradient, energies are not compared, and lines end where the force along them vanishes.
    """

    max_step: float | None = setting(
        0.3, "largest displacement of a row along one line; none: no limit", unit="length", gt=0
    )
    scale: float = setting(0.014, "the first trial is this times the force", unit="length^2/energy", gt=0)
    accuracy: float = setting(0.2, "slope left at the end of a line, relative to its beginning", gt=0, lt=1)
    rise: float = setting(1e-9, "rise in energy that is let pass, relative to 1 + |energy|", ge=0)

    def tolerating(self, rise: float) -> Self:
        """See `Optimizer.tolerating`: raise the setting `rise` to at least this."""
        return self if rise <= self.rise else self.replace(rise=rise)

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> ConjugateGradientsState:
        """Return the state before the first line."""
        zeros, none = torch.zeros_like(x), x.new_zeros(landscape.segments.n_problems)
        return ConjugateGradientsState(
            x=x,
            force=zeros,
            direction=zeros,
            energy=none,
            slope=none,
            length=none,
            low=none,
            low_energy=none,
            low_slope=none,
            high=none,
            high_energy=none,
            high_slope=none,
            trials=torch.full_like(none, -1, dtype=torch.int64),
        )

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: ConjugateGradientsState
    ) -> tuple[torch.Tensor, ConjugateGradientsState]:
        """Begin a line at the point, or try another point of the present line."""
        segments, manifold = landscape.segments, landscape.manifold
        along = manifold.transport(state.x, x, state.direction)
        slope = segments.dot(evaluation.force, along)
        down = torch.ones_like(slope, dtype=torch.bool)
        if landscape.conservative:
            down = evaluation.energy <= state.energy + self.rise * (1.0 + state.energy.abs())
        limit = self._limit(landscape, state.direction)
        level = slope.abs() <= self.accuracy * state.slope
        at_limit = (state.length >= limit) & (slope > 0)
        began, tired = state.trials >= 0, state.trials >= _MOST_TRIALS
        take = ~began | (down & (level | at_limit)) | tired
        tried = self._tried(landscape, evaluation.energy, slope, down, limit, state)
        if not bool(take.any()):
            new = tried
        else:
            new = self._line(landscape, x, evaluation, along, began & ~(tired & ~down), state)
            new = new.where(take, tried, segments)
        return manifold.retract(new.x, segments.scale(new.length, new.direction)), new

    def _limit(self, landscape: Landscape, direction: torch.Tensor) -> torch.Tensor:
        """Return the length (n,) along ``direction (n_rows, d)`` at which a row has moved by ``max_step``."""
        longest = landscape.segments.longest2(direction).sqrt()
        if self.max_step is None:
            return torch.full_like(longest, math.inf)
        return self.max_step / longest

    def _line(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        evaluation: Evaluation,
        along: torch.Tensor,
        follows: torch.Tensor,
        state: ConjugateGradientsState,
    ) -> ConjugateGradientsState:
        """Begin new lines at ``x (n_rows, d)``, conjugate to the last ones ``along`` where ``follows (n,)`` bool."""
        segments, force = landscape.segments, evaluation.force
        before = landscape.manifold.transport(state.x, x, state.force)
        products = torch.stack([force * force, force * before, before * before, force * along])
        now, cross, then, ahead = segments.sum_stack(products).unbind(1)
        beta = ((now - cross) / then).clamp(min=0.0)
        slope = now + beta * ahead
        direction = segments.scale(torch.where(follows, beta, 0.0), along, force)
        longer = segments.dot(direction, direction)
        good = follows & (cross.abs() < _ORTHOGONAL * now) & (slope > _LEAST_COSINE * (now * longer).sqrt())
        direction = torch.where(segments.rows_of(good)[:, None], direction, force)
        slope = torch.where(good, slope, now)
        # the first trial expects the same fall in energy as along the last line
        length = torch.where(follows & (slope > 0), state.length * state.slope / slope, self.scale)
        limit = self._limit(landscape, direction)
        none = torch.zeros_like(slope)
        return ConjugateGradientsState(
            x=x,
            force=force,
            direction=direction,
            energy=evaluation.energy,
            slope=slope,
            length=torch.minimum(length, limit),
            low=none,
            low_energy=evaluation.energy,
            low_slope=slope,
            high=torch.full_like(none, math.inf),
            high_energy=none,
            high_slope=none,
            trials=torch.zeros_like(state.trials),
        )

    def _tried(
        self,
        landscape: Landscape,
        energy: torch.Tensor,
        slope: torch.Tensor,
        down: torch.Tensor,
        limit: torch.Tensor,
        state: ConjugateGradientsState,
    ) -> ConjugateGradientsState:
        """Return the state with the trial in the bracket and another trial chosen."""
        raised = self.rise * (1.0 + state.energy.abs())
        far = ~down | (slope <= 0)
        if landscape.conservative:
            far = far | (energy > state.low_energy + raised)
        low = torch.where(far, state.low, state.length)
        low_energy = torch.where(far, state.low_energy, energy)
        low_slope = torch.where(far, state.low_slope, slope)
        high = torch.where(far, state.length, state.high)
        high_energy = torch.where(far, energy, state.high_energy)
        high_slope = torch.where(far, slope, state.high_slope)

        # without a bracket: to where the slope, as a line through the last two, vanishes
        gone = state.length - state.low
        secant = state.length + gone * slope / (state.low_slope - slope)
        secant = torch.where(slope < state.low_slope, secant, math.inf)
        outward = secant.clamp(min=(1.0 + _MARGIN) * state.length, max=_GROWTH * state.length)

        width = high - low
        line = torch.where(high_slope < 0, low_slope / (low_slope - high_slope), 0.5)
        part = line
        if landscape.conservative:
            # of the cubic, eq. 3.59, with slopes downhill counted positive
            d1 = -(low_slope + high_slope) + 3.0 * (low_energy - high_energy) / width
            root = (d1 * d1 - low_slope * high_slope).clamp(min=0.0).sqrt()
            cubic = 1.0 - (root - d1 - high_slope) / (2.0 * root - high_slope + low_slope)
            told = ((high_energy - low_energy).abs() > raised) & torch.isfinite(cubic)
            part = torch.where(told, cubic, line)
        inward = low + part.clamp(min=_MARGIN, max=1.0 - _MARGIN) * width
        length = torch.where(torch.isfinite(high), inward, torch.minimum(outward, limit))
        return ConjugateGradientsState(
            x=state.x,
            force=state.force,
            direction=state.direction,
            energy=state.energy,
            slope=state.slope,
            length=length,
            low=low,
            low_energy=low_energy,
            low_slope=low_slope,
            high=high,
            high_energy=high_energy,
            high_slope=high_slope,
            trials=state.trials + 1,
        )
