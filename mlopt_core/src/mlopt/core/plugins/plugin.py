"""Plugins: classes whose constructor is their configuration.

Subclass `Plugin` and annotate its fields with `setting`, which declares type, default, unit, documentation and limits.
The constructor, the configuration file, ``mlopt info`` and the docs all come from this declaration::

    class Harmonic(Potential):
        k: float = setting(1.0, "spring constant", unit="eV/angstrom^2", gt=0)

Instances are immutable. A field that is itself a plugin is annotated ``Annotated[Optimizer,
FromRegistry("optimizer")]``, or is a list of such. It takes an object, a registered name, or a mapping with a ``name``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError, core_schema

from mlopt.core.errors import ConfigError, PluginError
from mlopt.core.plugins import registry
from mlopt.core.plugins.input_file import Copy
from mlopt.core.quoting import one_line, quoted
from mlopt.core.suggestions import hint

_REQUIRED: Any = ...

Mark = TypeVar("Mark")


def setting(default: Any = _REQUIRED, doc: str = "", *, unit: str = "", **limits: Any) -> Any:
    """Declare a field of a plugin: default, one line of documentation, unit, and limits such as ``gt=0``."""
    return Field(default, description=doc, json_schema_extra={"unit": unit} if unit else None, **limits)


class Plugin(BaseModel):
    """The base of everything that can be named in a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, values: Any) -> Any:
        """Convert floats such as ``1e4``, as YAML reads it, to integers where the field is an integer."""
        if not isinstance(values, Mapping):
            return values
        fields = cls.model_fields
        return {
            name: _whole_numbers(value, fields[name].annotation) if name in fields else value
            for name, value in values.items()
        }

    def replace(self, **values: Any) -> Self:
        """Return a copy with some settings changed, *not* validated.

        A meta-trainer sets tensors in this way: ``Adam().replace(step_size=theta)``, with ``theta`` 0-d or
        (n_problems,). Use the constructor for values from a user.
        """
        unknown = [name for name in values if name not in type(self).model_fields]
        if unknown:
            raise ConfigError([unknown_key(unknown[0], list(type(self).model_fields), type(self).__name__)])
        copied = self.model_copy(update=values)
        for derived in set(vars(copied)) - set(type(self).model_fields):  # cached values of the old settings
            del vars(copied)[derived]
        return copied

    def __eq__(self, other: object) -> bool:
        """Return whether all settings are equal, ignoring cached values; tensors are compared number by number."""
        if not isinstance(other, Plugin) or type(self) is not type(other):
            return NotImplemented
        if self.__pydantic_private__ != other.__pydantic_private__:
            return False
        return all(_equal(getattr(self, name), getattr(other, name)) for name in type(self).model_fields)

    def config(self) -> dict[str, Any]:
        """Return the settings as plain data, nested plugins with their ``name``, as in a resolved configuration."""
        return {name: _plain(getattr(self, name), field) for name, field in type(self).model_fields.items()}


def _whole_numbers(value: Any, annotation: Any) -> Any:
    """Return ``value`` with whole floats as integers, where the annotation wants an integer and no float."""
    kinds = _alternatives(annotation)
    if isinstance(value, float):
        return int(value) if int in kinds and float not in kinds and value.is_integer() else value
    if isinstance(value, list | tuple):
        inner = [get_args(kind) for kind in kinds if get_origin(kind) in (list, tuple) and get_args(kind)]
        if len(inner) == 1:
            of = [one for one in inner[0] if one is not Ellipsis]
            items = [_whole_numbers(one, of[min(k, len(of) - 1)]) for k, one in enumerate(value)]
            return type(value)(items)
    return value


def _equal(one: Any, other: Any) -> bool:
    if type(one) is type(other) and type(one).__module__.partition(".")[0] == "torch":
        return one is other or bool(one.shape == other.shape and (one == other).all())
    return bool(one == other)


def _alternatives(annotation: Any) -> list[Any]:
    """Return the types of a union, without their annotations."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for one in get_args(annotation) for kind in _alternatives(one)]
    return [annotation]


def _plain(value: Any, field: Any = None) -> Any:
    if isinstance(value, Plugin):
        marker = mark_of(field, FromRegistry)
        name = registry.name_of(marker.kind, type(value)) if marker else None
        return ({"name": name or type(value).__name__} if marker else {}) | value.config()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, field) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, field) for item in value]
    return value.original if isinstance(value, Copy) else value


def mark_of(field: Any, kind: type[Mark]) -> Mark | None:
    """Return a field's mark of that kind, at any depth, as in ``list[Annotated[Potential, FromRegistry(...)]]``."""
    parts = (*getattr(field, "metadata", ()), *get_args(getattr(field, "annotation", field)))
    for part in parts:
        found = part if isinstance(part, kind) else mark_of(part, kind) if get_args(part) else None
        if found is not None:
            return found
    return None


@dataclass(frozen=True)
class FromRegistry:
    """The mark of a field for a plugin of ``kind``, given as an object, a name, or a mapping with a ``name``."""

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        def build(value: Any) -> Any:
            return self.build(value, source)

        return core_schema.no_info_plain_validator_function(build)

    def build(self, value: Any, base: type) -> Any:
        """Turn a name or a mapping into a plugin object; pass objects of the right class through."""
        if isinstance(value, base):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            raise PydanticCustomError(
                "plugin",
                f"should be the name of a {self.kind} or a mapping with a `name`, got {quoted(value)}",
            )
        settings = dict(value)
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise PydanticCustomError(
                "plugin", f"needs a `name`: which {self.kind}? See `mlopt list {self.kind}`"
            )
        try:
            cls = registry.load(self.kind, name)
        except PluginError as error:
            raise PydanticCustomError("plugin", "{message}", {"message": str(error)}) from error
        if not issubclass(cls, base):
            wanted = getattr(base, "__name__", self.kind)  # a union has no name
            raise PydanticCustomError("plugin", f"{quoted(name)} is not a {wanted} but a {cls.__name__}")
        return cls(**settings)  # pydantic puts the locations of a nested ValidationError behind ours


def build(cls: type[Any], settings: Mapping[str, Any], source: str = "") -> Any:
    """Construct a plugin from plain data.

    Raises:
        ConfigError: with one line per mistake, each with its path and, for an unknown key, a suggestion.
    """
    try:
        return cls(**settings)
    except ValidationError as error:
        raise ConfigError(explain(error, cls, settings), source) from error


def explain(error: ValidationError, cls: type[Any], settings: Mapping[str, Any]) -> list[str]:
    """Return one line per mistake: ``path: what is wrong``."""
    lines = []
    for item in error.errors(include_url=False):
        location = [str(part) for part in item["loc"] if not str(part).startswith("function-")]
        path = one_line(".".join(location) or cls.__name__, 120)
        if item["type"] == "extra_forbidden":
            known = known_keys(cls, location[:-1], settings)
            inner = _group_with(location[-1], location[:-1], known, cls, settings)
            lines.append(
                f"{path}: "
                + unknown_key(location[-1], known, ".".join(location[:-1]) or "the top level", inner)
            )
        elif item["type"] == "model_type":
            names = ", ".join(known_keys(cls, location, settings))
            lines.append(f"{path}: should be `key: value` settings ({names}), got {quoted(item['input'])}")
        elif item["type"] == "missing":
            lines.append(f"{path}: this setting is required")
        else:
            message = one_line(item["msg"].removeprefix("Value error, "), 500)
            given = item.get("input")
            shown = f" (got {quoted(given)})" if isinstance(given, str | int | float | bool | None) else ""
            lines.append(f"{path}: {message[:1].lower()}{message[1:]}{shown if shown not in message else ''}")
    return lines


def unknown_key(key: str, known: list[str], where: str, inner: str = "") -> str:
    """Return the message about an unknown key, with the nearest known key or the group ``inner`` that has it."""
    meant = f" It belongs into `{inner}`." if inner else hint(key, known)
    return f"unknown key {quoted(key)} in {one_line(where, 120)}.{meant} Known: {', '.join(known)}."


def _group_with(
    key: str, path: list[str], known: list[str], cls: type[Any], settings: Mapping[str, Any]
) -> str:
    """Return the group or plugin beside a wrong key that has a setting of that name, or an empty string."""
    for name in known:
        with contextlib.suppress(PluginError):  # a name there may be as wrong
            if key in known_keys(cls, [*path, name], settings):
                return name
    return ""


def _plugin_in(annotation: Any) -> type[Plugin] | None:
    """Return the plugin class in an annotation, also in ``list[Group]`` or ``Group | None``; None if there is none."""
    for kind in _alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, Plugin):
            return kind
        for inner in get_args(kind):
            if (found := _plugin_in(inner)) is not None:
                return found
    return None


def known_keys(cls: type[Any], path: list[str], settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings at the end of ``path``, followed from ``cls`` through ``settings``."""
    field = None
    for part in path:
        if part.isdigit() and isinstance(settings, list | tuple) and int(part) < len(settings):
            settings = settings[int(part)]  # an item of a list; `field` still says of what
        else:
            field = getattr(cls, "model_fields", {}).get(part)
            settings = settings.get(part, {}) if isinstance(settings, Mapping) else {}
        if field is None:
            break
        marker = mark_of(field, FromRegistry)
        name = settings.get("name") if isinstance(settings, Mapping) else settings
        if marker and isinstance(name, str):
            cls = registry.load(marker.kind, name)
        else:
            cls = _plugin_in(field.annotation) or object
    return list(getattr(cls, "model_fields", {}))
