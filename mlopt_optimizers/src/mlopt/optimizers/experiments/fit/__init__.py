"""The experiment `fit`: a potential fitted to labelled structures, and how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.experiments.fit.experiment import Fit

__all__ = ["Fit"]

__getattr__ = names_of(__name__, {"experiment": ("Fit",)})
