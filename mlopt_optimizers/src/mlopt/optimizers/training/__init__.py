"""Meta-training: estimators and genetic algorithms that improve theta."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.training.es import ES, ESMC
    from mlopt.optimizers.training.ga import GA
    from mlopt.optimizers.training.pes import PES
    from mlopt.optimizers.training.unrolled_gradient import UnrolledGradient

__all__ = [
    "ES",
    "ESMC",
    "GA",
    "PES",
    "UnrolledGradient",
]

__getattr__ = names_of(
    __name__,
    {
        "es": ("ES", "ESMC"),
        "ga": ("GA",),
        "pes": ("PES",),
        "unrolled_gradient": ("UnrolledGradient",),
    },
)
