"""The prior of coefficients in a least-squares fit."""

from __future__ import annotations

from typing import Literal

from mlopt.core.plugins.plugin import Plugin, setting
from mlopt.optimizers.fitting.projected import SPREAD


class Prior(Plugin):
    """A prior that keeps coefficients small: each deviates from zero by about one over its degree to a power."""

    strength: Literal["evidence", "cross-validation"] | float = setting(
        "evidence", "how it is chosen, or a number relative to the square of the largest singular value"
    )
    smooth: float = setting(1.0, "the power of the degree: the larger, the smoother", ge=0, le=10)
    radial: float = setting(
        SPREAD,
        "deviation of fitted shares of radial functions from zero; the degree of a function itself has 1",
        gt=0,
    )
