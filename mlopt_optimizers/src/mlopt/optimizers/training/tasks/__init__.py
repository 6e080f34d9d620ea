"""Tasks of meta-training, each with a loss of theta."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.training.tasks.band import BandTask
    from mlopt.optimizers.training.tasks.hop import HopCase, HopTask
    from mlopt.optimizers.training.tasks.rollout import RolloutTask
    from mlopt.optimizers.training.tasks.systems import Case

__all__ = [
    "BandTask",
    "Case",
    "HopCase",
    "HopTask",
    "RolloutTask",
]

__getattr__ = names_of(
    __name__,
    {
        "band": ("BandTask",),
        "hop": ("HopCase", "HopTask"),
        "rollout": ("RolloutTask",),
        "systems": ("Case",),
    },
)
