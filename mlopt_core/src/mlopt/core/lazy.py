"""Torch, imported at its first use.

Built-in plugins are loaded to validate a configuration, to list and to describe; none of that needs torch, which
takes seconds to import. They write ``from mlopt.core.lazy import torch`` and use it as usual inside functions.
Invariant: importing a module of mlopt never imports torch (tested). A third-party plugin may import it directly.
"""

from __future__ import annotations

import importlib
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
