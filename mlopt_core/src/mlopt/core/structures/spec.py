"""The specification of a run's atoms: a formula, a crystal, or a structure file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import field_validator, model_validator
from pydantic_core import PydanticCustomError

from mlopt.core.atoms.elements import parse_formula
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.files.reading import is_there
from mlopt.core.plugins.input_file import InputFile
from mlopt.core.plugins.plugin import Plugin, setting
from mlopt.core.structures.crystal import Crystal


class SystemSpec(Plugin):
    """A system, given by ``cluster``, ``file`` or ``crystal``.

    A bare word stands for one of the first two. ``Cu13`` is a formula. A name with an ending or a folder, such as
    ``start.extxyz``, is a structure file. So is the name of an existing file, such as ``POSCAR``.
    """

    cluster: str | None = setting(None, "formula of a free cluster, such as Ar38 or Ag32Au6")
    file: InputFile | None = setting(
        None, "structure file: extxyz, xyz, cif, POSCAR, traj, eOn con, ASE json"
    )
    crystal: Crystal | None = setting(
        None, "a crystal of one element, such as {element: Cu, repeat: [3, 3, 3]}"
    )
    index: int = setting(-1, "index of the structure in the file; -1 is the last")
    separate: bool = setting(False, "move coincident atoms apart instead of refusing them")

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        """Read a bare word as a formula or a file; a valid formula is a formula even if a file has its name."""
        if isinstance(value, str):
            return {_kind_of(value): value}
        if isinstance(value, Mapping) and isinstance(
            value.get("name"), str
        ):  # -s system.index=0 makes one of a word
            rest = {key: one for key, one in value.items() if key != "name"}
            return {_kind_of(value["name"]): value["name"]} | rest
        return value

    @field_validator("cluster")
    @classmethod
    def _known_formula(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse_formula(value)
            except InputError as error:
                raise PydanticCustomError("formula", "{message}", {"message": str(error)}) from error
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if sum(one is not None for one in (self.cluster, self.file, self.crystal)) != 1:
            raise PydanticCustomError(
                "system",
                "give one of `cluster` (a formula, like Ar38), `file` (a structure file) and `crystal` (such as Cu)",
            )
        return self

    @property
    def placed(self) -> bool:
        """Whether the system has positions; a formula has none."""
        return self.cluster is None

    def load(self) -> Systems:
        """Return the system as a batch of one, in float64. A file is read once, however often this is called.

        Raises:
            InputError: the file cannot be read, or its structure is unsound.
        """
        return self.loaded

    @cached_property
    def loaded(self) -> Systems:
        """The system; see `load`."""
        if self.cluster is not None:
            return Systems.cluster(parse_formula(self.cluster))
        if self.crystal is not None:
            return self.crystal.load()
        from mlopt.core.structures.read import read_structure

        return read_structure(Path(str(self.file)), self.index, separate=self.separate)


def _kind_of(word: str) -> str:
    """Return ``file`` for a word that is no formula but looks like a file or names one; else ``cluster``."""
    try:
        parse_formula(word)
    except InputError:
        file = Path(word)
        named = bool(file.suffix) or len(file.parts) > 1
        return "file" if word and (named or is_there(word)) else "cluster"
    return "cluster"
