"""The protocol of query strategies: which configurations are worth a label."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin
from mlopt.core.protocols.fittable import FittablePotential


@dataclass(frozen=True)
class Selection:
    """What a strategy chose.

    indices: (k,) int64, the chosen candidates, the most wanted first, each once.
    scores: (n_candidates,) how much each candidate is worth a label, higher is more; NaN where the strategy cannot say.
    reason: one sentence on why these, for logs and reports.
    """

    indices: torch.Tensor
    scores: torch.Tensor
    reason: str


class QueryStrategy(Plugin):
    """A way to choose candidates for labels, as a set: it labels nothing and fits nothing."""

    #: whether `select` needs a potential that has been fitted, or can be
    needs_potential: ClassVar[bool] = False

    @abstractmethod
    def select(
        self,
        candidates: Systems,
        known: Dataset,
        fitted: FittablePotential | None,
        count: int,
        key: torch.Tensor,
    ) -> Selection:
        """Choose at most ``count`` of the candidates.

        known: what has labels already, possibly nothing. fitted: the potential that was fitted to it; for a linear one
        an unfitted basis will do. key: int64 scalar, to which random numbers belong: the same key, the same choice.

        Raises:
            InputError: the strategy cannot serve this potential.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `select`")
