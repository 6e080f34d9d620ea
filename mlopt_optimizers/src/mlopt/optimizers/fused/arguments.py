"""Plain arguments in the place of records: see `mlopt.core.kernels.records`."""

from __future__ import annotations

import dataclasses
from types import FunctionType
from typing import Any


def fields_of(record: Any) -> tuple[str, ...] | None:
    """Return the names of a record's fields, in order; None for what is no record."""
    if not isinstance(record, type):
        return None
    if dataclasses.is_dataclass(record):
        return tuple(one.name for one in dataclasses.fields(record))
    if getattr(record, "_is_protocol", False):
        bases = (vars(base).get("__annotations__", {}) for base in reversed(record.__mro__))
        return tuple(dict.fromkeys(name for annotations in bases for name in annotations))
    return None


def parameters_of(function: FunctionType) -> list[tuple[str, tuple[str, ...] | None]]:
    """Return each parameter of a function, with the fields of the record that its annotation asks for, if it does."""
    found = []
    for name in function.__code__.co_varnames[: function.__code__.co_argcount]:
        annotation = function.__annotations__.get(name)
        if isinstance(annotation, str):
            annotation = function.__globals__.get(annotation)
        found.append((name, fields_of(annotation)))
    return found


def plain(name: str, fields: tuple[str, ...] | None) -> list[str]:
    """Return the arguments that stand for a parameter: one for each field of a record, else the parameter itself."""
    return [name] if fields is None else [f"{name}_{field}" for field in fields]
