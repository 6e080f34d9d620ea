"""Torch, imported at its first use.

Torch takes seconds to import, and listing, describing or validating built-in plugins does not need it. Modules write
``from mlopt.core.lazy import torch`` and use it as usual inside functions.

Invariant: importing a module of mlopt never imports torch (tested). A third-party plugin may import it directly.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
else:

    class _LazyModule:
        """A proxy of a module; each attribute is looked up in the real module and kept."""

        def __init__(self, name: str) -> None:
            self.__name__ = name

        def __getattr__(self, attribute: str) -> Any:
            if attribute.startswith("__"):  # copy, pickle and inspect probe these; they must not import torch
                raise AttributeError(attribute)
            value = getattr(importlib.import_module(self.__name__), attribute)
            setattr(self, attribute, value)
            return value

    torch = _LazyModule("torch")


def names_of(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package that imports the modules of its public names on first access.

    A configuration that uses one plugin then does not import all others, for which pydantic would build validators.

    modules: the public names that each module provides.
    """
    where = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def getattribute(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(where[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return getattribute
