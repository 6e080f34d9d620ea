"""Local optimizers: from a point down to the next minimum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.local.adam import Adam
    from mlopt.optimizers.local.bfgs import BFGS
    from mlopt.optimizers.local.conjugate_gradients import ConjugateGradients
    from mlopt.optimizers.local.fire import Fire
    from mlopt.optimizers.local.gradient_descent import GradientDescent
    from mlopt.optimizers.local.lbfgs import LBFGS
    from mlopt.optimizers.local.velocity_projection import VelocityProjection

__all__ = [
    "BFGS",
    "LBFGS",
    "Adam",
    "ConjugateGradients",
    "Fire",
    "GradientDescent",
    "VelocityProjection",
]

__getattr__ = names_of(
    __name__,
    {
        "adam": ("Adam",),
        "bfgs": ("BFGS",),
        "conjugate_gradients": ("ConjugateGradients",),
        "fire": ("Fire",),
        "gradient_descent": ("GradientDescent",),
        "lbfgs": ("LBFGS",),
        "velocity_projection": ("VelocityProjection",),
    },
)
