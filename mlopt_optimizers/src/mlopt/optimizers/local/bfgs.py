"""BFGS with the whole inverse Hessian of each problem, for problems of up to about a thousand numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.protocols.optimizer import per_problem
from mlopt.optimizers.local.quasi_newton import Change, QuasiNewton, QuasiNewtonState, beginning, curved

#: along negative curvature, the part of the curvature expected there that is taken for it (Powell's damping)
_DAMPED = 0.2
#: where the curvature along a step is less than that expected by more than this factor, all others are lowered too:
#: what was learned at a steep place is too steep elsewhere. From 20 random starts LJ38 takes 410 calls so and 2,050
#: without; with a factor of 1, Rosenbrock's valley in 100 dimensions takes 830 instead of 590
_FLATTER = 2.0
#: numbers of a matrix that are treated at a time
_STRIP = 100_000


@dataclass(frozen=True)
class BFGSState(QuasiNewtonState):
    """The inverse Hessian, besides the last accepted point and the step tried from there.

    inverse: (n, m, m), symmetric and positive; m is d times the rows of the largest problem, zero beyond a smaller one.
    fraction: (n,) the present step as a fraction of ``inverse @ force``.
    learned: (n,) bool, true if ``inverse`` is more than the initial guess.
    """

    inverse: torch.Tensor = per_problem(padded=True)
    fraction: torch.Tensor = per_problem()
    learned: torch.Tensor = per_problem()


class BFGS(QuasiNewton):
    """BFGS with a dense inverse Hessian (Nocedal & Wright, Numerical Optimization (2006), algorithm 6.1).

    The first measured curvature sets the scale of the inverse Hessian (eq. 6.20). Where the curvature along a step is
    negative, the change of the force is damped (Powell; eq. 18.15). Steps along it then become at most 5 times as long,
    and the inverse Hessian stays positive. Where the curvature is far below the expected one, the whole Hessian is
    scaled down first, as Al-Baali proposed (Comput. Optim. Appl. 9, 191 (1998)). On a sphere the inverse Hessian is
    transported row by row.

    Memory and time of a step grow with the square of the problem's size: 1,200 numbers take 12 MB.
    """

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> BFGSState:
        """Return the state before the first step."""
        n = landscape.segments.n_problems
        return BFGSState(
            **beginning(landscape, x),
            inverse=self._guess(landscape.segments, x),
            fraction=x.new_ones(n),
            learned=torch.zeros(n, dtype=torch.bool, device=x.device),
        )

    def _guess(self, segments: Segments, x: torch.Tensor) -> torch.Tensor:
        """Return the initial inverse Hessian: (n, m, m)."""
        numbers = segments.counts * x.shape[1]
        most = int(numbers.max()) if len(numbers) else 0
        inside = torch.arange(most, device=x.device) < numbers[:, None]
        return torch.diag_embed(inside.to(x.dtype) * _column(self.scale, x))

    def _quasi_newton(
        self, landscape: Landscape, x: torch.Tensor, state: BFGSState, change: Change
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the step and the learned fields; see `QuasiNewton`."""
        segments = landscape.segments
        s, y = change.s, change.y
        sy, yy = segments.dot(s, y), segments.dot(y, y)
        plain = good = curved(landscape, s, sy, yy) & change.learn & ~change.lost
        inverse = self._carried(landscape, x, state)
        most = int(segments.counts.max()) * x.shape[1] if segments.n_problems else 0
        inverse = inverse[:, :most, :most].contiguous()  # the largest problem may have ended
        if landscape.conservative:
            # with the Hessian B that the step was made of, B s is the fraction of the force before it: y + force
            expected = segments.scale(state.fraction, y + change.force)
            wanted = segments.dot(s, expected)
            damped = change.learn & ~change.lost & ~plain & (wanted > 0)
            share = torch.where(damped, (1.0 - _DAMPED) * wanted / (wanted - sy), 1.0)
            y = segments.scale(share, y) + segments.scale(1.0 - share, expected)
            flatter = torch.where(plain, wanted / sy / _FLATTER, 1.0).clamp(1.0, 1.0 / _DAMPED)
            if bool((flatter > 1).any()):
                inverse = inverse * flatter[:, None, None]
            sy = segments.dot(s, y)
            good = plain | (damped & (sy > 0))
        # the guess gets the size of the first curvature that is seen
        first = plain & ~state.learned
        if bool(first.any()) or bool(change.lost.any()):
            guess = self._guess(segments, x)
            size = torch.where(first, sy / yy / self.scale, 1.0)
            again = (first | change.lost)[:, None, None]
            inverse = torch.where(again, guess * size[:, None, None], inverse)
        step = torch.zeros_like(x)
        parts = []
        for problems, rows, block in _blocks(segments, inverse, x.shape[1]):
            s_, y_, force = (one[rows].reshape(len(block), -1) for one in (s, y, change.force))
            block, moved = _updated(block, s_, y_, sy[problems], good[problems], force)
            step = step.index_put((rows,), moved.reshape(-1, x.shape[1]))
            parts.append((problems, block))
        fraction = self._factor(landscape, step, change.force)
        back = (state.shrinks >= 0) & ~change.learn
        return step, {
            "inverse": _together(inverse, parts),
            "fraction": torch.where(back, self.shrink * state.fraction, fraction),
            "learned": (state.learned | plain) & ~change.lost,
        }

    def _carried(self, landscape: Landscape, x: torch.Tensor, state: BFGSState) -> torch.Tensor:
        """Return the inverse Hessian (n, m, m), transported to the new point ``x (n_rows, d)``."""
        manifold, d = landscape.manifold, x.shape[1]
        units = torch.eye(d, dtype=x.dtype, device=x.device)[:, None].expand(d, *x.shape)
        moved = manifold.transport(state.x, x, manifold.project(state.x, units))
        if moved is units:  # flat: nothing turns
            return state.inverse
        inverse, turn = state.inverse, moved.permute(1, 2, 0)
        parts = []
        for problems, rows, block in _blocks(landscape.segments, inverse, d):
            n, size = len(block), block.shape[1] // d
            by_row = turn[rows].reshape(n, size, d, d)
            for _ in range(2):  # from the left, and, transposed, from the right
                split = block.reshape(n, size, 1, d, -1)
                turned = by_row[..., 0, None] * split[:, :, :, 0]
                for k in range(1, d):
                    turned = turned + by_row[..., k, None] * split[:, :, :, k]
                block = turned.reshape(block.shape).mT
            parts.append((problems, block))
        return _together(inverse, parts)


def _column(scale: float | torch.Tensor, x: torch.Tensor) -> float | torch.Tensor:
    """Return a setting, possibly one number per problem, in a shape that multiplies (n, m)."""
    return scale.to(x)[:, None] if isinstance(scale, torch.Tensor) and scale.ndim else scale


def _blocks(
    segments: Segments, inverse: torch.Tensor, d: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield problems (b,), their rows, and their inverse Hessians (b, m, m) without padding, for each size."""
    for size, problems, rows in segments.buckets:
        m = size * d
        whole = len(problems) == len(inverse) and inverse.shape[1] == m
        yield problems, rows, inverse if whole else inverse[problems][:, :m, :m].contiguous()


def _together(like: torch.Tensor, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Return matrices of `_blocks` as one tensor of the shape of ``like (n, m, m)``, padded with zeros."""
    if len(parts) == 1 and parts[0][1].shape == like.shape:
        return parts[0][1].contiguous()
    whole = torch.zeros_like(like)
    for problems, block in parts:
        m = block.shape[1]
        whole[problems, :m, :m] = block
    return whole


def _strips(matrix: torch.Tensor) -> list[slice]:
    """Cut the rows of ``matrix (b, m, m)`` into strips of some 100,000 numbers, whose temporaries fit the cache."""
    b, m, _ = matrix.shape
    each = max(1, _STRIP // max(1, b * m))
    return [slice(start, min(start + each, m)) for start in range(0, m, each)]


def _times(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Return ``matrix (b, r, m)`` times ``vector (b, m)``.

    It is no matrix product, because that would round differently in another batch.
    """
    return (matrix * vector[:, None, :]).sum(-1)


def _updated(
    inverse: torch.Tensor,
    s: torch.Tensor,
    y: torch.Tensor,
    sy: torch.Tensor,
    good: torch.Tensor,
    force: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the BFGS update of ``inverse (b, m, m)`` by ``s, y (b, m)`` where ``good (b,)``.

    Source: Nocedal & Wright, eq. 6.17. The second result is the product with ``force (b, m)``.
    """
    strips = _strips(inverse)
    if not bool(good.any()):
        return inverse, torch.cat([_times(inverse[:, rows], force) for rows in strips], 1)
    turned = torch.cat([_times(inverse[:, rows], y) for rows in strips], 1)
    safe = torch.where(good, sy, 1.0)
    length = 0.5 * (1.0 + (y * turned).sum(-1) / safe)
    u = (length[:, None] * s - turned) / safe[:, None]
    u = torch.where(good[:, None], u, 0.0)
    new, moved = torch.empty_like(inverse), []
    for rows in strips:
        # the two products are added first, so that the matrix stays symmetric to the last bit
        change = s[:, rows, None] * u[:, None, :] + u[:, rows, None] * s[:, None, :]
        strip = inverse[:, rows] + change
        moved.append(_times(strip, force))
        new[:, rows] = strip
    return new, torch.cat(moved, 1)
