"""Products of a landscape's Hessian with vectors, by differences of forces or by a second backward pass.

On a manifold the Hessian is the covariant derivative of the gradient. It is the rate at which the gradient changes
along a geodesic, after parallel transport back to the starting point. On unit spheres its product with v is
``P (H v) - (s . grad E) v`` for each row s. Here ``grad E`` and H are the gradient and the Hessian of the surrounding
space, and P projects on the tangent space. Source: Absil, Mahony & Trumpf, GSI 2013, eq. 10. Both functions here use
the manifold's own operations, so they need no case for each manifold.
"""

from __future__ import annotations

from typing import Protocol

from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.manifold import Manifold
from mlopt.core.lazy import torch


class Surface(Protocol):
    """The part of `mlopt.core.landscapes.landscape.Landscape` that Hessian products need."""

    @property
    def segments(self) -> Segments:
        """The rows of each problem."""

    @property
    def manifold(self) -> Manifold:
        """The space of the points."""

    @property
    def fixed(self) -> torch.Tensor | None:
        """(n_rows,) bool, rows that must not move, or None."""

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Return energies (n_problems,) and forces (n_rows, d) at ``x (n_rows, d)``."""


def difference_product(
    landscape: Surface, x: torch.Tensor, v: torch.Tensor, step: float | None = None
) -> torch.Tensor:
    """Return the Hessian times ``v``, (n_rows, d), by a central difference of forces along ``v``; two force calls.

    x: (n_rows, d) points. v: (n_rows, d) tangent vectors at x, of any length.
    step: displacement, in the length of x, of the row that moves farthest. None means the cube root of the rounding
        unit, 6e-6 in float64. This is best where forces are exact to rounding and lengths are about 1. For noisy
        forces, such as those of an iterated electronic structure, take about the cube root of their relative noise.
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
    """Return the exact Hessian times ``v``, (n_rows, d), by differentiating one evaluation of the forces.

    x: (n_rows, d) points. v: (n_rows, d) tangent vectors at x.
    The force must be differentiable. One backward pass is enough, because the Hessian is symmetric on the tangent
    space.
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
    """Return ``v (n_rows, d)`` with zeros on fixed rows."""
    return v if landscape.fixed is None else v.masked_fill(landscape.fixed[:, None], 0.0)


def rigid_motions(
    x: torch.Tensor, segments: Segments, pbc: torch.Tensor, fixed: torch.Tensor | None
) -> torch.Tensor:
    """Return the rigid motions of atoms that leave all fixed atoms in place: (6, n_rows, 3).

    They are orthonormal within each problem. A problem with fewer than six has zeros in the remaining places.

    x: (n_rows, 3).
    fixed: (n_rows,) bool or None.
    pbc: (n_problems, 3) bool. A system with any periodic direction has translations only.
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
    """Return combinations of ``motions (6, n_rows, 3)`` that leave fixed rows in place; the other places are zero."""
    held = torch.where(fixed[:, None], motions, 0.0)
    gram = torch.stack([segments.sum_stack(held * one) for one in held], -1)
    values, vectors = torch.linalg.eigh(gram)
    held_rows = segments.sum(fixed.to(motions.dtype)).clamp(min=1.0)
    still = values <= 1e3 * torch.finfo(motions.dtype).eps * held_rows[:, None]
    weights = vectors * still[:, None, :]
    return torch.stack([segments.combine(weights[:, :, i], motions) for i in range(len(motions))])
