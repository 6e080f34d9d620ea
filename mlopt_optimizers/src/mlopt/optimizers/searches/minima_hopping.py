"""Minima hopping: escape by molecular dynamics, with a memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlopt.core.batch.random import Draws
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import per_problem, per_row
from mlopt.optimizers.searches.quenching import Quenching, QuenchingState, mean_squares

#: what a problem is doing: the phase in the state
_QUENCH, _SOFTEN, _DYNAMICS = 0, 1, 2
#: visited minima that are remembered, by energy; the oldest are forgotten
_MEMORY = 256


@dataclass(frozen=True)
class MinimaHoppingState(QuenchingState):
    """A search between two steps.

    phase, calls (n,) int64: the phase of each problem, and the force calls since it began.
    velocity (n_rows, d): velocity at the half step before the point.
    last (n,): potential energy one step ago.
    falling (n,) bool: whether the energy fell in that step.
    dips (n,) int64: minima of the potential energy that this trajectory has passed.
    temperature, threshold (n,): temperature of the escapes, and the rise in energy that is accepted.
    visited (n, 256), hops (n,) int64: energies of minima in the order of the visits, and the number of visits.
    """

    phase: torch.Tensor = per_problem()
    calls: torch.Tensor = per_problem()
    velocity: torch.Tensor = per_row()
    last: torch.Tensor = per_problem()
    falling: torch.Tensor = per_problem()
    dips: torch.Tensor = per_problem()
    temperature: torch.Tensor = per_problem()
    threshold: torch.Tensor = per_problem()
    visited: torch.Tensor = per_problem()
    hops: torch.Tensor = per_problem()


class MinimaHopping(Quenching):
    """Minima hopping (Goedecker, J. Chem. Phys. 120, 9911 (2004)).

    From the current minimum, velocities are drawn at a temperature and followed by velocity Verlet, with unit masses
    and one evaluation per step. When the potential energy has passed ``dips`` minima, a quench follows.

    The temperature is multiplied by ``beta_same`` after a return to the current minimum, and by ``beta_old`` after a
    visit to a known one. After a new minimum it is multiplied by ``beta_new``. Another minimum is accepted if it is
    less than a threshold higher. The threshold is then multiplied by ``alpha_accept``, else by ``alpha_reject``.
    Factors are those of ASE.

    Two minima count as the same if their energies agree to ``same_energy`` (as in the paper). The last 256 are
    remembered. With ``softening`` > 0 the velocities are first turned towards soft modes, one evaluation per turn.
    Source: Schönborn et al., J. Chem. Phys. 130, 144108 (2009), after Sicher et al. A trajectory or quench that becomes
    non-finite starts again from the current minimum.
    """

    temperature: float = setting(0.5, "initial kinetic temperature of escapes", unit="energy", gt=0)
    threshold: float = setting(1.0, "initial rise in energy that is accepted", unit="energy", gt=0)
    dips: int = setting(2, "minima of the potential energy along a trajectory before it is quenched", ge=1)
    dt: float = setting(0.02, "time step of the dynamics", unit="length * sqrt(mass / energy)", gt=0)
    dynamics_calls: int = setting(200, "largest number of force calls of a trajectory", ge=1)
    softening: int = setting(0, "evaluations that turn the velocities towards soft modes", ge=0)
    soft_length: float = setting(0.05, "displacement at which softness is measured", unit="length", gt=0)
    soft_step: float = setting(0.002, "step of the softening", unit="length^2/energy", gt=0)
    same_energy: float = setting(
        1e-3, "energy difference below which minima are the same", unit="energy", gt=0
    )
    beta_same: float = setting(1.1, "factor on the temperature after returning to the current minimum", ge=1)
    beta_old: float = setting(1.1, "factor on the temperature after visiting a known minimum", ge=1)
    beta_new: float = setting(1 / 1.1, "factor on the temperature after finding a new minimum", gt=0, le=1)
    alpha_accept: float = setting(0.98, "factor on the threshold after accepting", gt=0, le=1)
    alpha_reject: float = setting(1 / 0.98, "factor on the threshold after rejecting", ge=1)

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> MinimaHoppingState:
        """Return the state before the first quench."""
        n = landscape.segments.n_problems
        integers = torch.zeros(n, dtype=torch.int64, device=x.device)
        return MinimaHoppingState(
            **self.begun(landscape, x, key),
            phase=integers + _QUENCH,
            calls=integers,
            velocity=torch.zeros_like(x),
            last=x.new_full((n,), torch.inf),
            falling=integers.bool(),
            dips=integers,
            temperature=x.new_ones(n) * self.temperature,
            threshold=x.new_ones(n) * self.threshold,
            visited=x.new_full((n, _MEMORY), torch.inf),
            hops=integers,
        )

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: MinimaHoppingState
    ) -> tuple[torch.Tensor, MinimaHoppingState]:
        """Carry every problem's phase on by one evaluation.

        A trajectory that has passed enough dips turns into a quench at this very point. A quench that has ended turns
        into a new escape. So no evaluation is spent on changing phase.
        """
        segments = landscape.segments
        state = replace(state, calls=state.calls + 1)
        mean2, sound = mean_squares(landscape, evaluation)
        moved, state = self._follow(landscape, x, evaluation, state)
        moved, state = self._soften(landscape, moved, evaluation, state)
        landed = sound & (state.phase == _DYNAMICS)
        landed = landed & ((state.dips >= self.dips) | (state.calls >= self.dynamics_calls))
        quenching = state.phase == _QUENCH
        ended = quenching & ((mean2 <= self.quench_tolerance**2) | (state.calls >= self.quench_calls)) & sound
        inner = state.inner
        if bool(landed.any()):
            inner = self.quench.init(landscape, x, state.key).where(landed, inner, segments)
            state = replace(
                state,
                phase=state.phase.masked_fill(landed, _QUENCH),
                calls=state.calls.masked_fill(landed, 0),
            )
        if bool((quenching | landed).any()):
            downhill, inner = self.quench.step(landscape, x, evaluation, inner)
            moved = torch.where(segments.rows_of(quenching | landed)[:, None], downhill, moved)
        state = replace(state, inner=inner, arrived=ended, found_energy=evaluation.energy, found_x=x)
        leaving = ended | ~sound
        if bool(leaving.any()):
            problems = torch.nonzero(leaving).flatten()
            part, (_, rows) = landscape.select(problems), segments.select(problems)
            judged = self._judge(part, x[rows], evaluation.energy[problems], state.select(problems, rows))
            there, judged = self._escape(part, judged)
            moved, state = moved.index_copy(0, rows, there), state.put(problems, rows, judged)
        return moved, state

    def _follow(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: MinimaHoppingState
    ) -> tuple[torch.Tensor, MinimaHoppingState]:
        """Take a leapfrog step for problems in the phase of dynamics, and count dips of the potential energy."""
        moving = state.phase == _DYNAMICS
        if not bool(moving.any()):
            return x, state
        rows = landscape.segments.rows_of(moving)[:, None]
        falls = evaluation.energy < state.last
        passed = moving & state.falling & ~falls
        velocity = state.velocity + self.dt * evaluation.force
        there = landscape.manifold.retract(x, self.dt * velocity)
        velocity = landscape.manifold.transport(x, there, velocity)
        return torch.where(rows, there, x), replace(
            state,
            velocity=torch.where(rows, velocity, state.velocity),
            last=torch.where(moving, evaluation.energy, state.last),
            falling=torch.where(moving, falls, state.falling),
            dips=state.dips + passed,
        )

    def _soften(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: MinimaHoppingState
    ) -> tuple[torch.Tensor, MinimaHoppingState]:
        """Turn velocities by the force across them at a point ahead, and set out after the last turn."""
        turning = state.phase == _SOFTEN
        if not bool(turning.any()):
            return x, state
        segments, manifold, velocity = landscape.segments, landscape.manifold, state.velocity
        speed2 = segments.dot(velocity, velocity).clamp(min=torch.finfo(x.dtype).tiny)
        force = manifold.transport(x, state.x, evaluation.force)
        along = segments.dot(force, velocity) / speed2
        across = force - segments.scale(along, velocity)
        ahead = segments.scale(self.soft_length / speed2.sqrt(), velocity) + self.soft_step * across
        length = segments.dot(ahead, ahead).clamp(min=torch.finfo(x.dtype).tiny).sqrt()
        turned = segments.scale(speed2.sqrt() / length, ahead)
        done = state.calls >= self.softening
        reach = torch.where(done, self.dt * torch.ones_like(speed2), self.soft_length / speed2.sqrt())
        there = manifold.retract(state.x, segments.scale(reach, turned))
        rows = segments.rows_of(turning)[:, None]
        set_out = turning & done
        carried = torch.where(
            segments.rows_of(set_out)[:, None], manifold.transport(state.x, there, turned), turned
        )
        return torch.where(rows, there, x), replace(
            state,
            velocity=torch.where(rows, carried, velocity),
            phase=state.phase.masked_fill(set_out, _DYNAMICS),
            calls=state.calls.masked_fill(set_out, 0),
        )

    def _judge(
        self, landscape: Landscape, x: torch.Tensor, energy: torch.Tensor, state: MinimaHoppingState
    ) -> MinimaHoppingState:
        """Compare a minimum at ``x (n_rows, d)``, if any, with the current and known ones. Accept or not."""
        first = torch.isinf(state.energy)
        gap = energy - state.energy
        same = state.arrived & (gap.abs() < self.same_energy)
        known = ((state.visited - energy[:, None]).abs() < self.same_energy).any(-1)
        other = state.arrived & ~same
        factor = torch.where(same, self.beta_same, torch.where(known, self.beta_old, self.beta_new))
        accept = other & (first | (gap < state.threshold))
        change = torch.where(accept, self.alpha_accept, self.alpha_reject)
        rows = landscape.segments.rows_of(accept)[:, None]
        slot = torch.arange(_MEMORY, device=energy.device) == (state.hops % _MEMORY)[:, None]
        note = slot & (other & ~known)[:, None]
        return replace(
            state,
            x=torch.where(rows, x, state.x),
            energy=torch.where(accept, energy, state.energy),
            temperature=torch.where(state.arrived & ~first, state.temperature * factor, state.temperature).to(
                x
            ),
            threshold=torch.where(other & ~first, state.threshold * change, state.threshold).to(x),
            visited=torch.where(note, energy[:, None], state.visited),
            hops=state.hops + (other & ~known),
        )

    def _escape(
        self, landscape: Landscape, state: MinimaHoppingState
    ) -> tuple[torch.Tensor, MinimaHoppingState]:
        """Draw velocities and set out from the current minimum. Its force, below the tolerance, is left out."""
        segments, manifold, x = landscape.segments, landscape.manifold, state.x
        draws = Draws(state.key, state.counter, segments)
        velocity = draws.normal_rows(x.shape[1]).to(x)
        if landscape.fixed is not None:
            velocity = velocity.masked_fill(landscape.fixed[:, None], 0.0)
        elif landscape.diameter is not None:  # a drift of all atoms together would be wasted
            velocity = velocity - segments.rows_of(segments.mean_rows(velocity))
        velocity = segments.scale(state.temperature.sqrt(), manifold.project(x, velocity))
        reach = state.temperature.new_full(state.temperature.shape, self.dt)
        if self.softening:
            speed = segments.dot(velocity, velocity).clamp(min=torch.finfo(x.dtype).tiny).sqrt()
            reach = self.soft_length / speed
        there = manifold.retract(x, segments.scale(reach, velocity))
        if not self.softening:
            velocity = manifold.transport(x, there, velocity)
        zeros = torch.zeros_like(state.phase)
        return there, replace(
            state,
            counter=draws.counter,
            phase=zeros + (_SOFTEN if self.softening else _DYNAMICS),
            calls=zeros,
            velocity=velocity,
            last=state.energy,
            falling=zeros.bool(),
            dips=zeros,
        )
