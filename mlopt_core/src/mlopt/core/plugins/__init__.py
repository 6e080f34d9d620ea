"""Plugins: classes whose constructor is their configuration, found by name through entry points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.plugins.input_file import AbsolutePath, InputFile, Reads
    from mlopt.core.plugins.plugin import FromRegistry, Plugin, build, setting
    from mlopt.core.plugins.registry import Entry, entries, load

__all__ = [
    "AbsolutePath",
    "Entry",
    "FromRegistry",
    "InputFile",
    "Plugin",
    "Reads",
    "build",
    "entries",
    "load",
    "setting",
]

__getattr__ = names_of(
    __name__,
    {
        "input_file": ("AbsolutePath", "InputFile", "Reads"),
        "plugin": ("FromRegistry", "Plugin", "build", "setting"),
        "registry": ("Entry", "entries", "load"),
    },
)
