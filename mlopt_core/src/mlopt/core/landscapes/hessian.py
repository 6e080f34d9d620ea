"""The Hessian of a landscape times a vector, by differences of forces or by a second backward pass.

On a manifold the Hessian is the covariant derivative of the gradient: how the force changes along a geodesic, once it
has been carried back to where one came from. On unit spheres this is ``P (H v) - (s . grad E) v`` for each row s, with
the ambient gradient and Hessian and the projection P on the tangent space (Absil, Mahony & Trumpf, GSI 2013, eq. 10);
both functions here give it without knowing which manifold they are on.
"""

from __future__ import annotations

from typing import Protocol

from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.manifold import Manifold
from mlopt.core.lazy import torch


class Surface(Protocol):
    """What the products need of a landscape; `mlopt.core.landscapes.landscape.Landscape` has all of it."""

    @property
    def segments(self) -> Segments:
        """Which rows belong to which problem."""

    @property
    def manifold(self) -> Manifold:
        """The space of the points."""

    @property
    def fixed(self) -> torch.Tensor | None:
        """(n_rows,) bool, rows that must not move, or None."""

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Energies and forces at x (n_rows, d)."""


def difference_product(
    landscape: Surface, x: torch.Tensor, v: torch.Tensor, step: float | None = None
) -> torch.Tensor:
    """Central difference of the forces a little ahead and a little behind along ``v``: two force calls.

    x: (n_rows, d) points. v: (n_rows, d) tangent vectors at x, of any length. step: how far the row moves that moves
    farthest, in the length of x; None for the cube root of the rounding unit, 6e-6 in float64, which is best where
    forces are exact to rounding and lengths are about 1. Forces with noise, such as those of iterated electrons, want
    about the cube root of theirs.
    """
    segments, manifold, v = landscape.segments, landscape.manifold, _loose(landscape, v)
    length = segments.longest2(v).sqrt()
    step = torch.finfo(x.dtype).eps ** (1.0 / 3.0) if step is None else step
    moves = length > 0
    factor = torch.where(moves, step / length.clamp(min=torch.finfo(x.dtype).tiny), 0.0)
    back = []
    for sign in (1.0, -1.0):
        there = manifold.retract(x, segments.scale(sign * factor, v))
        back.append(manifold.transport(there, x, landscape.evaluate(there).force))
    slope = segments.scale(torch.where(moves, 0.5 * length / step, 0.0), back[1] - back[0])
    return _loose(landscape, manifold.project(x, slope))


def differentiated_product(landscape: Surface, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Exact product, through the graph of one evaluation, which must be differentiable.

    The derivative of the projected force, projected, is symmetric on the tangent space, so a backward pass does.
    """
    v = _loose(landscape, v)
    with torch.enable_grad():
        point = x.detach().requires_grad_(True)
        force = landscape.evaluate(point).force
        if not force.requires_grad:  # a constant energy, such as that of a single atom
            return torch.zeros_like(x)
        (slope,) = torch.autograd.grad(force, point, -v.detach(), allow_unused=True)
    if slope is None:
        return torch.zeros_like(x)
    return _loose(landscape, landscape.manifold.project(x.detach(), slope))


def _loose(landscape: Surface, v: torch.Tensor) -> torch.Tensor:
    """``v`` without what fixed rows would do."""
    return v if landscape.fixed is None else v.masked_fill(landscape.fixed[:, None], 0.0)


def rigid_motions(
    x: torch.Tensor, segments: Segments, pbc: torch.Tensor, fixed: torch.Tensor | None
) -> torch.Tensor:
    """Rigid motions of atoms that move no fixed one: (6, n_rows, 3), orthonormal in each problem, zeros where fewer.

    x: (n_rows, 3). pbc: (n_problems, 3) bool: where any direction is periodic there are translations only. fixed:
    (n_rows,) bool or None.
    """
    centred = x - segments.rows_of(segments.mean_rows(x))
    reach = segments.longest2(centred).sqrt()
    size = torch.where(reach > 0, reach, 1.0)
    axes = torch.eye(3, dtype=x.dtype, device=x.device)
    turns = segments.rows_of(~pbc.any(-1))[:, None]
    # rotations in units of the size, so that one threshold serves translations and rotations
    arms = segments.scale(size.reciprocal(), centred)
    motions = torch.stack(
        [axis.expand_as(x) for axis in axes]
        + [torch.where(turns, torch.linalg.cross(axis.expand_as(x), arms), 0.0) for axis in axes]
    )
    if fixed is not None:
        motions = _sparing(motions, segments, fixed)
    tiny = 1e3 * torch.finfo(x.dtype).eps
    kept: list[torch.Tensor] = []
    for motion in motions:
        before = segments.dot(motion, motion)
        for _ in range(2):  # once leaves rounding behind where little is left
            for one in kept:
                motion = motion - segments.scale(segments.dot(one, motion), one)
        left = segments.dot(motion, motion)
        sound = (before > 0) & (left > tiny * segments.counts)
        kept.append(segments.scale(torch.where(sound, left.clamp(min=tiny).rsqrt(), 0.0), motion))
    return torch.stack(kept)


def _sparing(motions: torch.Tensor, segments: Segments, fixed: torch.Tensor) -> torch.Tensor:
    """Combinations of ``motions (6, n_rows, 3)`` under which fixed rows stay; zeros in place of the others."""
    held = torch.where(fixed[:, None], motions, 0.0)
    gram = torch.stack([segments.sum_stack(held * one) for one in held], -1)
    values, vectors = torch.linalg.eigh(gram)
    held_rows = segments.sum(fixed.to(motions.dtype)).clamp(min=1.0)
    still = values <= 1e3 * torch.finfo(motions.dtype).eps * held_rows[:, None]
    weights = vectors * still[:, None, :]
    return torch.stack([segments.combine(weights[:, :, i], motions) for i in range(len(motions))])
