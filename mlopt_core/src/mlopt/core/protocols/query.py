"""The protocol of query strategies, which choose the structures that are most worth labelling."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin


@dataclass(frozen=True)
class Selection:
    """The choice of a query strategy.

    indices: (k,) int64 without repeats, the chosen candidates, the most valuable first.
    scores: (n_candidates,) value of a label for each candidate, higher is better; NaN where the strategy has none.
    reason: one sentence about the choice, for logs and reports.
    """

    indices: torch.Tensor
    scores: torch.Tensor
    reason: str


class QueryStrategy(Plugin):
    """A method that chooses a set of candidates for labels. It labels nothing and fits nothing."""

    #: whether `select` needs a potential that has been fitted, or can be
    needs_potential: ClassVar[bool] = False
    #: whether `select` needs known structures with labels
    needs_labels: ClassVar[bool] = False
    #: whether a choice depends on the order of the candidates, as that of the first ones does
    in_order: ClassVar[bool] = False

    @abstractmethod
    def select(
        self,
        candidates: Systems,
        known: Dataset,
        fitted: Potential | None,
        count: int,
        key: torch.Tensor,
    ) -> Selection:
        """Choose at most ``count`` of the candidates.

        known: structures that have labels already, possibly none.
        fitted: a potential that was fitted to ``known``, or a committee of such. A `FittablePotential` that is linear
            in its parameters need not be fitted.
        key: int64 scalar that seeds random numbers. The same key gives the same choice.

        Raises:
            InputError: the strategy cannot work with this potential, or without labels.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `select`")
