"""Worker processes that compute one label each at a time, with limits on time and memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError, MloptError
from mlopt.core.files.atomic import process_is_alive
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.protocols.labeller import Finished
from mlopt.core.quoting import one_line
from mlopt.optimizers.labelling.worker import OUTPUT

#: seconds between two looks at clocks and memory
_LOOK = 0.1
#: lines of output, and their characters, that a reason repeats
_LINES, _CHARACTERS = 3, 300
#: folders of labels and of workers: a folder may be shared by machines, whose process numbers mean nothing here
_FOLDER = re.compile(rf"mlopt-(?:label|worker)-{re.escape(socket.gethostname())}-([0-9]+)-.*")
_GIB = 2**30


@dataclass(frozen=True)
class Limits:
    """Limits of one label, and the folder in which each gets a folder of its own; None for none.

    seconds: limit of wall time.
    memory: limit in GiB, of the worker with all programs that it starts.
    threads: number of threads for OpenMP.
    """

    seconds: float | None = None
    memory: float | None = None
    threads: int = 1
    scratch: str | None = None


class Worker:
    """One worker process, from the parent's side.

    Raises:
        InputError: the potential cannot be sent to another process.
    """

    def __init__(self, potential: Potential, limits: Limits) -> None:
        self.potential, self.limits = potential, limits
        self.ready = False  # it has the potential
        self.index = -1  # of the structure that it computes
        self.system: Systems | None = None
        self.began = 0.0
        self.folder = Path(tempfile.mkdtemp(prefix=_prefix("worker")))
        self.connection, theirs = multiprocessing.Pipe()
        life, self._life = os.pipe()
        threads = str(limits.threads)
        more = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        paths = os.pathsep.join(path for path in sys.path if path)
        module = Worker.__module__.rpartition(".")[0] + ".worker"
        try:
            with (self.folder / OUTPUT).open("wb") as output:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(life)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self.folder,
                    env=os.environ | more | {"PYTHONPATH": paths},
                    pass_fds=(theirs.fileno(), life),
                    start_new_session=True,  # Ctrl-C is for this process; and all its programs end together
                )
        finally:
            theirs.close()
            os.close(life)
        try:
            self._send_potential()
        except BaseException:
            self.end()
            raise

    def _send_potential(self) -> None:
        try:
            self.connection.send_bytes(bytes(multiprocessing.current_process().authkey))
            self.connection.send(self.potential)
        except OSError:
            return  # it has died; `outcome` says so
        except Exception as error:  # whatever an object raises that cannot be pickled
            raise self._unfit(f"{type(error).__name__}: {error}") from error

    def _unfit(self, trouble: str) -> InputError:
        return InputError(
            f"{self.potential.giver} cannot be sent to a worker process: {one_line(trouble, 300)}. Define its class in "
            f"a module that can be imported, not in the script itself, and let it hold no open files"
        )

    def give(self, index: int, system: Systems) -> None:
        """Begin with a structure, a batch of one."""
        self.index, self.system, self.began = index, system, time.monotonic()
        parent = self.limits.scratch or tempfile.gettempdir()
        try:
            self.folder_of_label = Path(tempfile.mkdtemp(prefix=_prefix("label"), dir=parent))
        except OSError as error:
            raise MloptError(f"{parent}: no scratch folder can be made there: {error.strerror}") from error
        with contextlib.suppress(OSError):  # it has died; `outcome` says so
            self.connection.send((str(self.folder_of_label), system.to_atoms()[0]))

    def outcome(self) -> Finished | None:
        """Return the label, or its failure, if there is one by now; the worker is then idle, or has ended.

        Raises:
            InputError: the potential refuses the structure, or cannot be sent to another process.
            MloptError: the process could not be started.
        """
        if self.system is None or not (self.ready or self._begun()):
            return None
        reason: str | None = None
        found: dict[str, Any] = {}
        if self.connection.poll():
            try:
                found = self.connection.recv()
                reason = found.get("reason")
            except (EOFError, OSError):
                reason = self._died()
                self.end()
        else:
            reason = self._over_limits()
            if reason is None:
                return None
            self.end()
        if "refused" in found:
            self._clean()
            raise InputError(found["refused"])
        seconds, system = time.monotonic() - self.began, self.system
        if reason is not None:
            reason = self._with_output(reason)
        self._clean()
        self.system = None
        return Finished((self.index,), _dataset(system, found, reason), seconds)

    def _begun(self) -> bool:
        """Return whether the worker has the potential by now; the clock of its first label then starts."""
        if not self.connection.poll():
            return False
        try:
            trouble = self.connection.recv()
        except (EOFError, OSError) as error:
            raise MloptError(
                f"a worker process for labels could not be started: {self._died()}{_tail(self.folder)}"
            ) from error
        if trouble is not None:
            raise self._unfit(trouble)
        self.ready, self.began = True, time.monotonic()
        return True

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self.connection.closed

    def end(self) -> None:
        """End the process and all programs that it has started; nothing if that was done before."""
        if self.ended:
            return  # its number may be another's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.close()
        os.close(self._life)
        shutil.rmtree(self.folder, ignore_errors=True)

    def abandon(self) -> None:
        """End the process, and give up its label."""
        self.end()
        if self.system is not None:
            self._clean()

    def _over_limits(self) -> str | None:
        limit = self.limits.seconds
        if limit is not None and time.monotonic() - self.began > limit:
            return f"it took longer than {limit:g} s (`seconds`) and was ended"
        if self.limits.memory is not None:
            used = memory_of_group(self.process.pid) / _GIB
            if used > self.limits.memory:
                return f"it used {used:.3g} GiB, more than {self.limits.memory:g} (`memory`), and was ended"
        return None

    def _died(self) -> str:
        """Return how the process has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5.0)
        code = self.process.returncode
        if code is None:
            return "its process closed the connection"
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process left with exit code {code}"

    def _with_output(self, reason: str) -> str:
        kept = ""
        if self.limits.scratch:  # under a name by which it is not taken for an abandoned one
            failed = self.folder_of_label.with_name(
                f"failed-{self.folder_of_label.name.removeprefix('mlopt-')}"
            )
            with contextlib.suppress(OSError):
                self.folder_of_label.rename(failed)
                self.folder_of_label, kept = failed, f"; see {failed}"
        return f"{one_line(reason, 300)}{_tail(self.folder_of_label)}{kept}"

    def _clean(self) -> None:
        """Remove the folder of the label, unless it is kept under another name."""
        if self.folder_of_label.name.startswith("mlopt-"):
            shutil.rmtree(self.folder_of_label, ignore_errors=True)


class Pool:
    """Up to ``size`` workers. Use it as a context manager: at its end all workers and their programs end."""

    def __init__(self, potential: Potential, size: int, limits: Limits) -> None:
        self.potential, self.size, self.limits = potential, size, limits
        self.workers: list[Worker] = []

    def __enter__(self) -> Self:
        remove_abandoned(Path(tempfile.gettempdir()))
        if self.limits.scratch is not None:
            remove_abandoned(Path(self.limits.scratch))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self.workers:
            one.abandon()

    def stream(self, systems: Iterable[Systems]) -> Iterator[Finished | None]:
        """Yield labels as they are finished, and None about every tenth of a second."""
        given, more = enumerate(systems), True
        while True:
            self.workers = [one for one in self.workers if not one.ended]
            busy = [one for one in self.workers if one.system is not None]
            while more and len(busy) < self.size:
                chosen = next(given, None)
                if chosen is None:
                    more = False
                    break
                idle = next((one for one in self.workers if one.system is None), None)
                if idle is None:
                    idle = Worker(self.potential, self.limits)
                    self.workers.append(idle)
                idle.give(*chosen)
                busy.append(idle)
            if not busy:
                return
            connections: list[Connection] = [one.connection for one in busy]
            wait(connections, _LOOK)
            finished = [done for one in busy if (done := one.outcome()) is not None]
            yield from finished
            if not finished:
                yield None


def memory_of_group(group: int) -> int:
    """Return the bytes of memory that the processes of a group use; 0 where the system does not tell."""
    total = 0
    page = os.sysconf("SC_PAGE_SIZE")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            total += int(fields[21]) * page
    return total


def remove_abandoned(scratch: Path) -> None:
    """Remove folders of labels and of workers whose process was killed."""
    with contextlib.suppress(OSError):
        for name in os.listdir(scratch):
            match = _FOLDER.fullmatch(name)
            if match is not None and not process_is_alive(int(match[1])):
                shutil.rmtree(scratch / name, ignore_errors=True)


def _prefix(what: str) -> str:
    return f"mlopt-{what}-{socket.gethostname()}-{os.getpid()}-"


def _tail(folder: Path) -> str:
    """Return the last lines that were printed, for a reason."""
    try:
        with (folder / OUTPUT).open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            lines = [
                line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()
            ]
    except OSError:
        return ""
    return f"; last output: {one_line(' | '.join(lines[-_LINES:]), _CHARACTERS)}" if lines else ""


def _dataset(system: Systems, found: dict[str, Any], reason: str | None) -> Dataset:
    if reason is not None:
        return Dataset(system, source=(reason,))
    stress = found["stress"]
    return Dataset(
        system,
        torch.tensor([found["energy"]], dtype=torch.float64),
        torch.from_numpy(found["force"]),
        None if stress is None else torch.from_numpy(stress)[None],  # type: ignore[arg-type]
    )
