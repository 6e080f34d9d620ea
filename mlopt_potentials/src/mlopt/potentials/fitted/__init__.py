"""Potentials that are fitted to data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.potentials.fitted.behler_parrinello.potential import BehlerParrinello
    from mlopt.potentials.fitted.committee import Committee, Spread
    from mlopt.potentials.fitted.message_passing.potential import SchNet
    from mlopt.potentials.fitted.mtp.potential import Mtp

__all__ = ["BehlerParrinello", "Committee", "Mtp", "SchNet", "Spread"]

__getattr__ = names_of(
    __name__,
    {
        "behler_parrinello.potential": ("BehlerParrinello",),
        "committee": ("Committee", "Spread"),
        "message_passing.potential": ("SchNet",),
        "mtp.potential": ("Mtp",),
    },
)
