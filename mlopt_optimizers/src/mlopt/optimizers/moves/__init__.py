"""Moves, by which a search leaves a minimum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.moves.basic import Angular, Displacement, Exchange, Restart
    from mlopt.optimizers.moves.cluster import Surface, Symmetrise, Twist

__all__ = [
    "Angular",
    "Displacement",
    "Exchange",
    "Restart",
    "Surface",
    "Symmetrise",
    "Twist",
]

__getattr__ = names_of(
    __name__,
    {
        "basic": ("Angular", "Displacement", "Exchange", "Restart"),
        "cluster": ("Surface", "Symmetrise", "Twist"),
    },
)
