"""Variance reduction: the label after which predictions are least uncertain."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mlopt.core.plugins.plugin import setting
from mlopt.optimizers.fitting.least_squares import Weights
from mlopt.optimizers.querying.maxvol import Matrix
from mlopt.optimizers.querying.pool import Pool
from mlopt.optimizers.querying.posterior import Posterior, candidate_rows, energy_root
from mlopt.optimizers.querying.strategy import Greedy, Plan


class Variance(Greedy):
    """The structure whose energy and forces lower most the mean posterior variance of the energies of all candidates.

    The posterior is that of the linear fit to the known labels with its prior. A further label narrows it by an amount
    that does not depend on the label's value. Source: Cohn, Ghahramani & Jordan, J. Artif. Intell. Res. 4, 129 (1996).
    """

    needs_potential: ClassVar[bool] = True

    weights: Weights = setting(Weights(), "of energies, forces and stresses, as in the fit")

    def _plan(self, pool: Pool, count: int) -> Plan:
        potential = pool.fittable("variance", linear=True)
        rows = candidate_rows(potential, pool, self.weights)
        return _Variance(
            rows, energy_root(potential, pool), Posterior.of(potential, pool, self.weights, rows)
        )

    def _reason(self) -> str:
        return "largest reduction of the variance"


class _Variance:
    def __init__(self, rows: list[Matrix], wanted: Matrix, posterior: Posterior) -> None:
        self._rows, self._wanted, self._posterior = rows, wanted, posterior

    def values(self) -> Matrix:
        root = self._posterior.root
        target = root.T @ self._wanted.T
        found = np.zeros(len(self._rows))
        for index, rows in enumerate(self._rows):
            reach = rows @ root
            inside = np.linalg.solve(np.eye(len(rows)) + reach @ reach.T, reach @ target)
            found[index] = float(((reach @ target) * inside).sum())
        return found

    def take(self, index: int) -> None:
        self._posterior = self._posterior.after(self._rows[index])
