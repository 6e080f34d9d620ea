"""Errors that a user sees: each says what was wrong, where, and what to do."""

from __future__ import annotations


class MloptError(Exception):
    """Base of every error that mlopt raises on purpose.

    ``exit_code`` is what the command line returns for it: 1 when a run failed, 2 when the request was wrong.
    """

    exit_code = 1


class InputError(MloptError):
    """What the user asked for cannot be done as asked (a wrong value, file, device or combination)."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration that does not validate. ``problems`` lists one line per mistake."""

    def __init__(self, problems: list[str], source: str = "") -> None:
        self.problems = problems
        self.source = source
        head = f"{source}: " if source else ""
        super().__init__(head + ("\n" + " " * len(head)).join(problems))


class PluginError(InputError):
    """A plugin that is unknown, ambiguous, broken, or not what its group asks for."""


class RunDirectoryError(InputError):
    """A run directory that is not ours, is held by another process, or does not fit the request."""


class CheckpointError(MloptError):
    """A checkpoint that is truncated, altered or of an unknown format."""
