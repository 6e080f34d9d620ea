"""Batches of problems: which rows belong to which problem, and their random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.batch.random import Draws, Stream, derive, normal, problem_keys, uniform
    from mlopt.core.batch.segments import Segments

__all__ = [
    "Draws",
    "Segments",
    "Stream",
    "derive",
    "normal",
    "problem_keys",
    "uniform",
]

__getattr__ = names_of(
    __name__,
    {
        "random": ("Draws", "Stream", "derive", "normal", "problem_keys", "uniform"),
        "segments": ("Segments",),
    },
)
