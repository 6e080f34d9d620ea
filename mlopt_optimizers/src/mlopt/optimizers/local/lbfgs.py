"""L-BFGS without a line search. It takes one evaluation a step, caps steps, and takes back those that go uphill."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.core.batch.segments import Segments
from mlopt.core.kernels.kernel import Kernel, NoKernelError, OptimizerKernel
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import per_problem, per_row
from mlopt.optimizers.local.kernels import lbfgs as kernels
from mlopt.optimizers.local.quasi_newton import Change, QuasiNewton, QuasiNewtonState, beginning, curved


@dataclass(frozen=True)
class LBFGSState(QuasiNewtonState):
    """The memory, beside the last accepted point and the step tried from there.

    history (2 m, n_rows, d): s_1..s_m, y_1..y_m, oldest first. Zeros stand for no information.
    sy, yy (n, m, m): products s_i . y_j for i <= j, zero below, and y_i . y_j.
    along (n, 2 m): products of the history with the force.
    scale (n,): the initial inverse curvature.
    """

    history: torch.Tensor = per_row(axis=1)
    sy: torch.Tensor = per_problem()
    yy: torch.Tensor = per_problem()
    along: torch.Tensor = per_problem()
    scale: torch.Tensor = per_problem()


@dataclass(frozen=True)
class _Memory:
    """The part of the state that holds what has been learned."""

    history: torch.Tensor
    sy: torch.Tensor
    yy: torch.Tensor
    along: torch.Tensor
    scale: torch.Tensor


class LBFGS(QuasiNewton):
    """Limited-memory BFGS (Liu & Nocedal, Math. Program. 45, 503 (1989)) as atomistic codes use it.

    The step is ``H force`` in the compact form of Byrd, Nocedal & Schnabel (Math. Program. 63, 129 (1994), eq. 3.5),
    scaled down so that no row moves farther than ``max_step``. As in GMIN and ASE there is no line search. A step that
    raises the energy is undone and repeated shorter, at one force call each. From a step along negative curvature the
    optimizer only learns that steps may be longer. On a landscape whose force is no gradient (a band), energies are not
    compared. A step at a large angle to the change of the force is then ignored.
    """

    memory: int = setting(8, "number of stored pairs of steps and gradient changes", ge=1, le=100)

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> LBFGSState:
        """Return the state without memory."""
        n, m = landscape.segments.n_problems, self.memory
        square = x.new_zeros(n, m, m)
        return LBFGSState(
            **beginning(landscape, x),
            history=x.new_zeros(2 * m, *x.shape),
            sy=square,
            yy=square,
            along=x.new_zeros(n, 2 * m),
            scale=x.new_zeros(n) + self.scale,
        )

    def _quasi_newton(
        self, landscape: Landscape, x: torch.Tensor, state: LBFGSState, change: Change
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `QuasiNewton`."""
        memory = self._remember(landscape, x, state, change)
        return self._direction(landscape.segments, memory, change.force), vars(memory)

    def _remember(self, landscape: Landscape, x: torch.Tensor, state: LBFGSState, change: Change) -> _Memory:
        """Drop the oldest pair and append the new one, or zeros where there is nothing to learn.

        Where shorter and shorter steps still led uphill, forget everything.
        """
        s, y, force, learn = change.s, change.y, change.force, change.learn
        m, segments = self.memory, landscape.segments
        products = segments.sum_stack(torch.stack([s * y, y * y, s * force, y * force]))
        good = curved(landscape, s, products[:, 0], products[:, 1]) & learn & ~change.lost
        keep = segments.rows_of(good)[:, None]
        turn, s, y = y, torch.where(keep, s, 0.0), torch.where(keep, y, 0.0)
        new = torch.where(good[:, None], products, 0.0)
        old = landscape.manifold.transport(state.x, x, state.history)
        history = torch.cat([old[1:m], s[None], old[m + 1 :], y[None]])
        with_change = segments.sum_stack(history * turn)
        with_y = torch.where(good[:, None], with_change, 0.0)
        sy, yy, along = (torch.zeros_like(one) for one in (state.sy, state.yy, state.along))
        sy[:, :-1, :-1], yy[:, :-1, :-1] = state.sy[:, 1:, 1:], state.yy[:, 1:, 1:]
        sy[:, :, -1] = with_y[:, :m]
        yy[:, :, -1] = yy[:, -1, :] = with_y[:, m:]
        # the force has changed by -turn, learned from or not, so its products with older pairs need no pass over
        # the history
        along[:, : m - 1] = state.along[:, 1:m] - with_change[:, : m - 1]
        along[:, m:-1] = state.along[:, m + 1 :] - with_change[:, m:-1]
        along[:, m - 1], along[:, -1] = new[:, 2], new[:, 3]
        # a scale learned at a steep place would creep for ever where the curvature is negative and nothing is learned
        stuck = learn & landscape.conservative
        longer = torch.where(stuck, (2.0 * state.scale).clamp(min=self.scale), state.scale)
        scale = torch.where(good, products[:, 0] / products[:, 1], longer)
        memory = _Memory(history, sy, yy, along, scale)
        return self._cleared(memory, change.lost, segments) if bool(change.lost.any()) else memory

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
        """Return the step ``H force`` (n_rows, d) with the inverse Hessian H that the memory describes."""
        m, scale, along = self.memory, memory.scale, memory.along
        diagonal = torch.diagonal(memory.sy, dim1=1, dim2=2)
        # an empty pair gets a unit pivot: its products are zero, so it drops out
        upper = memory.sy + torch.diag_embed((diagonal == 0).to(scale))
        u = torch.linalg.solve_triangular(upper, along[:, :m, None], upper=True)
        inner = (memory.yy * u.mT).sum(-1) - along[:, m:]
        right = diagonal[:, :, None] * u + (scale[:, None] * inner)[:, :, None]
        v = torch.linalg.solve_triangular(upper.mT, right, upper=False)
        weights = torch.cat([v, -scale[:, None, None] * u], 1)[:, :, 0]
        return segments.scale(scale, force) + segments.combine(weights, memory.history)

    def kernel(self) -> OptimizerKernel:
        """See `Optimizer.kernel`."""
        if self.max_step is None:
            raise NoKernelError("the kernel of lbfgs needs a `max_step`")
        settings, constants = (self.max_step, self.scale, self.shrink, self.rise), {"M": self.memory}
        return OptimizerKernel(
            Kernel(kernels.init, settings, constants),
            Kernel(kernels.step, settings, constants),
            Kernel(kernels.finish, settings, constants),
            spare_numbers=2 * self.memory,
            spare_counts=1,
        )
