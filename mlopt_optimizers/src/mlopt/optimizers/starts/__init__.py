"""Starts of minimisations and searches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.starts.starts import BoxStart, GivenStart, HarmonicStart, SphereStart

__all__ = [
    "BoxStart",
    "GivenStart",
    "HarmonicStart",
    "SphereStart",
]

__getattr__ = names_of(
    __name__,
    {
        "starts": ("BoxStart", "GivenStart", "HarmonicStart", "SphereStart"),
    },
)
