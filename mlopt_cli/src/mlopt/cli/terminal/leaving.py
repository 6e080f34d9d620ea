"""Plugins, and libraries under them, that would end the program: nobody would hear that the run is not done.

`sys.exit` raises, and is caught like any error. `os._exit` ends the process at once, with the exit code that it is
given, which may be 0. So a command replaces it while it runs. Code in C that ends the process stays beyond reach:
STATUS.json then says ``running`` although nobody runs, which `mlopt status` and `mlopt resume` tell.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import NoReturn

from mlopt.cli.terminal.output import note


class ProcessExit(SystemExit):
    """`os._exit` was called. Like `SystemExit` it passes through `except Exception`."""

    def __str__(self) -> str:
        return f"os._exit({self.code}) was called"


def called(error: SystemExit) -> str:
    """The call that raised it, for a message."""
    from mlopt.core.quoting import quoted  # mlopt.core is more than `mlopt --help` may import

    return f"{'os._exit' if isinstance(error, ProcessExit) else 'sys.exit'}({quoted(error.code)})"


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Within it, `os._exit` raises `ProcessExit` in this thread.

    In another thread of this process, from which nothing could be raised here, it says so and ends the process with the
    exit code of a failure. Children of this process, such as the workers of a pool, end as ever.
    """
    original, process, thread = os._exit, os.getpid(), threading.get_ident()

    def leave(status: int) -> NoReturn:
        if os.getpid() != process:
            original(status)
        if threading.get_ident() == thread:
            raise ProcessExit(status)
        note(
            f"mlopt: a thread of a plugin, or of a library under it, called os._exit({status}), and so ended mlopt. "
            f"`mlopt plugins` says where plugins come from; tell its authors."
        )
        original(status or 1)

    os._exit = leave
    try:
        yield
    finally:
        os._exit = original
