"""Kernels: scalar functions that potentials, optimizers and moves offer to the fused engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.kernels.kernel import Kernel, NoKernelError, OptimizerKernel, PotentialKernel

__all__ = [
    "Kernel",
    "NoKernelError",
    "OptimizerKernel",
    "PotentialKernel",
]

__getattr__ = names_of(
    __name__,
    {
        "kernel": ("Kernel", "NoKernelError", "OptimizerKernel", "PotentialKernel"),
    },
)
