"""Systems from and to other forms: ASE, PyG, our own file, and the files that people have."""

from __future__ import annotations

import difflib
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core import atomic
from mlopt.core.elements import NUMBERS, SYMBOLS
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.structure_checks import COINCIDENT, MOST_ATOMS
from mlopt.core.structure_checks import check_structures as check_structures
from mlopt.core.systems import Systems

if TYPE_CHECKING:
    from ase import Atoms

_FORMAT, _VERSION = "mlopt-systems", "1"
_FIELDS = ("pos", "z", "ptr", "cell", "pbc", "fixed")
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


def from_atoms(
    atoms: Atoms | Sequence[Atoms], dtype: torch.dtype | None = None, device: str | None = None
) -> Systems:
    """From one ASE ``Atoms`` or several: positions, atomic numbers, cell, periodicity, and ``FixAtoms`` as ``fixed``.

    float64 unless ``dtype`` says otherwise, so that nothing is lost.

    Raises:
        InputError: there are none, or an atom is constrained in another way than fixed altogether.
    """
    import numpy as np
    from ase import Atoms as AseAtoms

    images = [atoms] if isinstance(atoms, AseAtoms) else list(atoms)
    if not images:
        raise InputError("Systems.from_atoms needs at least one Atoms object")
    counts = torch.tensor([0, *(len(one) for one in images)])
    kind = dtype or torch.float64

    def joined(arrays: list[Any]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(device)

    return Systems(
        joined([one.positions for one in images]).to(kind),
        joined([one.numbers.astype(np.int64) for one in images]),
        counts.cumsum(0).to(device),
        torch.from_numpy(np.stack([one.cell.array for one in images])).to(device, kind),
        torch.from_numpy(np.stack([one.pbc for one in images])).to(device),
        joined([_fixed(one, index) for index, one in enumerate(images)]),
    )


def _fixed(atoms: Atoms, index: int) -> Any:
    """(n_atoms,) bool array of the atoms that must not move."""
    import numpy as np
    from ase.constraints import FixAtoms, FixCartesian, FixScaled

    mask = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        whole = isinstance(constraint, FixCartesian | FixScaled) and np.all(constraint.mask)
        if not (whole or isinstance(constraint, FixAtoms)):
            raise InputError(
                f"structure {index} has the constraint {type(constraint).__name__}, but mlopt can only fix whole atoms "
                f"(FixAtoms). Remove it, for example with `atoms.set_constraint()`."
            )
        mask[constraint.index] = True
    return mask


def to_atoms(systems: Systems) -> list[Atoms]:
    """A list of ASE ``Atoms`` with what `from_atoms` takes over; gradients are cut."""
    from ase import Atoms as AseAtoms
    from ase.constraints import FixAtoms

    pos = systems.pos.detach().to("cpu", torch.float64).numpy()
    z, fixed = systems.z.cpu().numpy(), systems.fixed.cpu().numpy()
    cells = systems.cell.detach().to("cpu", torch.float64).numpy()
    pbc = systems.pbc.cpu().numpy()
    ptr = systems.ptr.tolist()
    images = []
    for index, (start, stop) in enumerate(pairwise(ptr)):
        one = AseAtoms(z[start:stop], positions=pos[start:stop], cell=cells[index], pbc=pbc[index])
        if fixed[start:stop].any():
            one.set_constraint(FixAtoms(mask=fixed[start:stop]))
        images.append(one)
    return images


def from_pyg(data: Any) -> Systems:
    """From a PyG ``Data`` or ``Batch`` with ``pos``, ``z``, and ``cell``, ``pbc``, ``fixed`` where present.

    ``cell`` is (3, 3), (1, 3, 3) or (n, 3, 3), ``pbc`` (3,) or (n, 3); a ``Batch`` has them one system after another.

    Raises:
        InputError: ``pos`` or ``z`` is missing, atoms are not sorted by system, or a shape does not fit.
    """
    missing = [name for name in ("pos", "z") if getattr(data, name, None) is None]
    if missing:
        raise InputError(f"from_pyg: the data has no {' and no '.join(f'`{name}`' for name in missing)}")
    ptr, batch = getattr(data, "ptr", None), getattr(data, "batch", None)
    if ptr is None:
        if batch is None:
            batch = torch.zeros_like(data.z, dtype=torch.int64)
        if bool((batch.diff() < 0).any()):
            raise InputError("from_pyg: `batch` is not sorted; sort the atoms by system")
        counts = torch.bincount(batch)
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    extra = {
        name: getattr(data, name)
        for name in ("cell", "pbc", "fixed")
        if getattr(data, name, None) is not None
    }
    if "cell" in extra:
        extra["cell"] = extra["cell"].reshape(-1, 3, 3).to(data.pos)
    if "pbc" in extra:
        extra["pbc"] = extra["pbc"].reshape(-1, 3).to(torch.bool)
    return Systems(data.pos, data.z.to(torch.int64), ptr, **extra)


def to_pyg(systems: Systems) -> Any:
    """A PyG ``Batch`` of ``Data`` with ``pos``, ``z``, ``cell`` (1, 3, 3), ``pbc`` (1, 3) and ``fixed``.

    Raises:
        InputError: torch-geometric is not installed.
    """
    try:
        from torch_geometric.data import Batch, Data
    except ImportError as error:
        raise InputError(
            f"to_pyg needs torch-geometric ({error}). Install it: pip install torch-geometric"
        ) from error
    ptr = systems.ptr.tolist()
    return Batch.from_data_list(
        [
            Data(
                pos=systems.pos[start:stop],
                z=systems.z[start:stop],
                cell=systems.cell[index : index + 1],
                pbc=systems.pbc[index : index + 1],
                fixed=systems.fixed[start:stop],
                num_nodes=stop - start,
            )
            for index, (start, stop) in enumerate(pairwise(ptr))
        ]
    )


def save(systems: Systems, path: str | Path) -> None:
    """Write every field, bit for bit, to a safetensors file.

    Raises:
        MloptError: the file cannot be written; a former one is then intact.
    """
    from safetensors.torch import save as serialize

    tensors = {name: getattr(systems, name).detach().cpu().contiguous() for name in _FIELDS}
    atomic.write_bytes(path, serialize(tensors, metadata={"format": _FORMAT, "version": _VERSION}))


def load(path: str | Path) -> Systems:
    """Read what `save` wrote.

    Raises:
        InputError: no such file, not one of ours, damaged, or of a newer version.
    """
    from safetensors import SafetensorError, safe_open

    file = _existing_file(path)
    try:
        with safe_open(str(file), framework="pt") as opened:
            about = opened.metadata() or {}
            names = set(opened.keys())
            known = (
                about.get("format") == _FORMAT and about.get("version") == _VERSION and names == set(_FIELDS)
            )
            tensors = {name: opened.get_tensor(name) for name in _FIELDS} if known else {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a safetensors file, or damaged: {_one_line(error)}") from error
    if about.get("format") != _FORMAT:
        raise InputError(f"{file}: a safetensors file, but not one that Systems.save wrote")
    if about.get("version") != _VERSION:
        raise InputError(
            f"{file}: version {about.get('version')} of the format; this mlopt reads {_VERSION}. Update mlopt."
        )
    if not tensors:
        raise InputError(f"{file}: has the fields {sorted(names)} instead of {sorted(_FIELDS)}")
    return Systems(**tensors)


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
    file = _existing_file(path)
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


def _existing_file(path: str | Path) -> Path:
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a file")
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    return file


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
        raise InputError(f"{where}: malformed: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
