"""Potentials that are fitted to data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.potentials.fitted.mtp.potential import Mtp

__all__ = ["Mtp"]

__getattr__ = names_of(__name__, {"mtp.potential": ("Mtp",)})
