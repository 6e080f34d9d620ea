"""Fitting: from labelled structures to the parameters of a potential."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.fitting.committees import fit_members
    from mlopt.optimizers.fitting.data import DrawnStructures, FitData
    from mlopt.optimizers.fitting.in_one_call import fit
    from mlopt.optimizers.fitting.least_squares import Weights
    from mlopt.optimizers.fitting.loss import Loss
    from mlopt.optimizers.fitting.training import Stage, Training

__all__ = ["DrawnStructures", "FitData", "Loss", "Stage", "Training", "Weights", "fit", "fit_members"]

__getattr__ = names_of(
    __name__,
    {
        "committees": ("fit_members",),
        "data": ("DrawnStructures", "FitData"),
        "in_one_call": ("fit",),
        "least_squares": ("Weights",),
        "loss": ("Loss",),
        "training": ("Stage", "Training"),
    },
)
