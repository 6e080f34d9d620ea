"""Linear least squares for potentials: rows in blocks, a triangle that stands for all of them, and a smooth prior.

The triangle R of the weighted rows is made block by block (QR), so that memory is bounded and no squares of the
singular values are formed: with 1,000 functions these reach below 1e-18 of the largest. From the singular values of R
every strength of the prior is solved at once, and the strength is that of the largest evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin, setting
from mlopt.core.protocols.fittable import FittablePotential

#: strengths that are tried, relative to the square of the largest singular value
_STRENGTHS = np.logspace(-24.0, 0.0, 97)


class Weights(Plugin):
    """Weights of residuals: of energies per root of the number of atoms, of forces, and of virials likewise."""

    energy: float = setting(30.0, "of ``dE / sqrt(N)``", unit="1/eV", ge=0)
    force: float = setting(1.0, "of each component of a force", unit="angstrom/eV", ge=0)
    stress: float = setting(0.0, "of ``volume * d(stress) / sqrt(N)``", unit="1/eV", ge=0)


@dataclass(frozen=True, eq=False)
class Triangle:
    """All rows of a fit, as the triangle of their QR decomposition.

    upper: (p + 1, p + 1) the triangle of the columns, free ones first, with the right-hand side as the last column.
    order: (p,) which parameter each column is. free: number of columns without a prior. rows: how many rows there were.
    scale: (p,) the root mean square of each column over the rows of forces, 1 where that is zero.
    """

    upper: NDArray[np.float64]
    order: NDArray[np.int64]
    free: int
    rows: int
    scale: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Solution:
    """Coefficients of a fit.

    theta (p,). strength: of the prior, relative to the square of the largest singular value. evidence: its logarithm.
    deviation: the root mean square of a weighted row. factor (p, p): times a vector of independent normal numbers and
    ``deviation`` it is a sample of what theta may be besides; its square is the covariance.
    """

    theta: torch.Tensor
    strength: float
    evidence: float
    deviation: float
    factor: NDArray[np.float64]


def triangle(
    potential: FittablePotential, data: Dataset, weights: Weights, memory: float = 1.0, smooth: float = 1.0
) -> Triangle:
    """Return the triangle of all weighted rows of ``data``.

    memory: GB that a block of rows may take. smooth: the power of the degree in the prior; 0 gives none but constants.

    Raises:
        InputError: the potential is not linear in its parameters, or nothing is known to fit it to.
    """
    degrees = potential.roughness()
    p = potential.parameters.shape[-1]
    penalty = np.ones(p) if degrees is None else degrees.numpy() ** smooth
    if degrees is not None:
        penalty[degrees.numpy() == 0.0] = 0.0
    order = np.concatenate([np.flatnonzero(penalty == 0.0), np.flatnonzero(penalty > 0.0)])
    free = int((penalty == 0.0).sum())
    upper = np.zeros((0, p + 1))
    squares, n_forces, n_rows = np.zeros(p), 0, 0
    for block, forces in _blocks(potential, data, weights, memory):
        squares += (block[forces, :-1] ** 2).sum(0)
        n_forces, n_rows = n_forces + len(block[forces]), n_rows + len(block)
        ordered = np.concatenate([block[:, order], block[:, -1:]], 1)
        upper = np.asarray(np.linalg.qr(np.concatenate([upper, ordered]), mode="r"))
    if n_rows == 0:
        raise InputError(
            "fit: no energies, forces or stresses of the data have a weight; there is nothing to fit to"
        )
    scale = np.sqrt(squares / max(n_forces, 1))
    typical = np.median(scale[scale > 0]) if (scale > 0).any() else 1.0
    scale = np.where(scale > 1e-12 * typical, scale, typical)
    scale = np.where(penalty > 0, scale * np.where(penalty > 0, penalty, 1.0), 1.0)
    full = np.zeros((p + 1, p + 1))
    full[: len(upper)] = upper
    return Triangle(full, order, free, n_rows, scale)


def _blocks(
    potential: FittablePotential, data: Dataset, weights: Weights, memory: float
) -> Iterator[tuple[NDArray[np.float64], slice]]:
    """Weighted rows with their right-hand side (n, p + 1), and which of them are of forces."""
    p = potential.parameters.shape[-1]
    most = max(
        1, int(memory * 1e9 / (8.0 * 4.0 * p * 3.0))
    )  # atoms: rows, their copy in order, the triangle's work
    counts = data.systems.segments.counts.tolist()
    first = 0
    while first < len(data):
        stop, atoms = first, 0
        while stop < len(data) and (stop == first or atoms + counts[stop] <= most):
            atoms += counts[stop]
            stop += 1
        yield _rows(potential, data.select(list(range(first, stop))), weights)
        first = stop


def _rows(potential: FittablePotential, part: Dataset, weights: Weights) -> tuple[NDArray[np.float64], slice]:
    stress = weights.stress > 0 and bool(part.with_stress.any())
    design = potential.design(part.systems, force=weights.force > 0, stress=stress)
    if design is None:
        raise InputError(
            f"fit: {type(potential).__name__} is not linear in its parameters; give an `optimizer` for its loss"
        )
    root = part.systems.segments.counts.to(torch.float64).sqrt()
    share = part.weight.sqrt()
    energy = part.energy if design.fixed_energy is None else part.energy - design.fixed_energy
    known = part.with_energy & (share > 0) & (weights.energy > 0)
    factor = (weights.energy * share / root)[known]
    sides = [torch.cat([design.energy[known], energy[known, None]], 1) * factor[:, None]]
    begin = len(sides[0])
    if design.force is not None:
        force = part.force if design.fixed_force is None else part.force - design.fixed_force
        atoms = part.systems.segments.rows_of(part.with_force & (share > 0)) & ~part.systems.fixed
        factor = weights.force * part.systems.segments.rows_of(share)[atoms]
        sides.append(
            (torch.cat([design.force[atoms], force[atoms, :, None]], -1) * factor[:, None, None]).flatten(
                0, 1
            )
        )
    end = begin + (len(sides[1]) if len(sides) > 1 else 0)
    if design.stress is not None:
        target = part.stress if design.fixed_stress is None else part.stress - design.fixed_stress
        chosen = part.with_stress & (share > 0)
        factor = (weights.stress * share * part.systems.volume / root)[chosen]
        both = torch.cat([design.stress[chosen], target[chosen, :, :, None]], -1)
        sides.append((both * factor[:, None, None, None]).flatten(0, 2))
    return torch.cat(sides).numpy(), slice(begin, end)


def solve(rows: Triangle, strength: float | None = None) -> Solution:
    """Return the coefficients under a prior of a strength, by default that of the largest evidence.

    The evidence is that of a linear model with normal noise whose variance is integrated out at its best value, and
    normal coefficients with the deviation ``1 / scale`` times a common factor (MacKay, Neural Comput. 4, 415 (1992)).
    """
    p, free = len(rows.order), rows.free
    upper = rows.upper
    scale = rows.scale[rows.order]
    bound = upper[free:p, free:p] / scale[free:]
    side = upper[free:p, p]
    u, s, vt = np.linalg.svd(bound)
    z = u.T @ side
    rest = float(upper[p, p] ** 2)
    top = float(s.max(initial=0.0)) ** 2 or 1.0
    degrees = max(rows.rows - free, 1)
    tried = _STRENGTHS if strength is None else np.array([strength])
    values = []
    for one in tried * top:
        left = rest + float((z * z * one / (s * s + one)).sum())
        values.append(
            -0.5 * (degrees * math.log(max(left, 1e-300) / degrees) + float(np.log1p(s * s / one).sum()))
        )
    best = int(np.argmax(values))
    chosen = float(tried[best]) * top
    bound_theta = vt.T @ (s * z / (s * s + chosen)) / scale[free:]
    left = rest + float((z * z * chosen / (s * s + chosen)).sum())
    theta = np.zeros(p)
    theta[rows.order[free:]] = bound_theta
    corner = upper[:free, :free]
    # a species that is in no energy leaves its constant undetermined, and it stays zero
    theta[rows.order[:free]] = np.linalg.lstsq(
        corner, upper[:free, p] - upper[:free, free:p] @ bound_theta, rcond=1e-12
    )[0]
    spread = np.zeros((p, p))
    spread[free:, free:] = (vt.T / np.sqrt(s * s + chosen)) / scale[free:, None]
    inverse = np.linalg.pinv(corner, rcond=1e-12)
    spread[:free, :free] = inverse
    spread[:free, free:] = -inverse @ upper[:free, free:p] @ spread[free:, free:]
    factor = np.zeros((p, p))
    factor[rows.order] = spread
    return Solution(
        torch.from_numpy(theta), float(tried[best]), float(values[best]), math.sqrt(left / degrees), factor
    )
