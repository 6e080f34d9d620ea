"""The guard against classes that change a method and inherit an old kernel."""

from __future__ import annotations

from types import FunctionType

from mlopt.core.plugins.plugin import Plugin

#: what the engine itself calls, so that a new version counts
_ASKED = {"diameter", "species", "check", "select"}


def changed_since_kernel(part: Plugin) -> str | None:
    """Return a clause that says how a plugin, or one in its settings, was changed without a new `kernel`, or None."""
    for cls in type(part).__mro__:
        if "kernel" in vars(cls):
            break
        for name, value in vars(cls).items():
            changes = isinstance(value, FunctionType | property | classmethod | staticmethod)
            if not changes or name.startswith(("__", "model_")) or name in _ASKED:
                continue
            if any(hasattr(base, name) for base in cls.__bases__):
                return f"{cls.__name__} has its own `{name}`, and the `kernel` of another class"
    for name in type(part).model_fields:
        value = getattr(part, name)
        for one in value if isinstance(value, list | tuple) else [value]:
            found = changed_since_kernel(one) if isinstance(one, Plugin) else None
            if found is not None:
                return found
    return None
