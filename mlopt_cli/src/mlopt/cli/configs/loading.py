"""Trial loading of plugins, in processes that a faulty plugin may end.

A fresh interpreter imports what all plugins need, and forks a child for each distribution. The interpreter is fresh
because the command may run in a program with threads, for which a fork is unsafe. The child loads the plugins of its
distribution one after the other. If it leaves, crashes or takes too long, the plugin that it was loading is at fault.
Another child continues with the next plugin.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from mlopt.core.errors import MloptError, PluginError
from mlopt.core.plugins.plugin import Plugin
from mlopt.core.plugins.registry import Entry
from mlopt.core.quoting import one_line, quoted

#: seconds between two looks at the children
_LOOK = 0.01
#: bytes of what a plugin prints that are looked at
_PRINTED = 4_096


def problems(entries: Sequence[Entry], limit: float) -> list[str | None]:
    """Return the fault of each plugin in one line, or None for a sound one.

    limit: seconds that a plugin may take to load.

    Raises:
        MloptError: the process that loads the plugins has itself failed.
    """
    work = {"path": sys.path, "limit": limit, "entries": [asdict(entry) for entry in entries]}
    command = [sys.executable, "-c", "from mlopt.cli.configs.loading import serve; serve()"]
    done = subprocess.run(command, input=json.dumps(work).encode(), capture_output=True, check=False)
    try:
        told: list[str | None] = json.loads(done.stdout)
    except ValueError as error:
        said = one_line(done.stderr.decode(errors="replace"), 300)
        raise MloptError(
            f"plugins could not be loaded: the process that does it ended with {done.returncode} ({said})"
        ) from error
    return told


def serve() -> None:
    """Read plugins to load from standard input and write their faults to standard output, in the fresh interpreter."""
    work = json.load(sys.stdin)
    sys.path[:] = work["path"]
    entries = [Entry(**one) for one in work["entries"]]
    groups: dict[str, _Group] = {}
    for entry in entries:
        groups.setdefault(entry.distribution, _Group(work["limit"])).entries.append(entry)
    waiting = list(groups.values())[::-1]
    running: list[_Group] = []
    most = min(8, os.cpu_count() or 1)
    while waiting or running:
        while waiting and len(running) < most:
            running.append(waiting.pop())
        time.sleep(_LOOK)
        running = [group for group in running if group.looked_at()]
    faults = {entry: fault for group in groups.values() for entry, fault in group.faults.items()}
    json.dump([faults[entry] for entry in entries], sys.stdout)


@dataclass
class _Group:
    """The plugins of one distribution, and the process that loads them."""

    limit: float
    entries: list[Entry] = field(default_factory=list)
    faults: dict[Entry, str | None] = field(default_factory=dict)
    pid: int = 0
    told: int = -1  # file of one line of JSON for each plugin
    lines: int = 0  # read from it
    since: float = 0.0

    def looked_at(self) -> bool:
        """Start a process if needed, read its messages, and return whether more will come."""
        if not self.pid:
            if len(self.faults) == len(self.entries):
                return False
            self._start()
        status = self._status()  # before the lines, so that none is written after they were read
        lines = os.pread(self.told, os.fstat(self.told).st_size, 0).split(b"\n")[:-1]
        for line in lines[self.lines :]:
            self.faults[self._at] = json.loads(line)
            self.since = time.monotonic()
        self.lines = len(lines)
        late = status is None and time.monotonic() - self.since > self.limit
        if late:
            os.killpg(self.pid, signal.SIGKILL)  # and all that it has started
            os.waitpid(self.pid, 0)
        if late or status is not None:
            if len(self.faults) < len(self.entries):
                self.faults[self._at] = self._death(self._at, status)
            os.close(self.told)
            self.pid = 0
        return True

    @property
    def _at(self) -> Entry:
        return self.entries[len(self.faults)]

    def _start(self) -> None:
        with tempfile.TemporaryFile() as told:
            self.told, self.lines = os.dup(told.fileno()), 0
        self.since, self.pid = time.monotonic(), os.fork()
        if not self.pid:
            _load(self.entries[len(self.faults) :], self.told)

    def _status(self) -> int | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def _death(self, entry: Entry, status: int | None) -> str:
        how = f"was not imported within {self.limit:g} s"
        if status is not None and status < 0:
            how = f"crashed while it was imported ({signal.Signals(-status).name})"
        elif status is not None:
            how = f"ended the process with exit code {status} while it was imported"
        advice = f"Tell the authors of {entry.distribution}."
        return one_line(f"{entry.kind} {quoted(entry.name)} ({entry.target}) {how}. {advice}")


def _load(entries: Sequence[Entry], told: int) -> None:
    """Load plugins, write a line about each, and end the process."""
    try:
        os.setpgid(0, 0)
        with tempfile.TemporaryFile() as file:
            printed = os.dup(file.fileno())
        for stream, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, printed), (2, printed)):
            os.dup2(target, stream)
        for entry in entries:
            before = os.fstat(printed).st_size
            fault = _fault(entry)
            for buffered in (sys.stdout, sys.stderr):
                buffered.flush()
            said = os.pread(printed, _PRINTED, before).decode(errors="replace").strip()
            if fault is None and said:
                fault = f"prints {quoted(said)} when imported. Tell the authors of {entry.distribution}."
            os.write(told, json.dumps(fault).encode() + b"\n")
    finally:
        os._exit(0)


def _fault(entry: Entry) -> str | None:
    try:
        cls = entry.load()
    except PluginError as error:
        return one_line(error)
    if issubclass(cls, Plugin):
        return None
    return f"{cls.__name__} is not an mlopt Plugin. Tell the authors of {entry.distribution}."
