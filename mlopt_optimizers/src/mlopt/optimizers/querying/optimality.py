"""Optimal designs by other criteria than the determinant, one structure after the other."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mlopt.core.plugins.plugin import setting
from mlopt.optimizers.querying.maxvol import Matrix
from mlopt.optimizers.querying.pool import Pool
from mlopt.optimizers.querying.strategy import Greedy, Plan

#: candidates that a maximum or a mean is taken over
_REFERENCES = 2000


class Optimality(Greedy):
    """The energy row that does most for one criterion of an optimal design (Pukelsheim 2006).

    Let V be the inverse of the information matrix of the rows. Each choice is the row that lowers the criterion most:

    - A: the trace of V, which stands for the mean variance of coefficients.
    - E: the largest eigenvalue of V, to first order.
    - G: the largest variance of an energy per atom among the candidates.
    - I: the mean of these variances.

    Potentials that are not linear are linearised around their parameters.
    """

    criterion: Literal["A", "E", "G", "I"] = setting("I", "what is lowered, see above")
    ridge: float = setting(
        1e-6, "information on each coefficient before any label, with columns of size 1", gt=0
    )

    def _plan(self, pool: Pool, count: int) -> Plan:
        pool.fittable("optimality")
        return _Design(self.criterion, self.ridge, *pool.mean_rows)

    def _reason(self) -> str:
        return f"{self.criterion}-optimal"


class _Design:
    """The variance of coefficients, and what each row takes of it."""

    def __init__(self, criterion: str, ridge: float, rows: Matrix, known: Matrix) -> None:
        self._criterion, self._rows = criterion, rows
        step = max(1, -(-len(rows) // _REFERENCES))
        self._references = rows[::step]
        self.variance = np.linalg.inv(ridge * np.eye(rows.shape[1]) + known.T @ known)

    def values(self) -> Matrix:
        rows, variance = self._rows, self.variance
        reach = rows @ variance
        own = 1.0 + np.einsum("nm,nm->n", reach, rows)
        if self._criterion == "A":
            return np.asarray(np.einsum("nm,nm->n", reach, reach) / own)
        if self._criterion == "E":
            return np.asarray((rows @ np.linalg.eigh(variance)[1][:, -1]) ** 2)
        between = (reach @ self._references.T) ** 2 / own[:, None]
        if self._criterion == "I":
            return np.asarray(between.mean(1))
        before = np.einsum("nm,nm->n", self._references @ variance, self._references)
        # where the largest is one of several, no row lowers it: the mean decides
        return np.asarray(before.max() - (before - between).max(1) + 1e-6 * between.mean(1))

    def take(self, index: int) -> None:
        row = self._rows[index]
        reach = self.variance @ row
        self.variance = self.variance - np.outer(reach, reach) / (1.0 + row @ reach)
