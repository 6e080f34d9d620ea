"""Optimizers, searches and starts of mlopt."""

from mlopt.optimizers.starts import BoxStart, GivenStart, HarmonicStart, SphereStart

__all__ = ["BoxStart", "GivenStart", "HarmonicStart", "SphereStart"]
