"""The posterior of a linear fit, and how further labels would narrow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.fitting.least_squares import Weights, covariance_root, solve, triangle
from mlopt.optimizers.querying.maxvol import Matrix, column_scale
from mlopt.optimizers.querying.pool import Pool, mean_rows
from mlopt.optimizers.querying.rows import label_rows

_ATOMS = 2048
#: information on each coefficient without labels, relative to that of one row with columns of size 1
_LITTLE = 1e-6


@dataclass(frozen=True, eq=False)
class Posterior:
    """The covariance of coefficients ``root @ root.T (p, p)``, in units of the variance of a weighted row."""

    root: Matrix

    @classmethod
    def of(cls, potential: FittablePotential, pool: Pool, weights: Weights, bases: list[Matrix]) -> Self:
        """Return the posterior of a fit to the known labels, with the prior of the largest evidence.

        Without any label, coefficients are free, but for little: the bases (rows of candidates) say their sizes.
        """
        known = pool.known
        if bool(known.with_energy.any() | known.with_force.any()):
            rows, degrees = triangle(potential, known, weights), potential.roughness()
            solution = solve(rows, degrees)
            return cls(covariance_root(rows, solution, degrees).numpy() / max(solution.deviation, 1e-300))
        sizes = np.stack([column_scale(one) for one in bases]).mean(0)
        return cls(np.diag(1.0 / (np.sqrt(_LITTLE) * sizes)))

    def after(self, rows: Matrix) -> Posterior:
        """Return the posterior once the labels of ``rows (r, p)`` are known."""
        reach = rows @ self.root
        return Posterior(
            self.root @ np.linalg.inv(np.linalg.cholesky(np.eye(reach.shape[1]) + reach.T @ reach)).T
        )


def compressed(rows: Matrix) -> Matrix:
    """Return at most p rows with the same information as ``rows (r, p)``."""
    return np.asarray(np.linalg.qr(rows, mode="r")) if len(rows) > rows.shape[1] else rows


def candidate_rows(potential: FittablePotential, pool: Pool, weights: Weights) -> list[Matrix]:
    """Return the rows that a label of each candidate would bring, compressed. Memory: n p^2 numbers at most."""
    found: list[Matrix] = []
    for first, stop in pool.systems.segments.blocks(_ATOMS):
        part = pool.systems.select(torch.arange(first, stop))
        found += [compressed(one) for one in label_rows(potential, part, weights)]
    return found


def energy_root(potential: FittablePotential, pool: Pool) -> Matrix:
    """Return T (p, p) or less, where ``T.T @ T`` is the mean square of energies per atom over the candidates."""
    rows = mean_rows(potential, pool.systems)
    return compressed(rows / np.sqrt(max(len(rows), 1)))
