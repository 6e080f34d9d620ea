"""The types of settings that name files, by which a run knows which files it reads.

A setting that names a file to be read is an `InputFile`. A run with a directory copies such files into it
(`mlopt.core.runs.kept_files`). A setting that names a file to be written is an `AbsolutePath`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator


def absolute(path: str) -> str:
    """Return the absolute path, because a run may be resumed from another folder."""
    return str(Path(path).expanduser().absolute())


@dataclass(frozen=True)
class Reads:
    """The mark of a setting that names a file to be read.

    key: the entry that names the file, where the setting is a mapping.
    beside: the ending of a second file of the same name that belongs to the first.
    find: a function that turns the value into a path. The value may also be the name of a file that ships with a
        package; such a file is not copied.
    """

    key: str | None = None
    beside: str | None = None
    find: Callable[[str], Path] = Path


AbsolutePath: TypeAlias = Annotated[str, AfterValidator(absolute)]
InputFile: TypeAlias = Annotated[str, AfterValidator(absolute), Reads()]


def absolute_entry(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a validator of mappings that makes the path in the entry ``key``, if any, absolute."""

    def settled(value: dict[str, Any]) -> dict[str, Any]:
        return {**value, key: absolute(value[key])} if isinstance(value.get(key), str) else value

    return settled


class Copy(str):
    """The path of a file's copy; ``original`` is the path in the configuration."""

    original: str

    def __new__(cls, path: str, original: str = "") -> Copy:
        """Make the path; the default of ``original`` serves copies in memory, which set it afterwards."""
        made = super().__new__(cls, path)
        made.original = original
        return made
