"""The display of progress: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from mlopt.cli.terminal.output import note
from mlopt.core.quoting import several_lines

_EVERY = 5.0  # seconds between two plain lines


class Display:
    """A display that shows nothing (``--quiet``); the base of the others."""

    def update(self, done: float, message: str) -> None:
        """Show progress; ``done`` is from 0 to 1."""

    def note(self, message: str) -> None:
        """Show a line of the log."""

    def close(self) -> None:
        """Show the last state and leave the terminal in order."""


class Lines(Display):
    """A display of the first and the last state, with at most one line every few seconds between."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._next = 0.0
        self._pending = ""

    def update(self, done: float, message: str) -> None:
        elapsed = time.monotonic() - self._began
        self._pending = f"{_clock(elapsed):>8}  {100 * min(max(done, 0.0), 1.0):3.0f} %  {message}"
        if elapsed >= self._next:
            self._next = elapsed + _EVERY
            self.close()

    def note(self, message: str) -> None:
        note(message)

    def close(self) -> None:
        if self._pending:
            note(self._pending)
            self._pending = ""


class Bar(Display):
    """A bar that rich draws on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns: list[Any] = [BarColumn(30), TaskProgressColumn(), TimeElapsedColumn()]
        # Structure names and paths may hold brackets, which rich would take for styles.
        columns.append(TextColumn("{task.description}", markup=False))
        self._progress = Progress(*columns, console=Console(stderr=True), transient=False)
        self._task = self._progress.add_task("", total=1.0)
        self._progress.start()

    def update(self, done: float, message: str) -> None:
        self._progress.update(self._task, completed=min(max(done, 0.0), 1.0), description=message)

    def note(self, message: str) -> None:
        self._progress.console.print(several_lines(message), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._progress.stop()


def make(quiet: bool) -> Display:
    """Return the display that suits stderr."""
    if quiet:
        return Display()
    terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return Bar() if terminal else Lines()


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
