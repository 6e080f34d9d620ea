"""Common parts of the readers of text formats: counts, labels, Fortran numbers, and ASE's exceptions as one line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.elements import parse_label
from mlopt.core.errors import InputError
from mlopt.core.quoting import cause, quoted
from mlopt.core.structures.checks import MOST_ATOMS

if TYPE_CHECKING:
    from ase import Atoms

_FORTRAN = re.compile(r"(?<=[0-9.])[dD](?=[+-]?[0-9])")


def guarded(where: str, read: Callable[[], Any]) -> Any:
    """Return the result of ``read``; turn any exception of an ASE reader into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # warnings about ASE's conventions; everything that matters is checked afterwards
            return read()
    except InputError:
        raise
    except KeyError as error:
        name = error.args[0] if error.args else ""
        if isinstance(name, str) and name.isalpha() and len(name) <= 3:
            label(where, name)
        raise InputError(f"{where}: malformed: {quoted(name)} is missing or unknown") from error
    except Exception as error:
        raise InputError(f"{where}: malformed: {cause(error)}") from error


def label(where: str, name: str) -> tuple[str, float | None]:
    """Return the element and the mass of a label; the error message begins with ``where``."""
    try:
        return parse_label(name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def with_masses(atoms: Atoms, masses: dict[int, float]) -> Atoms:
    """Return ``atoms`` with the masses (amu) of some of them set, unless the file gives masses itself."""
    if masses and not atoms.has("masses"):
        values = atoms.get_masses()
        values[list(masses)] = list(masses.values())
        atoms.set_masses(values)
    return atoms


def check_count(where: str, declared: int, lines: int) -> None:
    """Refuse a number of atoms that is zero, absurd, or larger than the number of ``lines`` that follow."""
    if declared == 0:
        raise InputError(f"{where} has no atoms")
    if declared > MOST_ATOMS:
        raise InputError(
            f"{where} declares {declared:,} atoms; more than {MOST_ATOMS:,} are taken for a mistake"
        )
    if declared > lines:
        raise InputError(
            f"{where} declares {declared} atoms, but only {max(lines, 0)} lines follow: it is cut short"
        )


def counts(where: str, words: Iterable[str]) -> list[int]:
    """Return the numbers of atoms in a line, each of at most 18 digits."""
    words = list(words)
    if not words or not all(re.fullmatch(r"\+?[0-9]+", word) for word in words):
        raise InputError(f"{where} should be numbers of atoms, but is {quoted(' '.join(words))}")
    return [int(word[:18]) for word in words]


def c_numbers(line: str) -> str:
    """Return a line with Fortran exponents (``1.0D+00``) in the usual form."""
    return _FORTRAN.sub("e", line) if "D" in line or "d" in line else line


def check_numbers(where: str, words: Iterable[str], whole: bool = False) -> None:
    """Refuse words that are no numbers; called to name them after a reader has refused the whole."""
    for word in words:
        try:
            int(word) if whole else float(word)
        except ValueError:
            kind = "a whole number" if whole else "a number"
            raise InputError(f"{where}: {quoted(word)} is not {kind}") from None
