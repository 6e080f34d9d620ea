"""Readers of text formats. Each checks its lines before ASE reads them, so that an error message names the atom.

Invariant: the memory allocated is bounded by the size of the file, whatever numbers the file declares.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.elements import ISOTOPES, NUMBERS
from mlopt.core.errors import InputError
from mlopt.core.files.reading import lines_of, read_text
from mlopt.core.quoting import one_line, quoted
from mlopt.core.structures.text import (
    c_numbers,
    check_count,
    check_numbers,
    counts,
    guarded,
    label,
    with_masses,
)

if TYPE_CHECKING:
    from ase import Atoms

# symmetry operations of a CIF file (192 at most are those of a space group), and sites that they may be applied to:
# ASE compares every site with every other
_MOST_OPERATIONS, _MOST_SITES = 400, 3000


class _Named(io.StringIO):
    """A text stream with the name of its file. ASE looks beside that file for the elements of an old POSCAR."""

    def __init__(self, text: str, file: Path) -> None:
        super().__init__(text)
        self.name = str(file)


def read_vasp(file: Path) -> list[Atoms]:
    """Read a POSCAR; its labels may be any that `parse_label` accepts."""
    from ase.io import read

    lines = lines_of(read_text(file))
    if len(lines) < 8:
        raise InputError(f"{file}: malformed: has {len(lines)} lines, a POSCAR at least 8: it is cut short")
    first = lines[5].split("!")[0].split()
    named = bool(first) and not re.fullmatch(r"\+?[0-9]+", first[0])
    row = 6 if named else 5  # of the numbers of atoms
    numbers = counts(f"{file}: line {row + 1}", lines[row].split("!")[0].split())
    after = row + 2 + (lines[row + 1].strip()[:1].lower() == "s")
    check_count(str(file), sum(numbers), len(lines) - after)
    masses: dict[int, float] = {}
    if named:
        if len(first) != len(numbers):
            raise InputError(
                f"{file}: line 6 has {len(first)} elements, line 7 {len(numbers)} numbers of atoms; correct one"
            )
        elements = [label(f"{file}: line 6", word.split("/")[0].split("_")[0]) for word in first]
        lines[5] = " ".join(symbol for symbol, _ in elements)
        start = 0
        for (_, mass), number in zip(elements, numbers, strict=True):
            if mass is not None:
                masses |= dict.fromkeys(range(start, start + number), mass)
            start += number
    stop = after + sum(numbers)
    lines[1:5] = map(c_numbers, lines[1:5])
    lines[after:stop] = map(c_numbers, lines[after:stop])
    for atom, line in enumerate(lines[after:stop]):
        words = line.split()
        if len(words) < 3:
            raise InputError(
                f"{file}: atom {atom} (line {after + atom + 1}) has {len(words)} columns instead of 3"
            )
        check_numbers(f"{file}: atom {atom} (line {after + atom + 1})", words[:3])
    found = guarded(str(file), lambda: read(_Named("\n".join(lines), file), index=":", format="vasp"))
    return [with_masses(atoms, masses) for atoms in found]


def _lines_of_frames(file: Path) -> list[str]:
    """Read the lines of a file of several frames, without the blank ones at its end."""
    lines = lines_of(read_text(file))
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def read_eon(file: Path) -> list[Atoms]:
    """Read the frames of an eOn file one by one; all are periodic."""
    from ase.io import read

    lines = _lines_of_frames(file)
    images: list[Atoms] = []
    start = 0
    while start < len(lines):
        where = f"{file}: frame {len(images)} (counted from 0)"
        head = lines[start : start + 9]
        if len(head) < 9:
            raise InputError(f"{where}: malformed: has {len(head)} lines, a header 9: it is cut short")
        (kinds,) = counts(f"{where}: line {start + 7}", head[6].split()[:1])
        numbers = counts(f"{where}: line {start + 8}", head[7].split())
        if len(numbers) != kinds:
            raise InputError(
                f"{where}: line {start + 8} has {len(numbers)} numbers of atoms, line 7 says {kinds}"
            )
        check_count(where, sum(numbers), len(lines) - start - 9 - 2 * kinds)
        block, atom = start + 9, 0
        for number in numbers:
            lines[block] = label(f"{where}: line {block + 1}", lines[block].strip())[
                0
            ]  # its mass is in the header
            for line in range(block + 2, block + 2 + number):
                words = lines[line].split()
                here = f"{where}: atom {atom} (line {line + 1})"
                if len(words) < 4:
                    raise InputError(f"{here} has {len(words)} columns instead of 4")
                check_numbers(here, words[:3])
                atom += 1
            block += 2 + number
        text = "\n".join(lines[start:block]) + "\n"
        images += guarded(where, lambda text=text: read(io.StringIO(text), index=":", format="eon"))  # type: ignore[misc]
        start = block
    for atoms in images:
        atoms.pbc = True  # eOn structures are always periodic; neither the file nor ASE says so
    return images


def read_pdb(file: Path) -> list[Atoms]:
    """Read the models of a PDB file."""
    from ase.io import read

    lines = lines_of(read_text(file, otherwise="latin-1"))
    masses: dict[int, dict[int, float]] = {}  # model -> atom -> mass
    model = atom = 0
    for index, line in enumerate(lines):
        if line.startswith("END"):
            model, atom = model + 1, 0
        if not line.startswith(("ATOM", "HETATM")):
            continue
        where = f"{file}: model {model}, atom {atom} (line {index + 1})"
        for part in (line[30:38], line[38:46], line[46:54]):
            check_numbers(where, [part.strip()])
        if line[76:78].strip() in ("D", "T"):
            masses.setdefault(model, {})[atom] = label(where, line[76:78].strip())[1] or 0.0
            lines[index] = f"{line[:76]} H{line[78:]}"
        atom += 1
    text = "\n".join(lines) + "\n"
    images: list[Atoms] = guarded(
        str(file), lambda: read(io.StringIO(text), index=":", format="proteindatabank")
    )
    return [with_masses(atoms, masses.get(index, {})) for index, atoms in enumerate(images)]


def read_cif(file: Path) -> list[Atoms]:
    """Read the structures of a CIF file and apply their symmetry operations."""
    from ase.io.cif import parse_cif

    text = "\n".join(lines_of(read_text(file, otherwise="latin-1")))
    blocks = guarded(str(file), lambda: list(parse_cif(io.StringIO(text))))
    images: list[Atoms] = []
    for block in blocks:
        where = f"{file}: block {quoted(block.name)}"
        if guarded(where, block.has_structure):
            _check_sites(where, block)
            images.append(guarded(where, lambda block=block, where=where: _of_block(where, block)))  # type: ignore[misc]
    return images


def _check_sites(where: str, block: Any) -> None:
    names = _column(block, "_atom_site_label")
    labels = [f" ({one_line(name, 20)})" for name in names]
    for axis in "xyz":
        for kind in ("fract", "cartn"):
            for site, value in enumerate(_column(block, f"_atom_site_{kind}_{axis}")):
                if isinstance(value, str):
                    name = labels[site] if site < len(labels) else ""
                    raise InputError(
                        f"{where}: site {site}{name} has {axis} = {quoted(value)}, which is no number"
                    )
    for site, value in enumerate(_column(block, "_atom_site_occupancy")):
        if value in (1, "?", "."):
            continue
        name = labels[site] if site < len(labels) else ""
        if isinstance(value, str):
            raise InputError(
                f"{where}: site {site}{name} has the occupancy {quoted(value)}, which is no number"
            )
        if abs(value - 1.0) > 1e-9:
            raise InputError(
                f"{where}: has partly occupied sites (site {site}{name}: {quoted(value)}); "
                f"choose one arrangement of atoms"
            )


def _column(block: Any, name: str) -> list[Any]:
    found = block.get(name, [])
    return found if isinstance(found, list) else [found]


def _of_block(where: str, block: Any) -> Atoms:
    import numpy as np

    sites: Atoms = block.get_unsymmetrized_structure()
    if block.get_cell().rank == 3:
        given = block._get_sitesym()
        if given is not None and len(given) > _MOST_OPERATIONS:
            raise InputError(f"{where}: has {len(given)} symmetry operations; a space group has at most 192")
        operations = block.get_spacegroup(True).get_symop()
        identity = len(operations) == 1 and np.array_equal(operations[0][0], np.eye(3))
        if not identity and len(sites) > _MOST_SITES:
            raise InputError(
                f"{where}: has {len(sites)} sites with {len(operations)} symmetry operations, which takes too long to "
                f"expand beyond {_MOST_SITES} sites. Write it in P1, or as extxyz"
            )
        if not identity:
            sites = block.get_atoms()
            sites.info.pop("occupancy", None)  # checked before
        sites.pbc = True
    if sites.has("masses"):  # ASE takes that of the bare nucleus for deuterium
        masses = sites.get_masses()
        sites.set_masses(np.where(np.isclose(masses, 2.01355, atol=1e-9, rtol=0), ISOTOPES["D"], masses))
    return sites


def read_extxyz(file: Path) -> list[Atoms]:
    """Read the frames of an extended or plain xyz file one by one."""
    lines = _lines_of_frames(file)
    images: list[Atoms] = []
    start = 0
    while start < len(lines):
        declared = lines[start].strip()
        if not declared and images:  # between frames
            start += 1
            continue
        where = f"{file}: frame {len(images)} (counted from 0)"
        if not re.fullmatch(r"[0-9]+", declared):
            raise InputError(
                f"{where}: line {start + 1} should be the number of atoms, but is {quoted(declared, 40)}"
            )
        number = int(declared[:18])
        check_count(where, number, len(lines) - start - 2)
        images.append(_frame(where, lines[start + 1], lines[start + 2 : start + 2 + number], start + 3))
        start += 2 + number
    return images


def _frame(where: str, comment: str, rows: list[str], first: int) -> Atoms:
    """Return one frame. first: the line of its first atom, counted from 1."""
    from ase.io.extxyz import key_val_str_to_dict, read_extxyz

    comment = re.sub(r'Lattice\s*=\s*"[^"]*"', lambda found: c_numbers(found[0]), comment)
    about: dict[str, Any] = guarded(where, lambda: key_val_str_to_dict(comment))
    columns = _columns(where, str(about.get("Properties", "species:S:1:pos:R:3")))
    total = sum(number for _, _, number in columns)
    species = next(
        (
            sum(number for _, _, number in columns[:place])
            for place, (name, kind, _) in enumerate(columns)
            if name in ("species", "symbols") and kind == "S"
        ),
        None,
    )
    masks = [number for name, _, number in columns if name == "move_mask"]
    if any(number not in (1, 3) for number in masks):
        raise InputError(
            f"{where}: move_mask has {masks[0]} columns; give it 1, or 3 for the three directions"
        )
    masses: dict[int, float] = {}
    for atom, row in enumerate(rows):
        words = row.split()
        if len(words) < total:
            raise InputError(
                f"{where}: malformed: atom {atom} (line {first + atom}) has {len(words)} columns instead of {total}"
            )
        name = words[species] if species is not None else "X"
        if name not in NUMBERS:
            words[species or 0], mass = label(f"{where}: atom {atom} (line {first + atom})", name)
            if mass is not None:
                masses[atom] = mass
            rows[atom] = " ".join(words)
        if "D" in row or "d" in row:
            rows[atom] = " ".join(
                c_numbers(word) if place != species else word for place, word in enumerate(words)
            )
    text = f"{len(rows)}\n{comment.strip() or ' '}\n" + "\n".join(rows) + "\n"

    def read() -> list[Atoms]:
        return list(
            read_extxyz(io.StringIO(text), index=slice(None), properties_parser=lambda _: dict(about))
        )

    try:
        (atoms,) = guarded(where, read)
    except InputError:
        _check_rows(where, columns, rows, first)
        raise
    return with_masses(atoms, masses)


def _columns(where: str, properties: str) -> list[tuple[str, str, int]]:
    """Return name, kind and number of columns of each property."""
    fields = properties.split(":")
    groups = list(zip(fields[::3], fields[1::3], fields[2::3], strict=False))
    if len(fields) % 3 or not all(
        kind in ("R", "I", "S", "L") and re.fullmatch(r"[1-9][0-9]{0,5}", number)
        for _, kind, number in groups
    ):
        raise InputError(
            f"{where}: malformed: Properties={quoted(properties)} should be triplets of name, kind (R, I, S or L) and "
            f"number of columns, like species:S:1:pos:R:3"
        )
    return [(name, kind, int(number)) for name, kind, number in groups]


def _check_rows(where: str, columns: list[tuple[str, str, int]], rows: list[str], first: int) -> None:
    """Raise an error that names the atom at which a reader failed, if a number is at fault."""
    for atom, row in enumerate(rows):
        words = row.split()
        place = 0
        for _, kind, number in columns:
            if kind in ("R", "I"):
                here = f"{where}: malformed: atom {atom} ({quoted(words[0], 20)[1:-1]}, line {first + atom})"
                check_numbers(here, words[place : place + number], whole=kind == "I")
            place += number
