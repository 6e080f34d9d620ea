"""Expected model change: the structures whose labels would pull most at the parameters."""

from __future__ import annotations

import numpy as np

from mlopt.core.plugins.plugin import setting
from mlopt.optimizers.querying.maxvol import Matrix
from mlopt.optimizers.querying.pool import Pool
from mlopt.optimizers.querying.strategy import Scored


class ModelChange(Scored):
    """The expected length of the gradient of the loss of one more energy (Settles, Craven & Ray, NIPS 2007).

    The gradient is the derivative of the energy per atom with respect to the parameters, times the expected deviation
    of the label. Its length is taken in units that make parameters comparable. The deviation is that of the posterior
    under the known structures; of a committee it would be its spread, see `committee`.
    """

    ridge: float = setting(
        1e-3, "information on each parameter before any label, with columns of size 1", gt=0
    )

    def _values(self, pool: Pool) -> Matrix:
        pool.fittable("model-change")
        rows, known = pool.mean_rows
        # the potential may have many more parameters than there are structures: all is done in their space
        variance = np.einsum("nm,nm->n", rows, rows)
        if len(known):
            between = rows @ known.T
            inner = np.linalg.solve(self.ridge * np.eye(len(known)) + known @ known.T, between.T)
            variance = variance - np.einsum("nk,kn->n", between, inner)
        size = np.sqrt(np.einsum("nm,nm->n", rows, rows))
        return np.asarray(size * np.sqrt(np.maximum(variance, 0.0) / self.ridge + 1.0))

    def _reason(self) -> str:
        return "largest expected change of the parameters"
