"""Labellers, which compute the labels that potentials are fitted to, and the ledger that keeps labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.labelling.labelled import labelled
    from mlopt.optimizers.labelling.ledger import Counts, Ledger
    from mlopt.optimizers.labelling.potential import PotentialLabeller

__all__ = ["Counts", "Ledger", "PotentialLabeller", "labelled"]

__getattr__ = names_of(
    __name__,
    {
        "labelled": ("labelled",),
        "ledger": ("Counts", "Ledger"),
        "potential": ("PotentialLabeller",),
    },
)
