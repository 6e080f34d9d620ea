"""ASE's own files, trajectories (``.traj``) and json databases, checked before ASE decodes them.

Both hold JSON in which special entries declare arrays of any shape and ASE objects.

Invariants: an array is as large as the data that the file holds for it; a file creates no objects except cells; nothing
is unpickled. ASE's former trajectory format was a pickle, and is refused.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.errors import InputError
from mlopt.core.files.reading import lines_of, read_text
from mlopt.core.quoting import quoted
from mlopt.core.structures.text import guarded

if TYPE_CHECKING:
    from ase import Atoms

#: objects of ASE that a file may hold; others would run code when they are made
_OBJECTS = ("cell",)
#: kinds of numbers that arrays may have
_DTYPES = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split()
)
_HEAD = struct.Struct("<8s16sqqq")  # magic, tag, version, number of items, where their offsets stand


def read_json(file: Path) -> list[Atoms]:
    """Read all rows of an ASE json database."""
    from ase.io import read

    text = "\n".join(lines_of(read_text(file)))
    found = guarded(str(file), lambda: json.loads(text))
    _check(str(file), found)
    ids = found.get("ids", []) if isinstance(found, dict) else []
    if isinstance(ids, dict) and "__ndarray__" in ids:
        ids = ids["__ndarray__"][2]  # checked above to be a list
    if isinstance(ids, list) and not all(isinstance(one, int | float) for one in ids):
        raise InputError(f"{file}: malformed: `ids` should be whole numbers")
    if isinstance(ids, list) and len(set(ids)) != len(ids):
        raise InputError(f"{file}: malformed: `ids` names a row more than once")
    images: list[Atoms] = guarded(str(file), lambda: read(io.StringIO(text), index=":", format="json"))
    return images


def read_traj(file: Path) -> list[Atoms]:
    """Read all frames of a trajectory, from memory, where no array can be longer than the file."""
    from ase.io import read

    data = file.read_bytes()
    if data[:8] != b"- of Ulm" or len(data) < _HEAD.size:
        raise InputError(
            f"{file}: malformed: not a trajectory of ASE (those of before 2014 are pickles, which mlopt does not read: "
            f"convert them with `python -m ase.io.trajectory`)"
        )
    total = 0
    for number, item in enumerate(_items(file, data)):
        where = f"{file}: frame {number} (counted from 0)"
        _check(where, item)
        total += sum(_array_bytes(where, found, len(data)) for found in _arrays(item))
        if total > len(data):
            raise InputError(f"{where}: malformed: its arrays are larger than the file")
    images: list[Atoms] = guarded(str(file), lambda: read(io.BytesIO(data), index=":", format="traj"))
    return images


def _items(file: Path, data: bytes) -> Iterator[Any]:
    """Yield the JSON of each frame."""
    _, _, _, count, table = _HEAD.unpack_from(data)
    if not 0 <= count <= len(data) // 8 or not 0 <= table <= len(data) - 8 * count:
        raise InputError(f"{file}: malformed: declares {count} frames: it is cut short or damaged")
    for number, offset in enumerate(struct.unpack_from(f"<{count}q", data, table)):
        where = f"{file}: frame {number} (counted from 0)"
        if not 0 <= offset <= len(data) - 8:
            raise InputError(f"{where}: malformed: lies outside the file: it is cut short or damaged")
        (size,) = struct.unpack_from("<q", data, offset)
        if not 0 <= size <= len(data) - offset - 8:
            raise InputError(f"{where}: malformed: is longer than the file: it is cut short or damaged")
        yield guarded(where, lambda o=offset, s=size: json.loads(data[o + 8 : o + 8 + s]))  # type: ignore[misc]


def _check(where: str, value: Any) -> None:
    """Refuse arrays whose shape does not fit their data, and objects, also in strings of JSON, which ASE decodes."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str) and one.lstrip()[:1] in ("{", "[", '"'):
            with contextlib.suppress(
                ValueError, RecursionError
            ):  # text that is no JSON, which ASE cannot decode
                todo.append(json.loads(one))
        elif isinstance(one, list):
            todo += one
        elif isinstance(one, dict):
            if "__ase_objtype__" in one and one["__ase_objtype__"] not in _OBJECTS:
                raise InputError(f"{where}: malformed: holds the object {quoted(one['__ase_objtype__'])}")
            if "__ndarray__" in one:
                _check_array(where, one["__ndarray__"])
            todo += one.values()


def _check_array(where: str, declared: Any) -> None:
    sound = isinstance(declared, list) and len(declared) == 3
    shape, dtype, flat = declared if sound else ((), "", ())
    if not sound or not _is_shape(shape) or not isinstance(flat, list) or dtype not in _DTYPES:
        raise InputError(f"{where}: malformed: {quoted(declared)} is no array of numbers")
    parts = 2 if dtype.startswith("complex") else 1
    if math.prod(shape) * parts != len(flat):
        raise InputError(f"{where}: malformed: an array of shape {quoted(shape)} has {len(flat)} numbers")


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) <= 8
        and all(type(one) is int and 0 <= one < 2**40 for one in shape)
    )


def _arrays(item: Any) -> Iterator[Any]:
    """Yield the entries that declare arrays in the JSON of a trajectory, at any depth."""
    todo = [item]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            if "ndarray" in one:
                yield one["ndarray"]
            todo += one.values()


def _array_bytes(where: str, declared: Any, size: int) -> int:
    import numpy as np

    sound = isinstance(declared, list) and len(declared) == 3
    shape, dtype, offset = declared if sound else ((), "", 0)
    if not sound or not _is_shape(shape) or dtype not in _DTYPES or type(offset) is not int:
        raise InputError(f"{where}: malformed: {quoted(declared)} is no array of numbers")
    length = math.prod(shape) * np.dtype(dtype).itemsize
    if not 0 <= offset <= size - length:
        raise InputError(f"{where}: malformed: an array of shape {quoted(shape)} reaches beyond the file")
    return length
