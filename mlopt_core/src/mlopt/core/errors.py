"""Errors for users. Each says what was wrong, where, and what to do."""

from __future__ import annotations

from mlopt.core.quoting import one_line, several_lines

#: mistakes of one configuration that are listed
PROBLEMS = 20


class MloptError(Exception):
    """The base of every error that mlopt raises on purpose.

    ``exit_code`` is the exit status of the command line: 1 when a run failed, 2 when the request was wrong. Every line
    of a message is printable and of bounded length, whatever input the message repeats (`mlopt.core.quoting`).
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(several_lines(message))


class InputError(MloptError):
    """A request that cannot be met: a wrong value, file, device or combination."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration that does not validate. ``problems`` lists one line per mistake."""

    def __init__(self, problems: list[str], source: str = "") -> None:
        self.problems = [one_line(problem) for problem in problems[:PROBLEMS]]
        if len(problems) > PROBLEMS:
            self.problems.append(f"and {len(problems) - PROBLEMS} more mistakes")
        self.source = source
        head = f"{one_line(source, 200)}: " if source else ""
        super().__init__(head + ("\n" + " " * len(head)).join(self.problems))


class PluginError(InputError):
    """A plugin that is unknown, ambiguous, broken, or does not fulfil its protocol."""


class RunDirectoryError(InputError):
    """A run directory that is not mlopt's, is held by another process, or does not fit the request."""


class CheckpointError(MloptError):
    """A checkpoint that is truncated, altered or of an unknown format."""
