"""Settings that name files: one type for each, so that a run knows which files it reads.

A setting that names a file to be read is an `InputFile`. Where a run has a directory, such files are copied into it
(`mlopt.core.runs.kept_files`). A setting that names a file to be written is an `AbsolutePath`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator


def absolute(path: str) -> str:
    """The path from the root: a run may be resumed from another folder."""
    return str(Path(path).expanduser().absolute())


@dataclass(frozen=True)
class Reads:
    """Marks a setting that names a file to be read.

    key: the setting is a mapping, and this entry of it, if there is one, names the file. beside: the ending of a second
    file of the same name that belongs to the first. find: turns the value into a path, where it may also be the name of
    a file that ships with a package; such a file is not copied.
    """

    key: str | None = None
    beside: str | None = None
    find: Callable[[str], Path] = Path


AbsolutePath: TypeAlias = Annotated[str, AfterValidator(absolute)]
InputFile: TypeAlias = Annotated[str, AfterValidator(absolute), Reads()]


def absolute_entry(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A validator of mappings that makes the path in the entry ``key``, if there is one, absolute."""

    def settled(value: dict[str, Any]) -> dict[str, Any]:
        return {**value, key: absolute(value[key])} if isinstance(value.get(key), str) else value

    return settled


class Copy(str):
    """The path of a copy of a file; ``original`` is what the configuration says."""

    original: str

    def __new__(cls, path: str, original: str = "") -> Copy:
        """See the class; the default is for copies in memory, which set the rest afterwards."""
        made = super().__new__(cls, path)
        made.original = original
        return made
