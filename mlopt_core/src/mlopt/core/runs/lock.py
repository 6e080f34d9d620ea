"""The lock of a folder: held by one process at a time, and never stale.

It is ``flock`` on the file ``lock``, so the kernel frees it when its process dies, however it dies. A lock that
consists of the mere existence of a file outlives a kill. ASE's did in 9 of 10 trials, and later writers waited for
ever.

Invariant: the file is never removed or replaced, because a new file of that name would be another lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mlopt.core.errors import RunDirectoryError
from mlopt.core.files import atomic
from mlopt.core.files.atomic import JSON

NAME = "lock"

# Descriptors of the locks that this process holds. A forked worker must drop its copies: it would otherwise
# keep the lock when its parent is killed, and the run could not be resumed. Module state, because forks are
# process-wide.
_held_descriptors: set[int] = set()


def holder(root: Path) -> dict[str, JSON] | None:
    """Return who holds the lock: {} if nobody has signed it yet, None if the file is no lock of mlopt."""
    with atomic.open_regular(root / NAME) as file:
        text = file.read(4096)
    if not text:
        return {}
    try:
        record = json.loads(text)
        return record if isinstance(record, dict) and "mlopt_lock" in record else None
    except (ValueError, RecursionError):
        return {} if text.startswith(b'{"mlopt_lock"') else None


def is_held(root: Path) -> bool:
    """Return whether any process holds the lock."""
    try:
        descriptor = os.open(root / NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def hold(root: Path) -> Iterator[None]:
    """Hold the lock of ``root``.

    Raises:
        RunDirectoryError: a process holds it, possibly this one.
    """
    path = root / NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise RunDirectoryError(
            f"{path}: cannot be opened: {error.strerror}. A run directory must be writable;"
            " choose another --out."
        ) from error
    owner = os.getpid()
    try:
        _take(descriptor, root)
        _held_descriptors.add(descriptor)
        record = {
            "mlopt_lock": 1,
            "pid": owner,
            "host": socket.gethostname(),
            "since": timestamp(),
        }
        # In place, see the invariant above. On a full disk the signature is lost, not the lock.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(record).encode("ascii"), 0)
        try:
            yield
        finally:
            if os.getpid() == owner:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, 0)
    finally:
        # In a forked child the descriptor is closed already, and its number may be another file's.
        if os.getpid() == owner:
            _held_descriptors.discard(descriptor)
            os.close(descriptor)


def timestamp() -> str:
    """Return the time in UTC as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _take(descriptor: int, root: Path) -> None:
    for attempts_left in reversed(range(10)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise RunDirectoryError(
                    f"{root / NAME}: this file system has no locks ({error.strerror}). Choose another --out."
                ) from error
        # `read_status` of another process holds the lock for an instant; and a holder needs one to sign it.
        if attempts_left:
            time.sleep(0.02)
    found = {}
    with contextlib.suppress(OSError):
        found = holder(root) or {}
    pid, host, since = found.get("pid"), found.get("host"), found.get("since")
    who = f"process {pid}@{host} since {since}" if found else "another process"
    raise RunDirectoryError(
        f"{root}: in use by {who}. Wait for it, stop it, or choose another --out; do not delete the lock."
    )


def _drop_in_child() -> None:
    for descriptor in _held_descriptors:
        os.close(descriptor)
    _held_descriptors.clear()


os.register_at_fork(after_in_child=_drop_in_child)
