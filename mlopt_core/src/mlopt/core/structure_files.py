"""Structure files that people have, read and checked: one line of explanation for whatever is wrong with them."""

from __future__ import annotations

import difflib
import io
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.elements import NUMBERS, SYMBOLS
from mlopt.core.errors import InputError
from mlopt.core.files import existing_file, one_line
from mlopt.core.structure_checks import COINCIDENT, MOST_ATOMS, check_structures
from mlopt.core.structures import from_atoms
from mlopt.core.systems import Systems

if TYPE_CHECKING:
    from ase import Atoms

#: bytes of a structure file beyond which it is refused: it is read into memory
MOST_BYTES = 2**30
#: end of a file's name -> format of ASE; nothing is guessed from the content
SUFFIXES = {
    ".extxyz": "extxyz",
    ".xyz": "extxyz",  # reads plain xyz as well
    ".cif": "cif",
    ".vasp": "vasp",
    ".poscar": "vasp",
    ".contcar": "vasp",
    ".traj": "traj",
    ".json": "json",
    ".con": "eon",
    ".pdb": "proteindatabank",
}
_NAMES = {"POSCAR": "vasp", "CONTCAR": "vasp"}


def read_structures(
    path: str | Path, *, least_distance: float = COINCIDENT, separate: bool = False
) -> Systems:
    """Read and check a structure file; all its frames become one batch. See `read_atoms` and `check_structures`.

    Raises:
        InputError: one line that names the file, and the frame and the atom where it can.
    """
    return _checked(read_atoms(path), str(path), least_distance, separate)


def read_structure(
    path: str | Path, index: int = -1, *, least_distance: float = COINCIDENT, separate: bool = False
) -> Systems:
    """Read one structure of a file, by default the last, as a batch of one, and check it alone.

    Raises:
        InputError: as `read_structures`, or there is no such structure.
    """
    images = read_atoms(path)
    if not -len(images) <= index < len(images):
        raise InputError(
            f"{path}: has {len(images)} structures, so there is no number {index}; "
            f"use 0 to {len(images) - 1}, or -1 for the last"
        )
    index %= len(images)
    source = str(path) if len(images) == 1 else f"{path}: frame {index} of {len(images)}"
    return _checked([images[index]], source, least_distance, separate)


def _checked(images: list[Atoms], source: str, least_distance: float, separate: bool) -> Systems:
    try:
        systems = from_atoms(images)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return check_structures(systems, source=source, least_distance=least_distance, separate=separate)


def read_atoms(path: str | Path) -> list[Atoms]:
    """All frames of a structure file, in the format that its name tells (`SUFFIXES`, ``POSCAR``, ``CONTCAR``).

    Raises:
        InputError: the file is missing, a folder, empty, too large, of an unknown format, or malformed; an element is
            unknown; it declares more atoms than it has lines.
    """
    file = existing_file(path)
    kind = _NAMES.get(file.name.upper().split(".")[0]) or SUFFIXES.get(file.suffix.lower())
    if kind is None:
        raise InputError(
            f"{file}: {file.suffix or 'a name without an ending'} is not a structure format that mlopt reads. Known: "
            f"{', '.join(SUFFIXES)}, POSCAR, CONTCAR. Convert it, for example with `ase convert`."
        )
    size = file.stat().st_size
    if size == 0:
        raise InputError(f"{file}: the file is empty")
    if size > MOST_BYTES:
        raise InputError(f"{file}: {size / 2**30:.1f} GiB are too large to read at once; split the file")
    images = _read_extxyz(file) if kind == "extxyz" else _read_by_ase(file, kind)
    if not images:
        raise InputError(f"{file}: there are no structures in it")
    for index, one in enumerate(images):
        occupancy = one.info.get("occupancy") or {}
        if any(not math.isclose(part, 1.0) for site in occupancy.values() for part in site.values()):
            raise InputError(
                f"{file}: structure {index} has partly occupied sites; choose one arrangement of atoms"
            )
    return images


def _read_extxyz(file: Path) -> list[Atoms]:
    """Frame by frame, so that a message can say which one is broken and a false count of atoms allocates nothing."""
    from ase.io.extxyz import read_extxyz

    lines = _text(file).splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    images: list[Atoms] = []
    start = 0
    while start < len(lines):
        where = f"{file}: frame {len(images)} (counted from 0)"
        declared = lines[start].strip()
        if not re.fullmatch(r"[0-9]+", declared):
            raise InputError(
                f"{where}: line {start + 1} should be the number of atoms, but is {declared[:40]!r}"
            )
        _check_count(where, int(declared[:18]), len(lines) - start - 2)
        stop = start + 2 + int(declared)
        text = io.StringIO("\n".join(lines[start:stop]) + "\n")
        images += _guarded(where, lambda text=text: list(read_extxyz(text, index=slice(None))))  # type: ignore[misc]
        start = stop
    return images


def _read_by_ase(file: Path, kind: str) -> list[Atoms]:
    from ase.io import read

    if kind in ("vasp", "eon"):
        first, last = (5, 7) if kind == "vasp" else (7, 8)  # the lines that hold the numbers of atoms
        lines = _text(file).splitlines()
        for line in lines[first:last]:
            words = line.split("!")[0].split()
            if words and all(word.isdigit() for word in words):
                _check_count(str(file), sum(int(word[:18]) for word in words), len(lines) - last)
    found: list[Atoms] = _guarded(str(file), lambda: read(file, index=":", format=kind))
    for atoms in found if kind == "eon" else []:
        atoms.pbc = True  # eOn knows nothing else and the file does not say so; ASE leaves it off
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not a text file (byte {error.start} is not UTF-8)") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error


def _check_count(where: str, declared: int, lines: int) -> None:
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


def _guarded(where: str, read: Callable[[], Any]) -> Any:
    """What ``read`` returns; whatever a reader of ASE raises becomes one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of conventions that ASE chose; what matters is checked afterwards
            return read()
    except KeyError as error:
        name = str(error).strip("'\"")
        if name not in SYMBOLS and name.isalpha() and len(name) <= 3:
            close = difflib.get_close_matches(name, NUMBERS, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise InputError(f"{where}: no element has the symbol {name!r}.{hint}") from error
        raise InputError(f"{where}: malformed: {name!r} is missing or unknown") from error
    except Exception as error:
        raise InputError(f"{where}: malformed: {one_line(error)}") from error
