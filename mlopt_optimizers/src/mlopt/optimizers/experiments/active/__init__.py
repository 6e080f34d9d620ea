"""The experiment `active`: walkers on a fitted potential ask for labels where it cannot be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.experiments.active.band_walk import BandBetween
    from mlopt.optimizers.experiments.active.cut import CutOut
    from mlopt.optimizers.experiments.active.experiment import Active
    from mlopt.optimizers.experiments.active.further import Further
    from mlopt.optimizers.experiments.active.result import ActiveResult
    from mlopt.optimizers.experiments.active.settings import Asking, Beginning

__all__ = ["Active", "ActiveResult", "Asking", "BandBetween", "Beginning", "CutOut", "Further"]

__getattr__ = names_of(
    __name__,
    {
        "band_walk": ("BandBetween",),
        "cut": ("CutOut",),
        "experiment": ("Active",),
        "further": ("Further",),
        "result": ("ActiveResult",),
        "settings": ("Asking", "Beginning"),
    },
)
