"""Types of settings for spins: vectors and lists that may be given as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mlopt.core.plugins.plugin import Plugin, unknown_key


def plain(value: Any) -> Any:
    """Return arrays, tensors and tuples as lists, as configurations and strict validation need them."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def several(value: Any) -> Any:
    """Return the value as `plain` does, with a single number as a list of one."""
    value = plain(value)
    return value if isinstance(value, list) else [value]


def _direction(value: list[float]) -> list[float]:
    if not any(value):
        raise ValueError("should be a direction, but has no length")
    return value


def _sites(value: Any) -> Any:
    value = plain(value)
    kinds = {type(one) for one in value} if isinstance(value, list) else {None}
    if kinds not in (set(), {int}, {bool}):
        raise ValueError("should be a list of the sites' numbers, or of a flag for each site")
    return value


Number = Annotated[float, Field(allow_inf_nan=False)]
#: any numbers, or one
Numbers = Annotated[list[Number], BeforeValidator(several)]
Integers = Annotated[list[int], BeforeValidator(several)]
#: three numbers
Vector = Annotated[list[Number], Field(min_length=3, max_length=3), BeforeValidator(plain)]
#: three numbers that are not all zero; only the direction counts
Direction = Annotated[Vector, AfterValidator(_direction)]
#: three whole numbers
Cells = Annotated[list[int], Field(min_length=3, max_length=3), BeforeValidator(plain)]
#: indices, or a flag for each; `indices` makes them indices where it is known how many there are
Sites = Annotated[list[int] | list[bool], BeforeValidator(_sites)]


class Part(Plugin):
    """A group of settings in a list; an unknown key is explained by the keys of the group."""

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        strange = set(values) - set(cls.model_fields) if isinstance(values, Mapping) else ()
        if strange:
            raise ValueError(
                unknown_key(min(map(str, strange)), list(cls.model_fields), f"one {cls.__name__}")
            )
        return values


def indices(name: str, given: list[int] | list[bool], count: int, what: str) -> list[int]:
    """Return the sorted indices of ``given``, which are indices already or a flag for each of ``count``.

    Raises:
        ValueError: a wrong number of flags, or an index that is out of range or repeated.
    """
    if given and isinstance(given[0], bool):
        if len(given) != count:
            raise ValueError(f"{name}: {len(given)} flags for {count} {what}; give one for each")
        return [index for index, flag in enumerate(given) if flag]
    for index in given:
        if not 0 <= index < count:
            raise ValueError(f"{name}: there is no number {index}; {what} are numbered 0 to {count - 1}")
    if len(set(given)) < len(given):
        twice = next(index for place, index in enumerate(given) if index in given[:place])
        raise ValueError(f"{name}: {twice} stands there twice; give it once")
    return sorted(given)
