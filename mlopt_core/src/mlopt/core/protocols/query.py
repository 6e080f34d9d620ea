"""The protocol of query strategies: which configurations are worth a label."""

from __future__ import annotations

from abc import abstractmethod

from mlopt.core.atoms.systems import Systems
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin


class QueryStrategy(Plugin):
    """Scores candidate configurations. It never labels and never fits."""

    @abstractmethod
    def score(self, candidates: Systems, known: Systems) -> torch.Tensor:
        """(n_systems,) one number a candidate, higher is more worth a label; ``known`` has labels already."""
        raise NotImplementedError(f"{type(self).__name__} must define `score`")
