"""Structures written for other programs, as extxyz and ASE databases, with everything that the formats can hold."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlopt.core.atoms.template import plain
from mlopt.core.files.atomic import write_bytes, write_text

if TYPE_CHECKING:
    from ase import Atoms

#: texts that a reader of extxyz takes for a number or a truth value
_NO_TEXT = re.compile(r"[\s\d.+-].*|t|f|true|false|nan|inf(?:inity)?|none|null|", re.IGNORECASE | re.DOTALL)
#: columns that ASE's database has places for
_DATABASE = ("numbers", "positions", "masses", "tags", "momenta", "initial_charges", "initial_magmoms")


def write_extxyz(path: str | os.PathLike[str], images: Sequence[Atoms]) -> None:
    """Write ``images`` to one file atomically; the format rounds coordinates to 8 decimals.

    Constraints, masses, tags, charges, moments, other columns and ``info`` are written. The format cannot hold columns
    of more than two dimensions, or objects that are no plain data.
    """
    write_text(path, extxyz(images))


def extxyz(images: Sequence[Atoms]) -> str:
    """Return ``images`` as the text of an extxyz file, see `write_extxyz`."""
    from ase.io import write

    text = StringIO()
    if images:
        write(text, [_for_extxyz(one) for one in images], format="extxyz")
    return text.getvalue()


def write_ase_db(
    path: str | os.PathLike[str], images: Sequence[Atoms], facts: Sequence[Mapping[str, Any]]
) -> None:
    """Write ``images`` as a new ASE database, replacing the file; ``facts`` are its columns, one set per image.

    Further columns of atoms and ``info`` go to the field ``data``. This is an export, never the store itself, because a
    writer killed while it holds ASE's lock file blocks all others.
    """
    from ase.db import connect

    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "export.db"
        with connect(temporary, use_lock_file=False) as database:
            for atoms, columns in zip(images, facts, strict=True):
                told = atoms.copy()
                told.calc = atoms.calc
                arrays = {name: one for name, one in atoms.arrays.items() if name not in _DATABASE}
                moments = atoms.arrays.get("initial_magmoms")
                if moments is not None and moments.ndim > 1:  # ASE flattens them, and cannot read them again
                    arrays["initial_magmoms"] = moments
                    del told.arrays["initial_magmoms"]
                info = {name: value for name, value in atoms.info.items() if name not in columns}
                data = {"arrays": plain(arrays, mark=False), "info": plain(info, mark=False)}
                database.write(told, key_value_pairs=dict(columns), data={k: v for k, v in data.items() if v})
        write_bytes(path, temporary.read_bytes())


def _for_extxyz(atoms: Atoms) -> Atoms:
    """Return a copy with the entries that the format can hold, in a form that reads back unchanged."""
    told: Atoms = atoms.copy()
    told.calc = atoms.calc
    for name, array in atoms.arrays.items():
        if array.dtype.kind not in "biufU" or array.ndim > 2 or re.search(r"[\s:=\"]", name):
            del told.arrays[name]
        elif array.dtype.kind == "u":  # the format knows no unsigned numbers
            told.arrays[name] = array.astype(np.int64)
        elif array.dtype.kind == "U" and any(re.search(r"\s|^$", str(word)) for word in array.ravel()):
            del told.arrays[name]
    told.info = {}
    for name, value in atoms.info.items():
        found = plain({name: value}, mark=False)
        if found and re.fullmatch(r"[^\s=\"',{}\[\]\\]+", str(name)):
            row = (
                isinstance(value, np.ndarray)
                and value.ndim == 1
                and len(value) > 1
                and value.dtype.kind in "bif"
            )
            told.info[name] = _said(value if row else found[name])
    return told


def _said(value: Any) -> Any:
    """Return ``value`` in a form that ASE's reader reads back unchanged."""
    if isinstance(value, str):
        return (
            "_JSON " + json.dumps(value) if _NO_TEXT.fullmatch(value) or value.startswith("_JSON") else value
        )
    if value is None or isinstance(value, dict | list):
        return "_JSON " + json.dumps(value)
    return value
