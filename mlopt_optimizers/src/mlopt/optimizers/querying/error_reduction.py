"""Estimated error reduction: the label after which the error of a fit is expected to be least."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from mlopt.core.batch.random import derive, normal
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.optimizers.fitting.least_squares import Weights
from mlopt.optimizers.querying.maxvol import Matrix
from mlopt.optimizers.querying.pool import Pool
from mlopt.optimizers.querying.posterior import Posterior, candidate_rows
from mlopt.optimizers.querying.strategy import Greedy, Plan

#: rows that errors are measured on
_REFERENCES = 2000


class ErrorReduction(Greedy):
    """The structure after whose label the error on all candidates is expected to be least.

    Several draws from the posterior serve as the truth. For each candidate and each draw, labels are drawn and the fit
    is updated with them. Then its error in the weighted rows of the candidates is measured.

    Source: Roy & McCallum, ICML 2001.
    """

    needs_potential: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True

    weights: Weights = setting(Weights(), "of energies, forces and stresses, as in the fit")
    measure: Literal["rms", "max"] = setting("rms", "root mean square, or largest, of the weighted residuals")
    draws: int = setting(16, "coefficients that stand for the truth", ge=2)

    def _plan(self, pool: Pool, count: int) -> Plan:
        potential = pool.fittable("error-reduction", linear=True)
        if not bool(pool.known.with_energy.any() | pool.known.with_force.any()):
            raise InputError(
                "error-reduction: needs known structures with labels; begin with d-optimal or random"
            )
        rows = candidate_rows(potential, pool, self.weights)
        return _Errors(rows, Posterior.of(potential, pool, self.weights, rows), self, pool.key)

    def _reason(self) -> str:
        return f"largest expected reduction of the {self.measure} error"


class _Errors:
    """Deviations of draws from the fit, and what they become with the label of each candidate."""

    def __init__(
        self, rows: list[Matrix], posterior: Posterior, strategy: ErrorReduction, key: torch.Tensor
    ) -> None:
        self._rows, self._posterior, self._measure = rows, posterior, strategy.measure
        self._key, self._step = key.cpu(), 0
        every = np.concatenate(rows)
        self._references = every[:: max(1, -(-len(every) // _REFERENCES))]
        self._off: Matrix = posterior.root @ self._drawn(0, posterior.root.shape[1], strategy.draws)

    def _drawn(self, stream: int, size: int, draws: int) -> Matrix:
        keys = derive(self._key, self._step, stream, torch.arange(draws))
        return np.asarray(normal(keys, torch.zeros_like(keys), size).numpy().T)

    def _error(self, off: Matrix) -> float:
        left = self._references @ off
        if self._measure == "max":
            return float(np.abs(left).max(0).mean())
        return float(np.sqrt((left**2).mean(0)).mean())

    def _updated(self, index: int) -> Matrix:
        """Deviations (p, draws) of the fit with the labels of a candidate."""
        rows, root = self._rows[index], self._posterior.root
        noise = self._drawn(1, len(rows), self._off.shape[1])
        reach = rows @ root
        moved = np.linalg.solve(np.eye(len(rows)) + reach @ reach.T, rows @ self._off + noise)
        return np.asarray(self._off - root @ (reach.T @ moved))

    def values(self) -> Matrix:
        before = self._error(self._off)
        found = [before - self._error(self._updated(index)) for index in range(len(self._rows))]
        # noise of the draws may hide a gain, and every label is worth something
        return np.asarray(np.maximum(np.array(found), 1e-12))

    def take(self, index: int) -> None:
        self._off = self._updated(index)
        self._posterior = self._posterior.after(self._rows[index])
        self._step += 1
