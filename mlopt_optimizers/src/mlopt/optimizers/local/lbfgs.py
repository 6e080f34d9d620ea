"""L-BFGS without a line search. It takes one evaluation a step, caps steps, and takes back those that go uphill."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.core.batch.segments import Segments
from mlopt.core.kernels.kernel import Kernel, OptimizerKernel
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import Optimizer, State, per_problem, per_row
from mlopt.optimizers.local.kernels import lbfgs as kernels
from mlopt.optimizers.local.kernels.lbfgs import LEAST_RATIO, MAX_SHRINKS

#: cosine of the angle between a step and the change of the force, below which nothing is learned from a force that is
#: no gradient: its derivative is not symmetric, and pairs at large angles make directions that run away. Of 63 bands on
#: the Müller-Brown surface with a climbing image, 40 converge without this, and 59 with it (0.1 to 0.2 are alike)
_MIN_COSINE = 0.2


@dataclass(frozen=True)
class LBFGSState(State):
    """The last accepted point, the step tried from there, and the memory.

    x, force (n_rows, d), energy (n,): the last accepted point. step (n_rows, d): the move tried from there.
    history (2 m, n_rows, d): s_1..s_m, y_1..y_m, oldest first. Zeros stand for no information.
    sy, yy (n, m, m): products s_i . y_j for i <= j, zero below, and y_i . y_j.
    along (n, 2 m): products of the history with the force. scale (n,): the initial inverse curvature.
    shrinks (n,) int64: how often the present step was shortened; -1 before the first evaluation.
    """

    x: torch.Tensor = per_row()
    force: torch.Tensor = per_row()
    energy: torch.Tensor = per_problem()
    step: torch.Tensor = per_row()
    history: torch.Tensor = per_row(axis=1)
    sy: torch.Tensor = per_problem()
    yy: torch.Tensor = per_problem()
    along: torch.Tensor = per_problem()
    scale: torch.Tensor = per_problem()
    shrinks: torch.Tensor = per_problem()


@dataclass(frozen=True)
class _Memory:
    """The part of the state that holds what has been learned."""

    history: torch.Tensor
    sy: torch.Tensor
    yy: torch.Tensor
    along: torch.Tensor
    scale: torch.Tensor


class LBFGS(Optimizer):
    """Limited-memory BFGS (Liu & Nocedal, Math. Program. 45, 503 (1989)) as atomistic codes use it.

    The step is ``H force`` in the compact form of Byrd, Nocedal & Schnabel (Math. Program. 63, 129 (1994), eq. 3.5),
    scaled down so that no row moves farther than ``max_step``. There is no line search, as in GMIN and ASE: a step that
    raises the energy is taken back and tried again shorter, at one force call each. A step along negative curvature
    only teaches that steps may be longer. On a landscape whose force is no gradient (a band), energies are not
    compared, and a step at a large angle to the change of the force teaches nothing.
    """

    memory: int = setting(8, "pairs of steps and gradient changes that are remembered", ge=1, le=100)
    max_step: float = setting(0.3, "largest displacement of a row in one step", unit="length", gt=0)
    scale: float = setting(0.014, "inverse curvature before anything is known", unit="length^2/energy", gt=0)
    shrink: float = setting(0.2, "factor on a step that went uphill", gt=0, lt=1)
    rise: float = setting(1e-9, "rise in energy that is let pass, relative to 1 + |energy|", ge=0)

    def tolerating(self, rise: float) -> LBFGS:
        """See `Optimizer.tolerating`: raise the setting `rise` to at least this."""
        return self if rise <= self.rise else self.replace(rise=rise)

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> LBFGSState:
        """Return the state without memory."""
        n, m = landscape.segments.n_problems, self.memory
        zeros, square = torch.zeros_like(x), x.new_zeros(n, m, m)
        return LBFGSState(
            x=x,
            force=zeros,
            energy=x.new_full((n,), torch.inf),
            step=zeros,
            history=x.new_zeros(2 * m, *x.shape),
            sy=square,
            yy=square,
            along=x.new_zeros(n, 2 * m),
            scale=x.new_zeros(n) + self.scale,
            shrinks=torch.full((n,), -1, dtype=torch.int64, device=x.device),
        )

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: LBFGSState
    ) -> tuple[torch.Tensor, LBFGSState]:
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
        memory = self._remember(landscape, here, state, s, y, force, began & ~back)
        step = manifold.project(here, self._direction(segments, memory, force))
        if gone:
            force = torch.where(rows, state.force, force)
            energy = torch.where(back, state.energy, energy)
            step = torch.where(rows, self.shrink * state.step, step)
            shrinks = torch.where(back, state.shrinks + 1, 0)
        new = LBFGSState(here, force, energy, step, **vars(memory), shrinks=shrinks)
        return manifold.retract(here, step), new

    def _remember(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        state: LBFGSState,
        s: torch.Tensor,
        y: torch.Tensor,
        force: torch.Tensor,
        learn: torch.Tensor,
    ) -> _Memory:
        """Drop the oldest pair and append ``s, y (n_rows, d)``, or zeros where there is nothing to learn.

        Where shorter and shorter steps still led uphill, forget everything. learn: (n,) bool.
        """
        m, segments = self.memory, landscape.segments
        products = segments.sum_stack(torch.stack([s * y, y * y, s * force, y * force]))
        if landscape.conservative:
            good = learn & (state.shrinks < MAX_SHRINKS) & (products[:, 0] > LEAST_RATIO * products[:, 1])
        else:
            good = learn & (products[:, 0] > _MIN_COSINE * (products[:, 1] * segments.dot(s, s)).sqrt())
        keep = segments.rows_of(good)[:, None]
        change, s, y = y, torch.where(keep, s, 0.0), torch.where(keep, y, 0.0)
        new = torch.where(good[:, None], products, 0.0)
        old = landscape.manifold.transport(state.x, x, state.history)
        history = torch.cat([old[1:m], s[None], old[m + 1 :], y[None]])
        with_change = segments.sum_stack(history * change)
        with_y = torch.where(good[:, None], with_change, 0.0)
        sy, yy, along = (torch.zeros_like(one) for one in (state.sy, state.yy, state.along))
        sy[:, :-1, :-1], yy[:, :-1, :-1] = state.sy[:, 1:, 1:], state.yy[:, 1:, 1:]
        sy[:, :, -1] = with_y[:, :m]
        yy[:, :, -1] = yy[:, -1, :] = with_y[:, m:]
        # the force has changed by -change, learned from or not, so its products with older pairs need no pass over
        # the history
        along[:, : m - 1] = state.along[:, 1:m] - with_change[:, : m - 1]
        along[:, m:-1] = state.along[:, m + 1 :] - with_change[:, m:-1]
        along[:, m - 1], along[:, -1] = new[:, 2], new[:, 3]
        # a scale learned at a steep place would creep for ever where the curvature is negative and nothing is learned
        stuck = learn & landscape.conservative
        longer = torch.where(stuck, (2.0 * state.scale).clamp(min=self.scale), state.scale)
        scale = torch.where(good, products[:, 0] / products[:, 1], longer)
        memory = _Memory(history, sy, yy, along, scale)
        forget = learn & (state.shrinks >= MAX_SHRINKS)
        return self._cleared(memory, forget, segments) if bool(forget.any()) else memory

    def _cleared(self, memory: _Memory, forget: torch.Tensor, segments: Segments) -> _Memory:
        """Clear the memory of the problems ``forget (n,)`` bool, which it has led uphill again and again."""
        rows = segments.rows_of(forget)
        return _Memory(
            memory.history.masked_fill(rows[:, None], 0.0),
            memory.sy.masked_fill(forget[:, None, None], 0.0),
            memory.yy.masked_fill(forget[:, None, None], 0.0),
            memory.along.masked_fill(forget[:, None], 0.0),
            torch.where(forget, self.scale, memory.scale),
        )

    def _direction(self, segments: Segments, memory: _Memory, force: torch.Tensor) -> torch.Tensor:
        """Return the step ``H force`` (n_rows, d), capped, with the inverse Hessian H that the memory describes."""
        m, scale, along = self.memory, memory.scale, memory.along
        diagonal = torch.diagonal(memory.sy, dim1=1, dim2=2)
        # an empty pair gets a unit pivot: its products are zero, so it drops out
        upper = memory.sy + torch.diag_embed((diagonal == 0).to(scale))
        u = torch.linalg.solve_triangular(upper, along[:, :m, None], upper=True)
        inner = (memory.yy * u.mT).sum(-1) - along[:, m:]
        right = diagonal[:, :, None] * u + (scale[:, None] * inner)[:, :, None]
        v = torch.linalg.solve_triangular(upper.mT, right, upper=False)
        weights = torch.cat([v, -scale[:, None, None] * u], 1)[:, :, 0]
        step = segments.scale(scale, force) + segments.combine(weights, memory.history)
        downhill = segments.dot(step, force)
        longest = segments.longest2(step).sqrt()
        factor = (self.max_step / longest.clamp(min=self.max_step)) * torch.where(downhill < 0, -1.0, 1.0)
        return segments.scale(factor, step)

    def kernel(self) -> OptimizerKernel:
        """See `Optimizer.kernel`."""
        settings, constants = (self.max_step, self.scale, self.shrink, self.rise), {"M": self.memory}
        return OptimizerKernel(
            Kernel(kernels.init, settings, constants),
            Kernel(kernels.step, settings, constants),
            Kernel(kernels.finish, settings, constants),
            spare_numbers=2 * self.memory,
            spare_counts=1,
        )
