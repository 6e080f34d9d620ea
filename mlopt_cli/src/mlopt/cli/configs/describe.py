"""The settings of a plugin, read from its fields: type, default, unit, limits, documentation."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from mlopt.core.plugins.plugin import FromRegistry, Plugin

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_WORDS = {
    bool: "yes or no",
    int: "integer",
    float: "number",
    str: "text",
    type(None): "null",
    dict: "mapping",
    Any: "anything",
}
_LIMITS = {
    "gt": "> {}",
    "ge": ">= {}",
    "lt": "< {}",
    "le": "<= {}",
    "multiple_of": "a multiple of {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "matches {}",
}


@dataclass(frozen=True)
class Setting:
    """One setting. ``name`` is dotted within groups; ``default`` is plain data, without meaning if ``required``."""

    name: str
    type: str
    required: bool
    default: Any
    unit: str
    limits: str
    doc: str


def settings(cls: type[Plugin], prefix: str = "") -> Iterator[Setting]:
    """Yield every setting of a plugin class that a configuration may hold; those of a group follow it, dotted."""
    # `config` turns defaults into plain data; it needs an instance, so one without its required settings.
    required = {name: None for name, field in cls.model_fields.items() if field.is_required()}
    defaults = cls.model_construct(**required).config()
    for name, field in cls.model_fields.items():
        if name not in defaults:  # given from Python alone, such as the theta of a fitted potential
            continue
        group = _group(field.annotation) if _marker(field) is None else None
        extra = field.json_schema_extra
        yield Setting(
            prefix + name,
            type_name(field.annotation, field.metadata),
            field.is_required(),
            defaults[name],
            str(extra.get("unit", "")) if isinstance(extra, dict) else "",
            limits(field),
            field.description or "",
        )
        if group is not None:
            yield from settings(group, f"{prefix}{name}.")


def type_name(annotation: Any, metadata: Any = ()) -> str:
    """Return a type in words: ``integer or null``, ``"start" or "run"``, ``optimizer``."""
    marker = next((one for one in metadata if isinstance(one, FromRegistry)), None)
    if marker is not None:
        return marker.kind
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0], arguments[1:])
    if origin is Literal:
        return " or ".join(repr(value) if isinstance(value, str) else str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(one) for one in arguments)
    if origin in (list, tuple, set, frozenset):
        inner = [type_name(one) for one in arguments if one is not Ellipsis]
        return f"list of {' and '.join(dict.fromkeys(inner))}" if inner else "list"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {type_name(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Plugin):
        return "group"
    return _WORDS.get(annotation) or str(getattr(annotation, "__name__", annotation))


def limits(field: FieldInfo) -> str:
    """Return the limits of a field: ``> 0, < 1``."""
    found = []
    for item in field.metadata:
        if isinstance(item, FromRegistry):
            continue
        for name, words in _LIMITS.items():
            value = getattr(item, name, None)
            if value is not None:
                found.append(words.format(value))
    return ", ".join(found)


def _marker(field: FieldInfo) -> FromRegistry | None:
    return next((one for one in field.metadata if isinstance(one, FromRegistry)), None)


def _group(annotation: Any) -> type[Plugin] | None:
    """Return the class of a group of settings (such as `budget`), also of an optional group."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, Plugin):
            return one
    return None
