"""Kinetic energy, temperature, degrees of freedom and thermal velocities of the rows of a landscape.

Masses are the landscape's `inertia`, so that no unit has to be converted here. For atoms with a potential in eV and
angstrom, velocities are in angstrom/fs and temperatures in kelvin. For reduced units both are reduced.
"""

from __future__ import annotations

from typing import TypeAlias

from mlopt.core.batch.random import Draws
from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch

#: a hyper-parameter: one number, or a tensor with one number a problem
Setting: TypeAlias = "float | torch.Tensor"


def kinetic_energy(landscape: Landscape, velocity: torch.Tensor) -> torch.Tensor:
    """Return the kinetic energy (n_problems,) of ``velocity (n_rows, d)``, in the landscape's unit of energy."""
    return half_square(landscape.segments, landscape.inertia.to(velocity)[:, None], velocity)


def half_square(segments: Segments, inertia: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
    """Return ``m v^2 / 2`` (n_problems,). inertia: (n_rows, 1). velocity: (n_rows, d)."""
    return 0.5 * segments.sum(inertia * velocity * velocity)


def temperature(landscape: Landscape, velocity: torch.Tensor, freedom: torch.Tensor) -> torch.Tensor:
    """Return the kinetic temperature ``2 K / (f k_B)`` (n_problems,), K, or reduced; 0 without degrees of freedom.

    velocity: (n_rows, d). freedom: (n_problems,) numbers of degrees of freedom f, see `degrees_of_freedom`.
    """
    kinetic = kinetic_energy(landscape, velocity)
    return torch.where(freedom > 0, 2.0 * kinetic / (freedom.clamp(min=1.0) * landscape.boltzmann), 0.0)


def degrees_of_freedom(
    landscape: Landscape, x: torch.Tensor, kept: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the number of degrees of freedom of each problem, (n_problems,) in the dtype of ``x (n_rows, d)``.

    Rows count with the dimension of their tangent space, and fixed rows do not count.
    kept: (m, n_rows, d) motions without velocity, from `conserved_motions`; each takes one degree of freedom.
    """
    segments, manifold = landscape.segments, landscape.manifold
    count = torch.zeros_like(x[:, 0])
    for axis, unit in enumerate(torch.eye(x.shape[1], dtype=x.dtype, device=x.device)):
        count = count + manifold.project(x, unit.expand_as(x))[:, axis]  # the trace of the projection
    if landscape.fixed is not None:
        count = count.masked_fill(landscape.fixed, 0.0)
    freedom = segments.sum(count[:, None]).round()
    if kept is not None and len(kept):
        freedom = freedom - (segments.sum_stack(kept * kept) > 0).to(x).sum(-1)
    return freedom


def conserved_motions(landscape: Landscape, x: torch.Tensor, rotation: bool) -> torch.Tensor:
    """Return the rigid motions whose momenta dynamics conserve: (m, n_rows, d), orthonormal in the metric of masses.

    They are the translations of problems without fixed rows. With ``rotation`` they are all motions that
    `Landscape.free_motions` names, such as rotations of free clusters. A problem that has fewer than m has zeros.
    """
    segments, inertia = landscape.segments, landscape.inertia.to(x)[:, None]
    found = landscape.free_motions(x)
    if found is None:
        return x.new_zeros(0, *x.shape)
    if not rotation:
        found = found[: x.shape[1]]
        if landscape.fixed is not None:
            held = segments.max(landscape.fixed.to(x)) > 0
            found = torch.where(segments.rows_of(held)[:, None], 0.0, found)
    kept: list[torch.Tensor] = []
    for motion in found:
        for one in kept * 2:  # once leaves rounding behind
            motion = motion - segments.scale(segments.dot(one, inertia * motion), one)
        square = segments.dot(motion, inertia * motion)
        length = square.clamp(min=torch.finfo(x.dtype).tiny).rsqrt()
        kept.append(segments.scale(torch.where(square > 0, length, 0.0), motion))
    return torch.stack(kept)


def without_motions(landscape: Landscape, velocity: torch.Tensor, motions: torch.Tensor) -> torch.Tensor:
    """Return ``velocity (n_rows, d)`` without its components along ``motions`` of `conserved_motions`."""
    segments, inertia = landscape.segments, landscape.inertia.to(velocity)[:, None]
    for motion in motions:
        velocity = velocity - segments.scale(segments.dot(motion, inertia * velocity), motion)
    return velocity


def thermal_velocities(
    landscape: Landscape, x: torch.Tensor, draws: Draws, temperature: Setting, motions: torch.Tensor
) -> torch.Tensor:
    """Return velocities (n_rows, d) from the Maxwell-Boltzmann distribution at ``temperature``.

    Fixed rows are at rest. motions: from `conserved_motions`, which get no velocity. The remaining degrees of freedom
    keep the canonical distribution, so the kinetic energy scatters about its mean.
    """
    width = (landscape.boltzmann * numbers(temperature, landscape.segments, x)).sqrt()
    return without_motions(landscape, thermal_noise(landscape, x, draws, width), motions)


def thermal_noise(landscape: Landscape, x: torch.Tensor, draws: Draws, width: torch.Tensor) -> torch.Tensor:
    """Return normal tangent vectors (n_rows, d) with standard deviation ``width (n_problems,)`` over sqrt(inertia).

    Fixed rows get zeros.
    """
    noise = landscape.manifold.project(x, draws.normal_rows(x.shape[1]).to(x))
    if landscape.fixed is not None:
        noise = noise.masked_fill(landscape.fixed[:, None], 0.0)
    return landscape.segments.scale(width, noise * landscape.inertia.to(x)[:, None].rsqrt())


def numbers(setting: Setting, segments: Segments, like: torch.Tensor) -> torch.Tensor:
    """Return a hyper-parameter as one number for each problem: (n_problems,) in the dtype of ``like``."""
    value = setting.to(like) if isinstance(setting, torch.Tensor) else setting
    return like.new_zeros(segments.n_problems) + value
