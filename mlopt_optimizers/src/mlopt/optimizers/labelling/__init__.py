"""Labellers, which compute the labels that potentials are fitted to, and the ledger that keeps labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.labelling.calculator import CalculatorLabeller
    from mlopt.optimizers.labelling.computing import labelled
    from mlopt.optimizers.labelling.farm import Farm
    from mlopt.optimizers.labelling.ledger import Counts, Ledger
    from mlopt.optimizers.labelling.mailbox import Mailbox
    from mlopt.optimizers.labelling.potential import PotentialLabeller

__all__ = ["CalculatorLabeller", "Counts", "Farm", "Ledger", "Mailbox", "PotentialLabeller", "labelled"]

__getattr__ = names_of(
    __name__,
    {
        "calculator": ("CalculatorLabeller",),
        "farm": ("Farm",),
        "computing": ("labelled",),
        "ledger": ("Counts", "Ledger"),
        "mailbox": ("Mailbox",),
        "potential": ("PotentialLabeller",),
    },
)
