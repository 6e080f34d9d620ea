"""Torch, imported at its first use.

Built-in plugins are loaded to validate a configuration, to list and to describe; none of that needs torch, which
takes seconds to import. They write ``from mlopt.core.lazy import torch`` and use it as usual inside functions.
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
        """Stands for a module; every attribute is looked up in the real one and kept."""

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
    """A ``__getattr__`` for a package that imports the modules of its public names when these are asked for.

    One plugin of a configuration should not import, and have pydantic build, all the others beside it.
    modules: names that each module of the package gives.
    """
    where = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def getattribute(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(where[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return getattribute
