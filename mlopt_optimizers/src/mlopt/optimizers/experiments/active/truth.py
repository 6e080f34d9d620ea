"""The labeller as a potential, for what only labels can decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import PrivateAttr

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch


class Truth(Potential):
    """A potential whose every evaluation is a label.

    seen: the labels so far, without the first of each structure, which is known already, and without those that failed.
    """

    differentiable: ClassVar[bool] = False
    _labelled: Callable[[Systems], Dataset] = PrivateAttr()
    _seen: list[Dataset] = PrivateAttr(default_factory=list)
    _calls: int = PrivateAttr(default=0)
    _failed: int = PrivateAttr(default=0)

    def __init__(self, labelled: Callable[[Systems], Dataset], **settings: Any) -> None:
        super().__init__(**settings)
        self._labelled = labelled

    @property
    def seen(self) -> list[Dataset]:
        """The labels so far; see the class."""
        return self._seen

    @property
    def failed(self) -> int:
        """The number of labels that could not be computed."""
        return self._failed

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        """Return the labels of ``systems``, NaN where they failed."""
        found = self._labelled(systems)
        if self._calls:
            self._seen.append(found.select(torch.nonzero(found.with_energy).flatten()))
        self._calls += 1
        self._failed += int((~found.with_energy).sum())
        return Evaluation(found.energy, found.force, stress=found.stress if stress else None)
