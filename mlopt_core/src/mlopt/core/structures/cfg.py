"""Configurations of MLIP (``.cfg``): structures with numbered species, energies, forces and virials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.elements import NUMBERS
from mlopt.core.errors import InputError
from mlopt.core.files.reading import lines_of, read_text
from mlopt.core.quoting import quoted

if TYPE_CHECKING:
    from ase import Atoms

#: Voigt's order in the files
_STRESS = ("xx", "yy", "zz", "yz", "xz", "xy")


def read_cfg(path: str | Path, elements: Sequence[str]) -> list[Atoms]:
    """Read all configurations of a file as ASE ``Atoms`` with the labels as results.

    elements: the symbol of each species, which the file numbers from 0.

    ``PlusStress`` is minus ASE's stress times the volume. A structure is periodic along the vectors of its
    ``Supercell``, if it has any.

    Raises:
        InputError: the file cannot be read, is cut short, or has a species without an element.
    """
    file = Path(path)
    unknown = [one for one in elements if one not in NUMBERS]
    if unknown or not elements:
        named = quoted(unknown[0]) if unknown else "none"
        raise InputError(f"{file}: `elements` must be symbols, one for each species of the file, got {named}")
    lines = lines_of(read_text(file))
    found: list[Atoms] = []
    row = 0
    while row < len(lines):
        if lines[row].strip() != "BEGIN_CFG":
            row += 1
            continue
        where = f"{file}: configuration {len(found)} (counted from 0, line {row + 1})"
        end = next(
            (k for k in range(row + 1, len(lines)) if lines[k].strip() in ("END_CFG", "BEGIN_CFG")),
            len(lines),
        )
        if end == len(lines) or lines[end].strip() == "BEGIN_CFG":
            raise InputError(f"{where}: has no END_CFG; the file is cut short")
        found.append(_configuration(where, [line.split() for line in lines[row + 1 : end]], elements))
        row = end + 1
    if not found:
        raise InputError(f"{file}: has no BEGIN_CFG, and so no configurations of MLIP")
    return found


def _numbers(where: str, words: Sequence[str]) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError:
        raise InputError(f"{where}: {quoted(' '.join(words))} are no numbers") from None


def _configuration(where: str, rows: list[list[str]], elements: Sequence[str]) -> Atoms:
    """Return one structure from the words of its lines."""
    import numpy as np
    from ase import Atoms as AseAtoms
    from ase.calculators.singlepoint import SinglePointCalculator

    given: dict[str, Any] = {"info": {}}
    cell_vectors: list[list[float]] = []
    at, size = 0, None
    while at < len(rows):
        row = rows[at]
        head = row[0] if row else ""
        after = rows[at + 1] if at + 1 < len(rows) else []
        if head == "Size":
            words = after
            if len(words) != 1 or not words[0].isdigit() or int(words[0]) > len(rows):
                raise InputError(
                    f"{where}: Size must be the number of atoms below it, got {quoted(' '.join(words))}"
                )
            size, at = int(words[0]), at + 2
        elif head == "Supercell":
            at += 1
            while (
                at < len(rows)
                and len(rows[at]) == 3
                and len(cell_vectors) < 3
                and rows[at][0][-1:] in "0123456789."
            ):
                cell_vectors.append(_numbers(where, rows[at]))
                at += 1
        elif head == "AtomData:":
            if size is None:
                raise InputError(f"{where}: AtomData stands before Size")
            names, lines = row[1:], rows[at + 1 : at + 1 + size]
            if len(lines) < size or any(len(line) != len(names) for line in lines):
                raise InputError(f"{where}: AtomData must have {size} lines of {len(names)} columns")
            table = np.array([_numbers(where, line) for line in lines]).reshape(size, len(names))
            given["atoms"] = dict(zip(names, table.T, strict=True))
            at += 1 + size
        elif head == "Energy":
            given["energy"] = _numbers(where, after[:1] or ["nothing"])[0]
            at += 2
        elif head == "PlusStress:":
            given["virial"] = dict(zip(row[1:], _numbers(where, after), strict=True))
            at += 2
        elif head == "Feature" and len(row) >= 3:
            given["info"][row[1]] = " ".join(row[2:])
            at += 1
        else:
            at += 1
    columns = given.get("atoms")
    if columns is None or "type" not in columns or not {"cartes_x", "cartes_y", "cartes_z"} <= set(columns):
        raise InputError(
            f"{where}: AtomData with the columns type, cartes_x, cartes_y and cartes_z is missing"
        )
    kinds = columns["type"].astype(int)
    if len(kinds) and (kinds.min() < 0 or kinds.max() >= len(elements)):
        raise InputError(
            f"{where}: has the species {kinds.max()}, but `elements` names {len(elements)} ({', '.join(elements)})"
        )
    cell = np.zeros((3, 3))
    cell[: len(cell_vectors)] = np.array(cell_vectors).reshape(-1, 3)
    atoms = AseAtoms(
        [elements[kind] for kind in kinds],
        positions=np.stack([columns[f"cartes_{axis}"] for axis in "xyz"], -1),
        cell=cell,
        pbc=[k < len(cell_vectors) for k in range(3)],
    )
    results: dict[str, Any] = {}
    if given.get("energy") is not None:
        results["energy"] = given["energy"]
    if {"fx", "fy", "fz"} <= set(columns):
        results["forces"] = np.stack([columns["fx"], columns["fy"], columns["fz"]], -1)
    if "virial" in given and atoms.cell.rank == 3:
        results["stress"] = -np.array([given["virial"][name] for name in _STRESS]) / atoms.cell.volume
    atoms.info.update(given["info"])
    atoms.calc = SinglePointCalculator(atoms, **results) if results else None
    return atoms
