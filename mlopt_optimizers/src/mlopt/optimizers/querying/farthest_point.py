"""Farthest-point selection: each choice is the structure that is least like those known or chosen."""

from __future__ import annotations

import numpy as np

from mlopt.optimizers.querying.maxvol import Matrix
from mlopt.optimizers.querying.pool import Pool
from mlopt.optimizers.querying.strategy import Greedy, Nearness, Plan


class FarthestPoint(Greedy):
    """The candidate whose features are farthest from all that are known or chosen (Gonzalez 1985).

    Features are mean rows of a potential that is linear in its parameters, else radial functions. The potential may be
    left out.
    """

    def _plan(self, pool: Pool, count: int) -> Plan:
        return _Farthest(*pool.features)

    def _reason(self) -> str:
        return "farthest from all before"


class _Farthest:
    def __init__(self, features: Matrix, known: Matrix) -> None:
        self._near = Nearness(features, known)
        # the first choice without known ones: the candidate nearest to the middle
        away = np.sqrt((features**2).sum(1))
        self._first = 1.0 / (1.0 + away)

    def values(self) -> Matrix:
        finite = np.isfinite(self._near.distance)
        return np.where(finite, self._near.distance, self._first)

    def take(self, index: int) -> None:
        self._near.take(index)
