"""Strategies that look at no structure: at random, and in order."""

from __future__ import annotations

from typing import ClassVar

from mlopt.core.batch.random import derive, uniform
from mlopt.core.lazy import torch
from mlopt.optimizers.querying.pool import Pool
from mlopt.optimizers.querying.strategy import Fixed, Greedy, Plan


class Random(Greedy):
    """A random choice: what every other strategy must do better than. A structure draws its number by its digest."""

    _per_cost: ClassVar[bool] = False

    def _plan(self, pool: Pool, count: int) -> Plan:
        keys = derive(pool.key.cpu(), torch.from_numpy(pool.digest))
        return Fixed(1.0 + uniform(keys, torch.zeros_like(keys), 1)[:, 0].numpy())

    def _reason(self) -> str:
        return "at random"


class Passive(Greedy):
    """The first candidates in their order, as those of a trajectory; all of them if enough labels may be had."""

    in_order: ClassVar[bool] = True
    _per_cost: ClassVar[bool] = False

    def _plan(self, pool: Pool, count: int) -> Plan:
        return Fixed(1.0 + pool.place.max() - pool.place)

    def _reason(self) -> str:
        return "in order"
