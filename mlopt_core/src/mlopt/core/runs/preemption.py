"""Preemption: signals that request a stop at the next safe point, the clock of checkpoints, and exit codes.

Batch systems warn before they kill. Slurm sends SIGTERM (or what ``--signal`` asks for, by custom SIGUSR2), and SIGKILL
after a grace time of about 30 s (https://slurm.schedmd.com/preempt.html). The driver therefore reads ``requested``
after every step, saves, and leaves with ``exit_code``. The handler itself does nothing that could fail halfway.
"""

from __future__ import annotations

import enum
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TypeAlias

from mlopt.core.errors import InputError

_Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | None


class ExitCode(enum.IntEnum):
    """The exit codes of the command line."""

    OK = 0
    FAILED = 1
    USAGE = 2  # the request or the configuration was wrong; nothing was started
    NOT_CONVERGED = 3  # finished, but not converged, under --strict
    PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: a checkpoint is safe, start the same command again
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Preemption:
    """A context manager that turns SIGTERM, SIGUSR2 and the first SIGINT (Ctrl-C) into a request to stop.

    A second Ctrl-C raises ``KeyboardInterrupt`` at once. The former handlers return at the end of the ``with``. Python
    allows handlers in the main thread only; elsewhere this does nothing and ``requested`` stays None.

    >>> with Preemption() as preemption:
    ...     while preemption.requested is None:
    ...         break  # one step
    """

    def __init__(self) -> None:
        self._requested: str | None = None
        self._interrupts = 0
        self._owner = 0  # process that installed the handlers
        self._former: dict[signal.Signals, _Handler] = {}

    @property
    def requested(self) -> str | None:
        """Name of the first signal that asked to stop ("SIGTERM", "SIGUSR2" or "SIGINT"), or None."""
        return self._requested

    @property
    def exit_code(self) -> ExitCode:
        """Code to leave with once the checkpoint is safe."""
        if self._requested is None:
            return ExitCode.OK
        return ExitCode.INTERRUPTED if self._requested == "SIGINT" else ExitCode.PREEMPTED

    def __enter__(self) -> Preemption:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._requested, self._interrupts, self._owner = None, 0, os.getpid()
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            former = signal.getsignal(number)
            # A shell starts `command &` of a script with SIGINT ignored, and means it.
            if number is signal.SIGINT and former is signal.SIG_IGN:
                continue
            self._former[number] = former
            signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._former:
            number, former = self._former.popitem()
            # None: the former handler was not Python's and cannot be put back.
            signal.signal(number, signal.SIG_DFL if former is None else former)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        number = signal.Signals(number)
        if os.getpid() != self._owner:
            self._pass_on(number, frame)
            return
        if self._requested is None:
            self._requested = number.name
        if number is signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt

    def _pass_on(self, number: signal.Signals, frame: FrameType | None) -> None:
        # A forked worker inherits this handler but has nothing to save. If it swallowed SIGTERM,
        # `terminate()` of a process pool would wait for it for ever.
        former = self._former.get(number)
        if callable(former):
            former(number, frame)
        elif former is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


class CheckpointClock:
    """A monotonic clock that says when the next checkpoint is due; a changed wall clock does not matter.

    every_seconds: at least 0; 0 means at every step, infinity means never.
    """

    def __init__(self, every_seconds: float) -> None:
        if math.isnan(every_seconds) or every_seconds < 0:
            raise InputError(
                f"CheckpointClock(every_seconds={every_seconds}): must be a number of at least 0"
            )
        self.every_seconds = every_seconds
        self._since = time.monotonic()

    def due(self) -> bool:
        """Return True once ``every_seconds`` have passed since the start or the last True."""
        now = time.monotonic()
        if now - self._since < self.every_seconds:
            return False
        self._since = now
        return True
