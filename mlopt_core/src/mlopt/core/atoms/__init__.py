"""Atoms: batches of structures, their elements, units and neighbours, and their conversion from and to ASE and PyG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.atoms.dataset import Dataset
    from mlopt.core.atoms.digest import structure_digest
    from mlopt.core.atoms.elements import NUMBERS, SYMBOLS, parse_formula
    from mlopt.core.atoms.neighbours import Neighbours, find_neighbours
    from mlopt.core.atoms.systems import Systems
    from mlopt.core.atoms.units import REDUCED, SPINS, Units

__all__ = [
    "NUMBERS",
    "REDUCED",
    "SPINS",
    "SYMBOLS",
    "Dataset",
    "Neighbours",
    "Systems",
    "Units",
    "find_neighbours",
    "parse_formula",
    "structure_digest",
]

__getattr__ = names_of(
    __name__,
    {
        "dataset": ("Dataset",),
        "digest": ("structure_digest",),
        "elements": ("NUMBERS", "SYMBOLS", "parse_formula"),
        "neighbours": ("Neighbours", "find_neighbours"),
        "systems": ("Systems",),
        "units": ("REDUCED", "SPINS", "Units"),
    },
)
