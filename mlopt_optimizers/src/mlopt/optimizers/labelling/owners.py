"""The owners of claims: processes, and whether they are still alive."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlopt.core.files.atomic import process_is_alive

#: seconds between two heartbeats, and those without one after which a process on another machine counts as dead
BEAT, STALE = 20.0, 180.0

#: owners in this process that are at work
_active: set[str] = set()


@dataclass(frozen=True)
class Owner:
    """A process that labels.

    place: the machine, its boot, and its space of process numbers. Only there has ``pid`` a meaning.
    birth: when the process began, by the machine's own count. It tells the process from a later one of the same number.
    """

    name: str
    place: str
    pid: int
    birth: str

    @classmethod
    def here(cls) -> Owner:
        """Return a new owner in this process."""
        return cls(uuid.uuid4().hex, _place(), os.getpid(), _birth(os.getpid()))

    @property
    def told(self) -> str:
        """The process in messages."""
        return f"process {self.pid} on {self.place.partition(' ')[0]}"


@dataclass
class Witness:
    """A memory of heartbeats, by which the death of processes on other machines is noticed without their clocks."""

    stale: float = STALE
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)

    def is_dead(self, owner: Owner, beat: int) -> bool:
        """Return whether an owner is surely dead: gone from this machine, or without a heartbeat for a long time."""
        if owner.place == _place():
            if owner.pid == os.getpid() and owner.birth == _birth(owner.pid):
                return owner.name not in _active
            return not process_is_alive(owner.pid) or _birth(owner.pid) != owner.birth
        now = time.monotonic()
        last, since = self._seen.get(owner.name, (-1, now))
        if last != beat:
            self._seen[owner.name] = beat, now
            return False
        return now - since > self.stale


@contextlib.contextmanager
def beating(path: Path, owner: Owner, every: float = BEAT) -> Iterator[None]:
    """Let ``owner`` be alive meanwhile: a thread with a connection of its own writes heartbeats into the ledger."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(every):
            with contextlib.suppress(sqlite3.Error):  # the next one comes soon
                database = sqlite3.connect(path, timeout=every)
                with contextlib.closing(database), database:
                    database.execute("UPDATE owners SET beat = beat + 1 WHERE name = ?", (owner.name,))

    thread = threading.Thread(target=beat, name="heartbeat of a ledger", daemon=True)
    thread.start()
    _active.add(owner.name)
    try:
        yield
    finally:
        _active.discard(owner.name)
        ended.set()
        thread.join()


def _place() -> str:
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # no Linux: the name of the host has to do
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _birth(pid: int) -> str:
    """Return when a process began, in ticks since the boot; an empty text where that is unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]  # a zombie computes nothing any more
    except (OSError, IndexError):
        return ""
