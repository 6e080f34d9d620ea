"""Reading and checking of structure files, with one line of explanation for each fault.

Invariants: for any bytes, the outcome is structures or an `InputError`. Reading runs no code of the file, and the
memory allocated is bounded by the file's size.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.files.reading import existing_file
from mlopt.core.quoting import cause, one_line, quoted
from mlopt.core.structures import archives, formats
from mlopt.core.structures.checks import COINCIDENT, check_structures
from mlopt.core.structures.text import guarded

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
_READERS = {
    "extxyz": formats.read_extxyz,
    "cif": formats.read_cif,
    "vasp": formats.read_vasp,
    "eon": formats.read_eon,
    "proteindatabank": formats.read_pdb,
    "traj": archives.read_traj,
    "json": archives.read_json,
}


def read_structures(
    path: str | Path, *, least_distance: float = COINCIDENT, separate: bool = False
) -> Systems:
    """Read and check a structure file; all its frames become one batch. See `read_atoms` and `check_structures`.

    Raises:
        InputError: one line that names the file, and the frame and the atom where possible.
    """
    return _checked(read_atoms(path), str(path), least_distance, separate)


def read_structure(
    path: str | Path, index: int = -1, *, least_distance: float = COINCIDENT, separate: bool = False
) -> Systems:
    """Read one structure of a file, by default the last, as a batch of one. The other structures are not checked.

    Raises:
        InputError: as in `read_structures`, or ``index`` is outside the file.
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
        systems = Systems.from_atoms(images)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return check_structures(systems, source=source, least_distance=least_distance, separate=separate)


def read_atoms(path: str | Path) -> list[Atoms]:
    """Read all frames of a structure file in the format of its name (`SUFFIXES`, ``POSCAR``, ``CONTCAR``).

    Raises:
        InputError: the file is missing, a folder, empty, too large, malformed, or of an unknown format. An element is
            unknown. The file declares more atoms than it has lines.
    """
    file = existing_file(path)
    kind = _NAMES.get(file.name.upper().split(".")[0]) or SUFFIXES.get(file.suffix.lower())
    if kind is None:
        raise InputError(
            f"{file}: {one_line(file.suffix, 20) or 'a name without an ending'} is not a structure format that mlopt "
            f"reads. Known: {', '.join(SUFFIXES)}, POSCAR, CONTCAR. Convert it, for example with `ase convert`."
        )
    size = file.stat().st_size
    if size == 0:
        raise InputError(f"{file}: the file is empty")
    if size > MOST_BYTES:
        raise InputError(f"{file}: {size / 2**30:.1f} GiB are too large to read at once; split the file")
    try:
        images = _READERS[kind](file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or cause(error)}") from error
    if not images:
        raise InputError(f"{file}: there are no structures in it")
    several = len(images) > 1
    return [
        guarded(where, lambda where=where, one=one: _checked_image(where, one))  # type: ignore[misc]
        for where, one in (
            (f"{file}: frame {index} (counted from 0)" if several else str(file), one)
            for index, one in enumerate(images)
        )
    ]


def _checked_image(where: str, atoms: Atoms) -> Atoms:
    """Return ``atoms`` with all fixed atoms in one `FixAtoms`.

    Raises:
        InputError: an atom is fixed along some directions only, a constraint names an atom that does not exist, or a
            site is partly occupied.
    """
    import numpy as np
    from ase.constraints import FixAtoms, FixCartesian, FixScaled

    kept: list[Any] = []
    fixed = np.zeros((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms | FixCartesian | FixScaled):
            kept.append(constraint)  # `from_atoms` refuses it
            continue
        index = np.atleast_1d(constraint.index)
        if index.dtype == bool and len(index) == len(atoms):
            index = np.flatnonzero(index)
        absent = [one for one in index.tolist() if not -len(atoms) <= one < len(atoms)]
        if absent:
            raise InputError(
                f"{where}: atom {quoted(absent[0])} is fixed, but there are {len(atoms)} atoms, counted from 0"
            )
        fixed[index] |= np.ones(3, dtype=bool) if isinstance(constraint, FixAtoms) else constraint.mask
    partly = fixed.any(1) & ~fixed.all(1)
    if partly.any():
        atom = int(np.argmax(partly))
        along = " and ".join(name for name, on in zip("xyz", fixed[atom], strict=True) if on)
        raise InputError(
            f"{where}: atom {atom} ({atoms.symbols[atom]}) is fixed along {along} alone, but mlopt fixes whole atoms. "
            f"Fix it in all three directions, or in none"
        )
    whole = [FixAtoms(np.flatnonzero(fixed[:, 0]))] if fixed.any() else []
    atoms.set_constraint([*kept, *whole])
    for given in (atoms.info.get("occupancy"), atoms.arrays.get("occupancy")):
        for site, part in enumerate(_occupancies(given)):
            if 0.0 < part < 1.0:
                raise InputError(
                    f"{where}: has partly occupied sites (site {site}: {part:g}); choose one arrangement of atoms"
                )
    return atoms


def _occupancies(given: Any) -> list[float]:
    """Return the occupancies in an array, or in a mapping from element to fraction for each site."""
    import numpy as np

    if isinstance(given, dict):
        return [number for part in given.values() for number in _occupancies(part)]
    try:
        return np.asarray(given, dtype=np.float64).ravel().tolist() if given is not None else []
    except (TypeError, ValueError, OverflowError):  # not a number, so it has another meaning
        return []
