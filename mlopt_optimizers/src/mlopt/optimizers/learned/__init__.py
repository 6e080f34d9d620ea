"""Learned optimizers: networks that step or hop, weights that ship, and classics whose constants are learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.learned.classics import Classic
    from mlopt.optimizers.learned.hop.learnable import LearnedHop
    from mlopt.optimizers.learned.hop.optimizer import LearnedHopping
    from mlopt.optimizers.learned.step.optimizer import Learned, LearnedFamily

__all__ = [
    "Classic",
    "Learned",
    "LearnedFamily",
    "LearnedHop",
    "LearnedHopping",
]

__getattr__ = names_of(
    __name__,
    {
        "classics": ("Classic",),
        "hop.learnable": ("LearnedHop",),
        "hop.optimizer": ("LearnedHopping",),
        "step.optimizer": ("Learned", "LearnedFamily"),
    },
)
