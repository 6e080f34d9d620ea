"""Crystals of one element, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import field_validator, model_validator

from mlopt.core.atoms.elements import NUMBERS
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.plugins.plugin import Plugin, setting


class Crystal(Plugin):
    """A supercell of a crystal of one element, periodic in all directions.

    A bare word is the element: ``Cu`` is its crystal at room temperature.
    """

    element: str = setting(..., "its element, such as Si")
    lattice: str | None = setting(
        None, "fcc, bcc, diamond, ...; none: that of the element at room temperature"
    )
    a: float | None = setting(None, "lattice constant; none: that of the element", unit="angstrom", gt=0)
    repeat: list[int] = setting([2, 2, 2], "cells in each direction")

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        """Take a bare word for the element; ``name`` is what a mapping of a bare word and a setting has."""
        if isinstance(value, str):
            return {"element": value}
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            return {"element": value["name"]} | {key: one for key, one in value.items() if key != "name"}
        return value

    @field_validator("element")
    @classmethod
    def _known(cls, element: str) -> str:
        if element not in NUMBERS:
            raise ValueError(f"{element!r} is no element; write a symbol such as Si")
        return element

    @field_validator("repeat")
    @classmethod
    def _three(cls, repeat: list[int]) -> list[int]:
        if len(repeat) != 3 or min(repeat) < 1:
            raise ValueError("give three numbers of cells, each at least 1, such as [2, 2, 2]")
        return repeat

    def load(self) -> Systems:
        """Return the crystal as a batch of one, made of cubic cells where the lattice has them.

        Raises:
            InputError: ASE does not know the crystal.
        """
        from ase.build import bulk

        try:
            atoms = bulk(self.element, self.lattice, a=self.a, cubic=self.lattice != "hcp")
        except (ValueError, KeyError, RuntimeError) as error:
            raise InputError(
                f"`crystal`: ASE knows no such crystal of {self.element} ({error}); give `lattice` and `a`"
            ) from None
        return Systems.from_atoms(atoms.repeat(self.repeat))
