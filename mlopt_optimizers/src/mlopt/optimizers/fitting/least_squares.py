"""Linear least squares for potentials: rows in blocks, a triangle that stands for all of them, and a smooth prior.

The triangle R of the weighted rows is made block by block (QR), so that memory is bounded. No squares of the singular
values are formed, because with 1,000 functions these reach below 1e-18 of the largest. From the singular values of R
the problem is solved for every strength of the prior at once. The strength with the largest evidence is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
    """The rows of a fit, as the triangle of their QR decomposition.

    upper (p + 1, p + 1): the triangle; the last column is the right-hand side.
    squares (p,): sums of squares of the columns over rows of forces.
    n_forces: number of rows of forces.
    rows: number of all rows.
    """

    upper: NDArray[np.float64]
    squares: NDArray[np.float64]
    n_forces: int
    rows: int

    @classmethod
    def merged(cls, parts: Sequence[Triangle]) -> Triangle:
        """Return the triangle of all rows of some others."""
        upper = parts[0].upper
        for one in parts[1:]:
            upper = np.asarray(np.linalg.qr(np.concatenate([upper, one.upper]), mode="r"))
        return cls(
            _square(upper),
            np.sum([one.squares for one in parts], axis=0),
            sum(one.n_forces for one in parts),
            sum(one.rows for one in parts),
        )

    def residual(self, theta: NDArray[np.float64]) -> float:
        """Return the sum of squared residuals of these rows for coefficients (p,)."""
        off = self.upper @ np.concatenate([theta, [-1.0]])
        return float(off @ off)


def _square(upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the triangle with rows of zeros where there were fewer rows than columns."""
    full = np.zeros((upper.shape[1], upper.shape[1]))
    full[: len(upper)] = upper
    return full


@dataclass(frozen=True, eq=False)
class Solution:
    """Coefficients of a fit.

    theta (p,): the coefficients.
    strength: strength of the prior, relative to the square of the largest singular value.
    evidence: logarithm of the evidence.
    deviation: root mean square of the residual of a weighted row.
    """

    theta: torch.Tensor
    strength: float
    evidence: float
    deviation: float


def triangle(potential: FittablePotential, data: Dataset, weights: Weights, memory: float = 1.0) -> Triangle:
    """Return the triangle of all weighted rows of ``data``; every atom with a known force counts.

    memory: GB that a block of rows may take.

    Raises:
        InputError: the potential is not linear in its parameters.
    """
    p = potential.parameters.shape[-1]
    upper = np.zeros((0, p + 1))
    squares, n_forces, n_rows = np.zeros(p), 0, 0
    for block, forces in _blocks(potential, data, weights, memory):
        squares += (block[forces, :-1] ** 2).sum(0)
        n_forces, n_rows = n_forces + len(block[forces]), n_rows + len(block)
        upper = np.asarray(np.linalg.qr(np.concatenate([upper, block]), mode="r"))
    return Triangle(_square(upper), squares, n_forces, n_rows)


def atom_bytes(parameters: int) -> float:
    """Return the bytes that the rows of an atom take: as rows in two orders, and in a decomposition."""
    return 8.0 * 4.0 * 3.0 * parameters


def _blocks(
    potential: FittablePotential, data: Dataset, weights: Weights, memory: float
) -> Iterator[tuple[NDArray[np.float64], slice]]:
    """Weighted rows with their right-hand side (n, p + 1), and which of them are of forces."""
    p = potential.parameters.shape[-1]
    most = max(1, int(memory * 1e9 / atom_bytes(p)))
    for first, stop in data.systems.segments.blocks(most):
        yield _rows(potential, data.select(list(range(first, stop))), weights)


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
        known = torch.isfinite(part.force).all(-1) & ~part.systems.fixed
        atoms = part.systems.segments.rows_of(share > 0) & known
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


@dataclass(frozen=True, eq=False)
class _Problem:
    """A triangle with the columns that have no prior solved for, in terms of singular values of the others.

    order: (p,) which parameter each column is, free ones first. scale: (p - free,) deviations of the prior, inverted.
    """

    upper: NDArray[np.float64]
    order: NDArray[np.int64]
    free: int
    rows: int
    scale: NDArray[np.float64]
    vt: NDArray[np.float64]
    s: NDArray[np.float64]
    z: NDArray[np.float64]
    rest: float

    @classmethod
    def of(cls, rows: Triangle, degrees: NDArray[np.float64] | None, smooth: float) -> _Problem:
        p = len(rows.squares)
        penalty = np.ones(p) if degrees is None else np.where(degrees > 0, degrees, 1.0) ** smooth
        bound = np.ones(p, dtype=bool) if degrees is None else degrees > 0
        order = np.concatenate([np.flatnonzero(~bound), np.flatnonzero(bound)])
        free = int((~bound).sum())
        root = np.sqrt(rows.squares / max(rows.n_forces, 1))
        typical = float(np.median(root[root > 0])) if (root > 0).any() else 1.0
        root = np.where(root > 1e-12 * typical, root, typical)
        columns = np.concatenate([rows.upper[:, order], rows.upper[:, -1:]], 1)
        upper = np.asarray(np.linalg.qr(columns, mode="r"))
        scale = (root * penalty)[order[free:]]
        u, s, vt = np.linalg.svd(upper[free:p, free:p] / scale)
        return cls(
            upper, order, free, rows.rows, scale, vt, s, u.T @ upper[free:p, p], float(upper[p, p] ** 2)
        )

    @property
    def top(self) -> float:
        return float(self.s.max(initial=0.0)) ** 2 or 1.0

    def bound(self, strength: float) -> NDArray[np.float64]:
        """Return the factors (p,) of coefficients whose squares are the prior's share; 0 for those that are free."""
        found = np.zeros(len(self.order))
        found[self.order[self.free :]] = math.sqrt(strength * self.top) * self.scale
        return found

    def left(self, strength: float) -> float:
        """Return the sum of squares and of the prior's share at its least."""
        one = strength * self.top
        return self.rest + float((self.z**2 * one / (self.s**2 + one)).sum())

    def evidence(self, strength: float) -> float:
        """Return the logarithm of the evidence, up to a constant of all potentials that are fitted to these rows."""
        degrees = max(self.rows - self.free, 1)
        occam = float(np.log1p(self.s**2 / (strength * self.top)).sum())
        return -0.5 * (degrees * math.log(max(self.left(strength), 1e-300) / degrees) + occam)

    def theta(self, strength: float) -> NDArray[np.float64]:
        free, p = self.free, len(self.order)
        bound = self.vt.T @ (self.s * self.z / (self.s**2 + strength * self.top)) / self.scale
        found = np.zeros(p)
        found[self.order[free:]] = bound
        side = self.upper[:free, p] - self.upper[:free, free:p] @ bound
        # a species that is in no energy leaves its constant undetermined, and it stays zero
        found[self.order[:free]] = np.linalg.lstsq(self.upper[:free, :free], side, rcond=1e-12)[0]
        return found

    def root(self, strength: float) -> NDArray[np.float64]:
        """Return a root of the inverse of the Hessian of half the sum of squares and prior: (p, p)."""
        free, p = self.free, len(self.order)
        spread = np.zeros((p, p))
        spread[free:, free:] = (self.vt.T / np.sqrt(self.s**2 + strength * self.top)) / self.scale[:, None]
        inverse = np.linalg.pinv(self.upper[:free, :free], rcond=1e-12)
        spread[:free, :free] = inverse
        spread[:free, free:] = -inverse @ self.upper[:free, free:p] @ spread[free:, free:]
        ordered = np.zeros((p, p))
        ordered[self.order] = spread
        return ordered


def solve(
    rows: Triangle,
    degrees: torch.Tensor | None = None,
    *,
    strength: float | None = None,
    smooth: float = 1.0,
    folds: Sequence[Triangle] = (),
) -> Solution:
    """Return the coefficients under a prior, by default of the strength with the largest evidence.

    The evidence assumes normal noise and normal coefficients (MacKay, Neural Comput. 4, 415 (1992)). The variance of
    the noise is integrated out at its best value.

    degrees: (p,) of `FittablePotential.roughness`; coefficients of degree 0 have no prior. The prior's deviation of a
        coefficient is ``1 / (rms * degree ** smooth)``, with the root mean square of its column over forces.
    strength: relative to the square of the largest singular value.
    folds: triangles that together are ``rows``. The strength is then that by which each fold is best predicted from the
        others.

    Raises:
        InputError: there are no rows.
    """
    if rows.rows == 0:
        raise InputError(
            "fit: no energies, forces or stresses of the data have a weight; there is nothing to fit to"
        )
    told = None if degrees is None else degrees.numpy()
    problem = _Problem.of(rows, told, smooth)
    if strength is not None:
        chosen = strength
    elif folds:
        chosen = float(_STRENGTHS[int(np.argmin(_cross_validated(folds, told, smooth, _STRENGTHS)))])
    else:
        chosen = float(_STRENGTHS[int(np.argmax([problem.evidence(float(one)) for one in _STRENGTHS]))])
    deviation = math.sqrt(problem.left(chosen) / max(rows.rows - problem.free, 1))
    return Solution(
        torch.from_numpy(problem.theta(chosen)),
        chosen,
        problem.evidence(chosen),
        deviation,
    )


def covariance_root(
    rows: Triangle, solution: Solution, degrees: torch.Tensor | None = None, *, smooth: float = 1.0
) -> torch.Tensor:
    """Return R (p, p), for which ``R @ R.T`` is the covariance of the coefficients that `solve` has found.

    It is the covariance of the posterior under the prior and normal noise, whose deviation is that of the fit.
    Coefficients are drawn as ``theta + R @ z`` with standard normal z. Arguments are those of `solve`.

    Source: MacKay, Neural Comput. 4, 415 (1992), eq. 2.8.
    """
    problem = _Problem.of(rows, None if degrees is None else degrees.numpy(), smooth)
    return torch.from_numpy(solution.deviation * problem.root(solution.strength))


def prior_factors(
    rows: Triangle, degrees: torch.Tensor | None, *, strength: float, smooth: float = 1.0
) -> NDArray[np.float64]:
    """Return the prior of `solve` as factors (p,): its share of the sum of squares is ``sum (factor * theta)^2``.

    degrees, smooth: as in `solve`.
    strength: relative to the square of the largest singular value of ``rows``.
    """
    return _Problem.of(rows, None if degrees is None else degrees.numpy(), smooth).bound(strength)


def solve_bound(rows: Triangle, factors: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the coefficients (p,) under a prior of given ``factors (p,)``, and the sum of squares with its share."""
    p = len(factors)
    matrix = np.concatenate([rows.upper[:, :p], np.diag(factors)])
    side = np.concatenate([rows.upper[:, p], np.zeros(p)])
    size = np.sqrt((matrix**2).sum(0))
    size = np.where(size > 0, size, 1.0)
    theta = np.linalg.lstsq(matrix / size, side, rcond=None)[0] / size
    off = matrix @ theta - side
    return theta, float(off @ off)


def left_out(
    folds: Sequence[Triangle], degrees: torch.Tensor | None = None, *, strength: float, smooth: float = 1.0
) -> float:
    """Return the root mean square of the weighted rows of each fold under the coefficients of the others.

    folds: triangles that together are the rows of a fit.
    degrees, strength, smooth: as in `solve`.
    """
    told = None if degrees is None else degrees.numpy()
    total = _cross_validated(folds, told, smooth, np.array([strength]))[0]
    return math.sqrt(total / max(sum(one.rows for one in folds), 1))


def _cross_validated(
    folds: Sequence[Triangle],
    degrees: NDArray[np.float64] | None,
    smooth: float,
    strengths: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Residuals of each fold under coefficients of the others, summed, for each of ``strengths``."""
    total = np.zeros(len(strengths))
    after = [folds[-1]]  # those after each fold together, the last first
    for one in folds[-2:0:-1]:
        after.append(Triangle.merged([one, after[-1]]))
    before: list[Triangle] = []  # those before it together
    for left, fold in enumerate(folds):
        others = before + ([after.pop()] if left < len(folds) - 1 else [])
        problem = _Problem.of(Triangle.merged(others), degrees, smooth)
        total += [fold.residual(problem.theta(float(one))) for one in strengths]
        before = [Triangle.merged([*before, fold])]
    return total
