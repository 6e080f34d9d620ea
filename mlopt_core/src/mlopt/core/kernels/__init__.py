"""Kernels: scalar functions that potentials, optimizers and moves offer to the fused engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.kernels.kernel import Kernel, NoKernelError, OptimizerKernel, PotentialKernel
    from mlopt.core.kernels.records import Memory, Proposal, Start, Step

__all__ = [
    "Kernel",
    "Memory",
    "NoKernelError",
    "OptimizerKernel",
    "PotentialKernel",
    "Proposal",
    "Start",
    "Step",
]

__getattr__ = names_of(
    __name__,
    {
        "kernel": ("Kernel", "NoKernelError", "OptimizerKernel", "PotentialKernel"),
        "records": ("Memory", "Proposal", "Start", "Step"),
    },
)
