"""What all query strategies share: the budget, and one choice after the other in an order that is no input."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.query import QueryStrategy, Selection
from mlopt.optimizers.querying.maxvol import Matrix
from mlopt.optimizers.querying.pool import Pool


class Plan(Protocol):
    """Values of candidates, which change as some are chosen."""

    def values(self) -> Matrix:
        """Return the present value (n,) of a label of each candidate; one that is not above 0 is not worth a label."""
        ...

    def take(self, index: int) -> None:
        """Count candidate ``index`` as labelled."""
        ...


class Greedy(QueryStrategy):
    """A strategy that takes one candidate after the other, each the most valuable after those before it.

    A choice does not depend on the order of the candidates. Repeats and known structures are never chosen, and their
    scores are NaN.
    """

    cost: Literal["structures", "atoms", "electrons"] = setting(
        "structures", "what a label costs: 1, or the number of atoms or electrons of the structure"
    )
    cost_power: float = setting(
        1.0, "the cost is this power of that number; about 3 for density functionals", gt=0
    )
    budget: float | None = setting(None, "largest sum of costs; none: as many labels as are asked for", gt=0)

    #: whether values are compared per cost
    _per_cost: ClassVar[bool] = True

    @abstractmethod
    def _plan(self, pool: Pool, count: int) -> Plan:
        """Return the values of candidates before any is chosen."""
        raise NotImplementedError(f"{type(self).__name__} must define `_plan`")

    @abstractmethod
    def _reason(self) -> str:
        """Return the reason for the choice, in a few words."""
        raise NotImplementedError(f"{type(self).__name__} must define `_reason`")

    def select(
        self,
        candidates: Systems,
        known: Dataset,
        fitted: Potential | None,
        count: int,
        key: torch.Tensor,
    ) -> Selection:
        """See `QueryStrategy.select`."""
        pool = Pool.of(candidates, known, fitted, key)
        n, scores = len(pool.place), torch.full((len(candidates),), torch.nan, dtype=torch.float64)
        if not n:
            what = "there are no candidates that are not known"
            return Selection(torch.zeros(0, dtype=torch.int64), scores, what)
        plan = self._plan(pool, count)
        costs = self._costs(pool.systems)
        weight = costs if self._per_cost else np.ones(n)
        scores[torch.from_numpy(pool.place)] = torch.from_numpy(plan.values().copy())
        chosen: list[int] = []
        left = np.inf if self.budget is None else self.budget
        free = np.ones(n, dtype=bool)
        ended = "all candidates are chosen"
        while free.any():
            if len(chosen) >= count:
                ended = "as many as were asked for"
                break
            affordable = free & (costs <= left)
            if not affordable.any():
                ended = f"the budget of {self.budget:g} {self.cost} is spent"
                break
            values = np.where(affordable, plan.values() / weight, -np.inf)
            best = int(values.argmax())
            if not values[best] > 0:
                ended = "no other label is worth it"
                break
            plan.take(best)
            chosen.append(best)
            free[best] = False
            left -= costs[best]
        indices = torch.from_numpy(pool.place[chosen].astype(np.int64))
        return Selection(indices, scores, f"{self._reason()}: {len(chosen)} of {n}, {ended}")

    def _costs(self, systems: Systems) -> Matrix:
        if self.cost == "structures":
            return np.ones(len(systems))
        each = systems.z if self.cost == "electrons" else torch.ones_like(systems.z)
        sums = torch.zeros(len(systems), dtype=torch.float64).index_add(
            0, systems.batch.cpu(), each.cpu().double()
        )
        return np.asarray(sums.numpy() ** self.cost_power)


class Fixed:
    """Values that do not change."""

    def __init__(self, values: Matrix) -> None:
        """Keep ``values (n,)``."""
        self._values = values

    def values(self) -> Matrix:
        """See `Plan.values`."""
        return self._values

    def take(self, index: int) -> None:
        """See `Plan.take`."""


class Nearness:
    """Distances of candidates to the nearest of some others, in features with columns of equal size."""

    def __init__(self, features: Matrix, others: Matrix) -> None:
        """Begin with the distances of ``features (n, f)`` to ``others (k, f)``; infinite where there are none."""
        self._features = features
        self.distance: NDArray[np.float64] = np.full(len(features), np.inf)
        for one in others:
            self._meet(one)

    def _meet(self, one: Matrix) -> None:
        away = self._features - one
        self.distance = np.minimum(self.distance, np.sqrt(np.einsum("nf,nf->n", away, away)))

    def take(self, index: int) -> None:
        """Count candidate ``index`` among the others."""
        self._meet(self._features[index])


class Scored(Greedy):
    """A strategy that values each candidate by itself, so that the most valuable ones may be all alike."""

    diverse: bool = setting(
        True,
        "values shrink with the distance to the nearest structure that was chosen, to zero for the same one",
    )

    @abstractmethod
    def _values(self, pool: Pool) -> Matrix:
        """Return the value of each candidate alone: (n,), not negative."""
        raise NotImplementedError(f"{type(self).__name__} must define `_values`")

    def _plan(self, pool: Pool, count: int) -> Plan:
        values = self._values(pool)
        return Spread(values, pool.features[0]) if self.diverse and count > 1 else Fixed(values)


class Spread:
    """Values times the distance to the nearest chosen candidate, in units of the median distance; at most once."""

    def __init__(self, values: Matrix, features: Matrix) -> None:
        """Keep ``values (n,)``, and where candidates are: ``features (n, f)``."""
        self._own, self._features = values, features
        self._near = Nearness(features, features[:0])
        middle = np.median(features, axis=0)
        away = np.sqrt(((features - middle) ** 2).sum(1))
        self._unit = float(np.median(away)) or 1.0

    def values(self) -> Matrix:
        """See `Plan.values`."""
        return self._own * np.minimum(1.0, self._near.distance / self._unit)

    def take(self, index: int) -> None:
        """See `Plan.take`."""
        self._near.take(index)
