"""Labellers, which compute the labels that potentials are fitted to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.labelling.potential import PotentialLabeller

__all__ = ["PotentialLabeller"]

__getattr__ = names_of(__name__, {"potential": ("PotentialLabeller",)})
