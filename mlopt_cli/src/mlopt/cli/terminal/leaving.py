"""A guard against plugins and libraries that end the process without an error message.

`sys.exit` raises an exception, which is caught like any error. `os._exit` ends the process at once with a given exit
code, which may be 0, so a command replaces it while it runs. C code that ends the process cannot be caught. STATUS.json
then says ``running`` although no process runs, which `mlopt status` and `mlopt resume` detect.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import NoReturn

from mlopt.cli.terminal.output import note


class ProcessExit(SystemExit):
    """The exception for a call of `os._exit`. Like `SystemExit` it passes through `except Exception`."""

    def __str__(self) -> str:
        return f"os._exit({self.code}) was called"


def called(error: SystemExit) -> str:
    """Return the call that raised it, for a message."""
    from mlopt.core.quoting import quoted  # mlopt.core is more than `mlopt --help` may import

    return f"{'os._exit' if isinstance(error, ProcessExit) else 'sys.exit'}({quoted(error.code)})"


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Make `os._exit` raise `ProcessExit` in this thread, inside the ``with``.

    In another thread nothing could be raised here. There it writes a message and ends the process with the exit code of
    a failure. Children of this process, such as the workers of a pool, end as usual.
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
