"""L-BFGS without a line search: one evaluation a step, safe by a step cap and by taking back steps that go uphill."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.core.evaluation import Evaluation
from mlopt.core.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.optimizer import Optimizer, State, per_problem, per_row
from mlopt.core.plugin import setting
from mlopt.core.segments import Segments

#: a step that raised the energy is shortened at most this many times, then taken as it is with the memory cleared
_MAX_SHRINKS = 8


@dataclass(frozen=True)
class LBFGSState(State):
    """x, force (n_rows, d), energy (n,): the last accepted point; step (n_rows, d) the move tried from there.

    history (n_rows, d, 2 m): columns s_1..s_m, y_1..y_m, oldest first; zero columns are no information.
    sy, yy (n, m, m): products s_i . y_j and y_i . y_j. scale (n,): the initial inverse curvature.
    shrinks (n,) int64: times that the present step was shortened; -1 before the first evaluation.
    """

    x: torch.Tensor = per_row()
    force: torch.Tensor = per_row()
    energy: torch.Tensor = per_problem()
    step: torch.Tensor = per_row()
    history: torch.Tensor = per_row()
    sy: torch.Tensor = per_problem()
    yy: torch.Tensor = per_problem()
    scale: torch.Tensor = per_problem()
    shrinks: torch.Tensor = per_problem()


class LBFGS(Optimizer):
    """Limited-memory BFGS (Liu & Nocedal, Math. Program. 45, 503 (1989)) as atomistic codes use it.

    The step is ``H force`` in the compact form of Byrd, Nocedal & Schnabel (Math. Program. 63, 129 (1994), eq. 3.5),
    scaled down so that no row moves farther than ``max_step``. No line search (as in GMIN and ASE): a step that raises
    the energy is taken back and tried again shorter, which costs one force call each. On a landscape whose force is
    no gradient (a band) energies are not compared.
    """

    memory: int = setting(5, "pairs of steps and gradient changes that are remembered", ge=1, le=100)
    max_step: float = setting(0.3, "largest displacement of a row in one step", unit="length", gt=0)
    scale: float = setting(0.014, "inverse curvature before anything is known", unit="length^2/energy", gt=0)
    shrink: float = setting(0.2, "factor on a step that went uphill", gt=0, lt=1)
    rise: float = setting(1e-9, "rise in energy that is let pass, relative to 1 + |energy|", ge=0)

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> LBFGSState:
        """No memory yet."""
        n, m = landscape.segments.n_problems, self.memory
        zeros, square = torch.zeros_like(x), x.new_zeros(n, m, m)
        return LBFGSState(
            x=x,
            force=zeros,
            energy=x.new_full((n,), torch.inf),
            step=zeros,
            history=x.new_zeros(*x.shape, 2 * m),
            sy=square,
            yy=square,
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
            back = began & (state.shrinks < _MAX_SHRINKS) & (energy > allowed)

        s = manifold.transport(state.x, x, manifold.difference(state.x, x))
        y = manifold.transport(state.x, x, state.force) - force
        history = manifold.transport(state.x, x, state.history)
        learn = began & (state.shrinks < _MAX_SHRINKS)
        history, sy, yy, scale = self._remember(segments, state, history, s, y, learn)
        step = self._direction(segments, history, sy, yy, scale, force)
        step = manifold.project(x, step)

        if bool(back.any()):
            rows = segments.rows_of(back)[:, None]
            retry = self.shrink * state.step
            new_x = torch.where(rows, manifold.retract(state.x, retry), manifold.retract(x, step))
            return new_x, LBFGSState(
                x=torch.where(rows, state.x, x),
                force=torch.where(rows, state.force, force),
                energy=torch.where(back, state.energy, energy),
                step=torch.where(rows, retry, step),
                history=torch.where(rows[:, :, None], state.history, history),
                sy=torch.where(back[:, None, None], state.sy, sy),
                yy=torch.where(back[:, None, None], state.yy, yy),
                scale=torch.where(back, state.scale, scale),
                shrinks=torch.where(back, state.shrinks + 1, 0),
            )
        shrinks = torch.zeros_like(state.shrinks)
        return manifold.retract(x, step), LBFGSState(x, force, energy, step, history, sy, yy, scale, shrinks)

    def _remember(
        self,
        segments: Segments,
        state: LBFGSState,
        history: torch.Tensor,
        s: torch.Tensor,
        y: torch.Tensor,
        learn: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Drop the oldest pair and append (s, y); a pair without positive curvature enters as zeros."""
        m = self.memory
        both = segments.sum_columns(torch.stack([s, y], -1) * y[..., None])  # s.y and y.y
        good = learn & (both[:, 0] > 1e-12 * both[:, 1])
        keep = segments.rows_of(good)[:, None]
        s, y = torch.where(keep, s, 0.0), torch.where(keep, y, 0.0)
        history = torch.cat([history[..., 1:m], s[..., None], history[..., m + 1 :], y[..., None]], -1)
        products = segments.sum_columns(history * y[..., None])  # every s_i . y and y_i . y
        sy, yy = torch.zeros_like(state.sy), torch.zeros_like(state.yy)
        sy[:, :-1, :-1], yy[:, :-1, :-1] = state.sy[:, 1:, 1:], state.yy[:, 1:, 1:]
        sy[:, :, -1] = products[:, :m]
        yy[:, :, -1] = yy[:, -1, :] = products[:, m:]
        scale = torch.where(good, both[:, 0] / both[:, 1], state.scale)
        if bool((state.shrinks >= _MAX_SHRINKS).any()):  # what is remembered has led uphill again and again
            forget = state.shrinks >= _MAX_SHRINKS
            history = history.masked_fill(segments.rows_of(forget)[:, None, None], 0.0)
            sy, yy = sy.masked_fill(forget[:, None, None], 0.0), yy.masked_fill(forget[:, None, None], 0.0)
            scale = torch.where(forget, self.scale, scale)
        return history, sy, yy, scale

    def _direction(
        self,
        segments: Segments,
        history: torch.Tensor,
        sy: torch.Tensor,
        yy: torch.Tensor,
        scale: torch.Tensor,
        force: torch.Tensor,
    ) -> torch.Tensor:
        """``H force``, with an inverse Hessian H from the memory, capped."""
        m = self.memory
        products = segments.sum_columns(history * force[..., None])
        diagonal = torch.diagonal(sy, dim1=1, dim2=2)
        # an empty pair gets a unit pivot: its products are zero, so it drops out
        upper = sy.triu() + torch.diag_embed((diagonal == 0).to(sy.dtype))
        u = torch.linalg.solve_triangular(upper, products[:, :m, None], upper=True)
        right = (
            diagonal[:, :, None] * u
            + scale[:, None, None] * ((yy * u.mT).sum(-1) - products[:, m:])[..., None]
        )
        v = torch.linalg.solve_triangular(upper.mT, right, upper=False)
        weights = torch.cat([v, -scale[:, None, None] * u], 1)[:, :, 0]
        step = segments.rows_of(scale)[:, None] * force
        step = step + (history * segments.rows_of(weights)[:, None, :]).sum(-1)
        downhill = segments.dot(step, force)
        longest = segments.max((step * step).sum(-1)).sqrt()
        factor = (self.max_step / longest.clamp(min=self.max_step)) * torch.where(downhill < 0, -1.0, 1.0)
        return step * segments.rows_of(factor)[:, None]
