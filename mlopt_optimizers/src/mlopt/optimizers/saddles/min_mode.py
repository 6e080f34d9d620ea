"""Minimum-mode following: from a point nearby to a first-order saddle, without knowing the minima behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from pydantic import field_validator

from mlopt.core.batch.random import Draws
from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.optimizer import Optimizer, State, local_only, nested, per_problem, per_row
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.saddles.modes import allowed_part


@dataclass(frozen=True)
class DimerState(State):
    """The state of `Dimer`.

    inner: state of the optimizer that moves the centre.
    moves (n,) int64: number of moves of the centre.
    at_centre (n,) bool: whether the next evaluation is at the centre, and not at the end of the dimer.
    x, force (n_rows, d): the centre, and the force there.
    mode (n_rows, d): direction of the dimer, or the lowest mode of the last centre.
    looks (n,) int64: number of ends of dimers evaluated at this centre.
    basis (m, n_rows, d): the directions of these ends, orthonormal; zeros beyond ``looks``.
    products (m, n_rows, d): the Hessian times ``basis``; zeros beyond ``looks``.
    curvature (n,): curvature along the lowest mode of the last centre, energy / length^2.
    stiffness (n,): largest |H v| met.
    """

    inner: Any = nested()
    moves: torch.Tensor = per_problem()
    at_centre: torch.Tensor = per_problem()
    x: torch.Tensor = per_row()
    force: torch.Tensor = per_row()
    mode: torch.Tensor = per_row()
    looks: torch.Tensor = per_problem()
    basis: torch.Tensor = per_row(axis=1)
    products: torch.Tensor = per_row(axis=1)
    curvature: torch.Tensor = per_problem()
    stiffness: torch.Tensor = per_problem()


class Dimer(Optimizer):
    """The dimer method of Henkelman & Jónsson (J. Chem. Phys. 111, 7010 (1999)): up along the lowest mode, else down.

    Every step is one evaluation. The first is that of the force at a new centre. The next is at the end of a short
    dimer along the last mode (one-sided, as Heyden, Bell & Keil, J. Chem. Phys. 123, 224101 (2005)). The change of the
    gradient is the Hessian times that direction. While the residual is too large, the next end of the dimer lies along
    the residual. This is Lanczos with full orthogonalisation, begun with the last mode (Malek & Mousseau, Phys. Rev. E
    62, 7723 (2000)). It replaces the rotations of the paper.

    Then ``inner`` moves the centre by the force ``F - 2 (F.n) n``, with n the lowest mode. While the curvature along n
    is positive, the step along n is replaced by one uphill of length ``climb``. The paper follows ``-(F.n) n`` there
    and relaxes nothing. From shaken minima of LJ7, 35 of 100 searches then ended at a saddle, instead of 45.

    Rigid motions of free atoms and motions of fixed rows are no modes. On a manifold the end of the dimer lies on a
    geodesic and its force is carried back.

    A search ends at a stationary point. `mlopt.optimizers.saddles.modes.lowest_modes` tells if it is a saddle of first
    order. At an exact minimum the force is zero and the search cannot leave it: begin beside it. A search may stop at
    the end of a dimer, if the force there is below the threshold.
    """

    seeks: ClassVar[str] = "saddle"

    inner: Annotated[Optimizer, FromRegistry("optimizer")] = setting(
        LBFGS(max_step=0.1, memory=20), "local optimizer that moves the centre"
    )
    length: float = setting(1e-5, "distance from the centre to the end of the dimer", unit="length", gt=0)
    climb: float = setting(0.05, "step along the mode while its curvature is positive", unit="length", gt=0)
    looks: int = setting(6, "largest number of evaluations for the mode at one centre", ge=1, le=50)
    first_looks: int = setting(
        8, "the same for the first centre, where the first direction is random", ge=1, le=50
    )
    residual: float = setting(
        0.1, "residual of the mode, relative to its curvature, at which these evaluations end", ge=0
    )

    @field_validator("inner")
    @classmethod
    def _local(cls, inner: Optimizer) -> Optimizer:
        return local_only(inner)

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> DimerState:
        """Return the state at the first centre, with a random direction of the dimer."""
        segments = landscape.segments
        draws = Draws(key, torch.zeros_like(key), segments)
        numbers = x.new_zeros(segments.n_problems)
        space = x.new_zeros(max(self.looks, self.first_looks), *x.shape)
        return DimerState(
            inner=self.inner.init(_Steered(landscape), x, key),
            moves=torch.zeros_like(key),
            at_centre=torch.ones_like(key, dtype=torch.bool),
            x=x,
            force=torch.zeros_like(x),
            mode=draws.normal_rows(x.shape[1]).to(x),
            looks=torch.zeros_like(key),
            basis=space,
            products=space,
            curvature=numbers,
            stiffness=numbers,
        )

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: DimerState
    ) -> tuple[torch.Tensor, DimerState]:
        """Return the next point: the end of the dimer after the centre; after an end, a new centre or another end."""
        segments, manifold, begin = landscape.segments, landscape.manifold, state.at_centre
        begin_rows = segments.rows_of(begin)[:, None]
        centre = torch.where(begin_rows, x, state.x)
        force = torch.where(begin_rows, evaluation.force, state.force)
        free = landscape.free_motions(centre)
        # at the centre the mode of the last one comes along; at the end of the dimer the force has changed
        carried = manifold.transport(state.x, centre, state.mode)
        change = (force - manifold.transport(x, centre, evaluation.force)) / self.length
        carried, change = allowed_part(landscape, centre, torch.stack([carried, change]), free)
        basis, products = (
            torch.where(begin_rows, 0.0, _put(segments, stack, state.looks, new))
            for stack, new in ((state.basis, state.mode), (state.products, change))
        )
        looks = torch.where(begin, 0, state.looks + 1)
        curvature, lowest, image = _lowest(segments, basis, products, looks)
        stiffness = torch.where(
            begin, state.stiffness, torch.maximum(state.stiffness, segments.dot(change, change).sqrt())
        )
        error = image - segments.scale(curvature, lowest)
        for _ in range(2):
            error = error - segments.combine(segments.sum_stack(basis * error), basis)
        # a curvature that happens to be near zero must not ask for a perfect mode
        limit = self.residual * (curvature.abs() + 1e-3 * stiffness) + torch.finfo(x.dtype).tiny
        most = torch.where(state.moves == 0, self.first_looks, self.looks)
        enough = ~begin & ((segments.dot(error, error).sqrt() <= limit) | (looks >= most))
        along = _unit(segments, torch.where(begin_rows, carried, error))
        mode = torch.where(segments.rows_of(enough)[:, None], lowest, along)
        state = replace(
            state,
            at_centre=enough,
            x=centre,
            force=force,
            mode=mode,
            looks=looks,
            basis=basis,
            products=products,
            stiffness=stiffness,
        )
        end = manifold.retract(centre, self.length * mode)
        movers = torch.nonzero(enough).flatten()
        if not movers.numel():
            return end, state
        part, (_, rows) = landscape.select(movers), segments.select(movers)
        return self.select(movers)._move(part, movers, rows, curvature, end, state)

    def _move(
        self,
        part: Landscape,
        movers: torch.Tensor,
        rows: torch.Tensor,
        curvature: torch.Tensor,
        end: torch.Tensor,
        state: DimerState,
    ) -> tuple[torch.Tensor, DimerState]:
        """Return ``end`` with new centres of ``movers (k,)`` at their ``rows``: up along the mode, down across it."""
        segments, steered = part.segments, _Steered(part)
        centre, force, mode = state.x[rows], state.force[rows], state.mode[rows]
        curvature, before = curvature[movers], state.curvature[movers]
        below = curvature < 0
        inner = state.inner.select(movers, rows)
        turned = (state.moves[movers] > 0) & (below != (before < 0))
        if bool(turned.any()):  # it has seen another force
            fresh = self.inner.init(steered, centre, torch.zeros_like(movers))
            inner = fresh.where(turned, inner, segments)
        slope = segments.dot(force, mode)
        told = Evaluation(torch.zeros_like(curvature), segments.scale(-2.0 * slope, mode, force))
        new_x, inner = self.inner.step(steered, centre, told, inner)
        # where the curvature is positive there is no saddle to approach, only a basin to leave
        reach = segments.longest2(mode).sqrt().clamp(min=torch.finfo(mode.dtype).tiny)
        leave = segments.scale(torch.where(slope > 0, -self.climb, self.climb) / reach, mode)
        across = part.manifold.difference(centre, new_x)
        across = across - segments.scale(segments.dot(across, mode), mode)
        uphill = part.manifold.retract(centre, across + leave)
        new_x = torch.where(segments.rows_of(below)[:, None], new_x, uphill)
        state = replace(
            state,
            inner=state.inner.put(movers, rows, inner),
            moves=state.moves.index_add(0, movers, torch.ones_like(movers)),
            curvature=state.curvature.index_copy(0, movers, curvature),
        )
        return end.index_copy(0, rows, new_x), state


class _Steered(Landscape):
    """The same points under the force that leads to a saddle, as ``inner`` sees them; it has no energy."""

    conservative = False

    def __init__(self, landscape: Landscape) -> None:
        self.landscape = landscape
        self.segments, self.manifold, self.fixed = landscape.segments, landscape.manifold, landscape.fixed

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        raise TypeError("an optimizer must not evaluate the landscape in `step`")

    def select(self, problems: torch.Tensor) -> _Steered:
        return _Steered(self.landscape.select(problems))


def _unit(segments: Segments, vector: torch.Tensor) -> torch.Tensor:
    """Return ``vector (n_rows, d)`` with unit norm over each problem; zero vectors stay zero."""
    square = segments.dot(vector, vector)
    tiny = torch.finfo(vector.dtype).tiny
    return segments.scale(torch.where(square > tiny, square.clamp(min=tiny).rsqrt(), 0.0), vector)


def _put(segments: Segments, stack: torch.Tensor, place: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Return ``stack (m, n_rows, d)`` with ``vector (n_rows, d)`` at ``place (n,)`` of each problem."""
    here = torch.arange(len(stack), device=stack.device)[:, None] == segments.rows_of(place)
    return torch.where(here[:, :, None], vector, stack)


def _lowest(
    segments: Segments, basis: torch.Tensor, products: torch.Tensor, looks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the lowest Ritz value (n,) of the first ``looks (n,)`` vectors, its vector, and H times that."""
    gram = torch.stack([segments.sum_stack(products * one) for one in basis], -1)
    gram = torch.nan_to_num(0.5 * (gram + gram.mT))
    empty = torch.arange(len(basis), device=looks.device) >= looks[:, None]
    beyond = 1.0 + 2.0 * torch.linalg.matrix_norm(gram)[:, None]  # above every Ritz value
    values, weights = torch.linalg.eigh(gram + torch.diag_embed(torch.where(empty, beyond, 0.0)))
    chosen = weights[:, :, 0]
    return values[:, 0], segments.combine(chosen, basis), segments.combine(chosen, products)
