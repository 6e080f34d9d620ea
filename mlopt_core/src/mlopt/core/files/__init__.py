"""Files: atomic writing, checked reading, SQLite databases, and weights with a card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.files.atomic import write_bytes, write_text
    from mlopt.core.files.database import Database
    from mlopt.core.files.growing import GrowingFile
    from mlopt.core.files.reading import existing_file, is_there
    from mlopt.core.files.weights import Card, Weights, load_weights, read_card, save_weights, shipped

__all__ = [
    "Card",
    "Database",
    "GrowingFile",
    "Weights",
    "existing_file",
    "is_there",
    "load_weights",
    "read_card",
    "save_weights",
    "shipped",
    "write_bytes",
    "write_text",
]

__getattr__ = names_of(
    __name__,
    {
        "atomic": ("write_bytes", "write_text"),
        "database": ("Database",),
        "growing": ("GrowingFile",),
        "reading": ("existing_file", "is_there"),
        "weights": ("Card", "Weights", "load_weights", "read_card", "save_weights", "shipped"),
    },
)
