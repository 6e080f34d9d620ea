"""The method of Levenberg and Marquardt, for losses that are sums of squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import Optimizer, State, per_problem, per_row


@runtime_checkable
class SumOfSquares(Protocol):
    """A landscape whose energy is a sum of squares of residuals."""

    def curvature(self, x: torch.Tensor) -> torch.Tensor:
        """Return the matrix of Gauss and Newton at ``x (n p, 1)``: (n, p, p), the Hessian where residuals are small."""


@dataclass(frozen=True)
class LevenbergMarquardtState(State):
    """The last accepted point, and the step tried from there.

    x, force (n_rows, 1), energy (n,): the last accepted point.
    curvature (n, p, p): the matrix there.
    step (n_rows, 1): the move tried from there.
    expected (n,): the fall in energy that this move should bring.
    damping (n,): the number that is added to the diagonal of the matrix.
    growth (n,): the next factor on the damping after a rise.
    began (n,) bool: whether a point has been evaluated.
    """

    x: torch.Tensor = per_row()
    force: torch.Tensor = per_row()
    energy: torch.Tensor = per_problem()
    curvature: torch.Tensor = per_problem()
    step: torch.Tensor = per_row()
    expected: torch.Tensor = per_problem()
    damping: torch.Tensor = per_problem()
    growth: torch.Tensor = per_problem()
    began: torch.Tensor = per_problem()


class LevenbergMarquardt(Optimizer):
    """The method of Levenberg and Marquardt (Marquardt, J. SIAM 11, 431 (1963)), with the damping of Nielsen.

    A step solves ``(H + damping 1) step = force`` with the matrix H of Gauss and Newton. The damping becomes less as
    the energy falls as expected, and grows faster and faster where it rises (Nielsen, Tech. Univ. Denmark,
    IMM-REP-1999-05). It trains potentials, as a stage of `training`.

    A step to a new point takes one evaluation and one matrix. The matrix costs as much as one evaluation without a
    gradient for each parameter. It is worth its cost for some hundred parameters, but not for thousands. Evaluations
    that are reported do not count the matrices.
    """

    squares_only: ClassVar[bool] = True

    start: float = setting(1e-3, "first damping, as a share of the largest entry of the diagonal", gt=0)

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> LevenbergMarquardtState:
        """Return the state before the first evaluation.

        Raises:
            InputError: the landscape is no sum of squares.
        """
        if not isinstance(landscape, SumOfSquares):
            raise InputError(
                f"levenberg-marquardt minimises sums of squares, and {landscape.giver} is none: it trains potentials, "
                f"in `training.stages` of a fit. Take lbfgs or bfgs here"
            )
        n, p = landscape.segments.n_problems, landscape.segments.size or 0
        zeros = x.new_zeros(n)
        return LevenbergMarquardtState(
            x=x,
            force=torch.zeros_like(x),
            energy=x.new_full((n,), torch.inf),
            curvature=x.new_zeros(n, p, p),
            step=torch.zeros_like(x),
            expected=zeros,
            damping=zeros,
            growth=zeros + 2.0,
            began=torch.zeros(n, dtype=torch.bool, device=x.device),
        )

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: LevenbergMarquardtState
    ) -> tuple[torch.Tensor, LevenbergMarquardtState]:
        """Accept the point where the energy has fallen, else go back, and try the next step."""
        segments, n = landscape.segments, landscape.segments.n_problems
        assert isinstance(landscape, SumOfSquares)  # `init` has seen to it
        fell = state.energy - evaluation.energy
        good = torch.isfinite(evaluation.energy) & (fell > 0)
        rows = segments.rows_of(good)[:, None]
        here, force = torch.where(rows, x, state.x), torch.where(rows, evaluation.force, state.force)
        energy = torch.where(good, evaluation.energy, state.energy)
        curvature = state.curvature
        chosen = torch.nonzero(good).flatten()
        if len(chosen):
            part = landscape.select(chosen)
            assert isinstance(part, SumOfSquares)
            _, own = segments.select(chosen)
            curvature = curvature.index_copy(0, chosen, part.curvature(here[own]))
        gain = (fell / state.expected.clamp(min=torch.finfo(x.dtype).tiny)).nan_to_num(posinf=1.0)
        less = state.damping * (1.0 - (2.0 * gain - 1.0) ** 3).clamp(min=1.0 / 3.0)
        diagonal = torch.diagonal(curvature, dim1=1, dim2=2)
        first = self.start * diagonal.amax(1).clamp(min=torch.finfo(x.dtype).tiny)
        damping = torch.where(good, less, state.damping * state.growth)
        damping = torch.where(state.began, damping, first)
        growth = torch.where(good, 2.0, 2.0 * state.growth)
        side = force.reshape(n, -1)
        damped = curvature + torch.diag_embed(damping[:, None].expand_as(diagonal))
        # the root of a matrix that rounding has made indefinite has no meaning; its step is refused, and damped more
        root, _ = torch.linalg.cholesky_ex(damped)
        step = torch.cholesky_solve(side[..., None], root)[..., 0]
        expected = 0.5 * ((damping[:, None] * step + side) * step).sum(1)
        told = LevenbergMarquardtState(
            here, force, energy, curvature, step.reshape(-1, 1), expected, damping, growth, state.began | good
        )
        return here + told.step, told
