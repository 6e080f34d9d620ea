"""A run directory: all files of one run, in one folder that mlopt can recognise as its own.

    config.input.yaml  config.resolved.yaml  env.json  log.txt  metrics.jsonl  STATUS.json  report.html
    inputs/  checkpoints/  results/  .mlopt-run  lock

Invariant: a folder is mlopt's exactly if it holds the marker ``.mlopt-run``; mlopt writes into no other folder that is
not empty.

Invariant: one process writes at a time, the one that holds ``lock``. The kernel frees that lock when its process dies,
however it dies. No stale lock can remain, and the file ``lock`` must not be deleted.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import re
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path

from mlopt.core.errors import RunDirectoryError
from mlopt.core.files import atomic
from mlopt.core.files.atomic import JSON
from mlopt.core.quoting import one_line, quoted
from mlopt.core.runs import lock as dirlock
from mlopt.core.runs.environment import environment
from mlopt.core.runs.lock import timestamp

FORMAT_VERSION = 1
MARKER = ".mlopt-run"
# "killed" is never written: read_status says it of a run that calls itself running while nobody runs it.
STATES = ("running", "finished", "failed", "preempted", "interrupted", "not-converged", "killed")

_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")


@dataclass(frozen=True)
class Status:
    """The content of STATUS.json. Times are ISO 8601 in UTC; ``started`` is the start of the present sitting."""

    state: str
    message: str = ""
    progress: dict[str, JSON] = field(default_factory=dict)
    pid: int = 0
    host: str = ""
    started: str = ""
    updated: str = ""

    @property
    def silent_end(self) -> str:
        """The message about a process that is marked as running and no longer exists."""
        return (
            f"process {self.pid} on {one_line(self.host, 100)} ended without a word: killed, for lack of memory "
            f"perhaps, or by a library that ends the program it runs in"
        )


class RunDirectory:
    """One run directory, made by `create` or found by `open`; both raise `RunDirectoryError`."""

    def __init__(self, root: Path, marker: dict[str, JSON]) -> None:
        """Set the fields; for `create` and `open` only. ``root`` is absolute."""
        self.root = root
        self._marker = marker
        self._started = ""  # when this process took the lock

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], *, config_resolved: str, config_input: str = ""
    ) -> RunDirectory:
        """Make ``path`` a run directory for a configuration (YAML, as validated and as the user gave it).

        Parents are made, and an empty folder is used. If several processes race for one path, one wins.

        Raises:
            RunDirectoryError: ``path`` is a run directory already, or holds anything else.
        """
        root = _resolve(path)
        _refuse_occupied(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(
                f"{root}: cannot make this run directory: {error.strerror}. Choose another --out."
            ) from error
        marker = {
            "format": FORMAT_VERSION,
            "run_id": f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
            "created": timestamp(),
            "config_sha256": digest(config_resolved),
            "checkpoints_have_identity": True,  # those of runs that were begun earlier do not
            # The texts are kept here as well: the marker is written at once, so it can restore a half-made
            # directory, and it can show what was changed when config.resolved.yaml has been edited.
            "config_resolved": config_resolved,
            "config_input": config_input or config_resolved,
        }
        run = cls(root, marker)
        with dirlock.hold(root):
            _refuse_occupied(root)  # another process may have been faster
            atomic.write_json(root / MARKER, marker)
            run._restore()
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """Return an existing run directory; write nothing.

        Raises:
            RunDirectoryError: ``path`` is none.
        """
        root = _resolve(path)
        if not root.is_dir():
            what = "is a file, not a run directory" if root.exists() else "no such run directory"
            raise RunDirectoryError(f"{root}: {what}. Start a run with `mlopt run CONFIG --out {path}`.")
        try:
            marker = json.loads(atomic.read_bytes(root / MARKER))
            version = int(marker["format"])
            # KeyError or TypeError unless all of these are texts
            "".join(marker[key] for key in ("run_id", "config_sha256", "config_resolved", "config_input"))
        except FileNotFoundError:
            raise RunDirectoryError(
                f"{root}: not a run directory of mlopt (no {MARKER} in it; it holds {_listing(root)})."
                " Give the folder that `mlopt run` made."
            ) from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunDirectoryError(
                f"{root / MARKER}: cannot be read ({type(error).__name__}: {error}). Restore it from a"
                " backup; without it mlopt cannot tell that the directory is its own."
            ) from error
        if version > FORMAT_VERSION:
            raise RunDirectoryError(
                f"{root}: made by a newer mlopt (run directory format {version}, this one reads up to"
                f" {FORMAT_VERSION}). Upgrade with `pip install -U mlopt-core`."
            )
        return cls(root, marker)

    @property
    def run_id(self) -> str:
        """The name of the run, unique independently of its path."""
        return str(self._marker["run_id"])

    @property
    def config_digest(self) -> str:
        """SHA-256 of the resolved configuration that the run was made with."""
        return str(self._marker["config_sha256"])

    @property
    def config_resolved(self) -> str:
        """The resolved configuration (YAML) that the run was made with."""
        return str(self._marker["config_resolved"])

    @property
    def checkpoints_have_identity(self) -> bool:
        """True if each checkpoint of this run says which run it belongs to, see `mlopt.core.runs.identity`."""
        return bool(self._marker.get("checkpoints_have_identity", False))

    def check_config(self, config_resolved: str) -> None:
        """Refuse to resume with another configuration than that of the run; the message shows the difference."""
        if digest(config_resolved) == self.config_digest:
            return
        before, after = self.config_resolved.splitlines(), config_resolved.splitlines()
        lines = difflib.unified_diff(before, after, "as the run began", "now", n=0, lineterm="")
        changed = "\n  ".join(lines) or "(only white space at line ends)"
        raise RunDirectoryError(
            f"{self.root}: the configuration is not the one this run began with:\n  {changed}\nUndo the"
            " change to resume, or start a new run with the changed one: `mlopt run CONFIG --out OTHER`."
        )

    def path(self, *parts: str) -> Path:
        """Return the path of a file in the run directory, e.g. ``path("results", "minima.extxyz")``.

        The folder is not made.

        Raises:
            RunDirectoryError: a part has characters other than ``A-Za-z0-9._-``, or leads out of the directory through
                ``..`` or a symbolic link.
        """
        for part in parts:
            if not _NAME.fullmatch(part) or part in (".", ".."):
                raise RunDirectoryError(
                    f"{self.root}: {quoted(part)} cannot name a file of a run: use only A-Z a-z 0-9 . _ -"
                    " (at most 200)"
                )
        inside = self.root.joinpath(*parts)
        try:
            place = inside.resolve()
            # Links in a circle are a RuntimeError up to Python 3.12, and left as they are from 3.13 on.
            circle = any(one.is_symlink() for one in (place, *place.parents))
            leaves = circle or not place.is_relative_to(self.root)
        except (OSError, RuntimeError):
            leaves = True
        if leaves:
            raise RunDirectoryError(
                f"{inside}: a symbolic link leads out of the run directory. Remove it; mlopt writes only"
                " inside."
            )
        return inside

    @contextlib.contextmanager
    def lock(self) -> Iterator[RunDirectory]:
        """Hold the run directory.

        Raises:
            RunDirectoryError: another process holds it; says which, and since when.
        """
        with dirlock.hold(self.root):
            self._started = timestamp()
            self._sweep()
            self._restore()
            yield self

    def write_status(self, state: str, message: str = "", progress: Mapping[str, JSON] | None = None) -> None:
        """Replace STATUS.json. Call it while holding the lock; otherwise the run is read as killed."""
        if state not in STATES[:-1]:
            raise RunDirectoryError(f"status {quoted(state)}: must be one of {', '.join(STATES[:-1])}")
        now = timestamp()
        status = Status(
            state, message, dict(progress or {}), os.getpid(), socket.gethostname(), self._started or now, now
        )
        atomic.write_json(self.root / "STATUS.json", asdict(status))

    def read_status(self) -> Status:
        """Read STATUS.json; a run marked as running that no process holds is ``killed``."""
        held = dirlock.is_held(self.root)
        path = self.root / "STATUS.json"
        try:
            data = json.loads(atomic.read_bytes(path))
            status = Status(**{item.name: data[item.name] for item in fields(Status)})
            if status.state not in STATES or not isinstance(status.pid, int):
                raise ValueError(f"unknown state {quoted(status.state)}")
        except FileNotFoundError:
            return Status("running") if held else Status("killed", "stopped before its first step")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunDirectoryError(
                f"{path}: cannot be read ({type(error).__name__}: {error}). Delete it; the next run writes it"
                " anew."
            ) from error
        here = status.host == socket.gethostname()
        if status.state == "running" and (not held or (here and not atomic.process_is_alive(status.pid))):
            return Status(**{**asdict(status), "state": "killed"})
        return status

    def append_metrics(self, row: Mapping[str, JSON]) -> None:
        """Append one row to metrics.jsonl; NaN and infinity become null, because JSON has neither."""
        try:
            line = json.dumps(atomic.finite(dict(row)), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RunDirectoryError(f"{self.root}: a metrics row is not JSON data: {error}") from error
        atomic.append_line(self.root / "metrics.jsonl", line)

    def truncate_metrics(self, step_key: str, value: float) -> int:
        """Drop the rows of metrics.jsonl that come after a checkpoint; return the number of dropped lines.

        The file then ends before the first row whose ``step_key`` exceeds ``value``. A resumed run thus leaves the same
        file as an uninterrupted one. Lines that are not JSON objects (torn by a kill) are dropped too.
        """
        path = self.root / "metrics.jsonl"
        try:
            data = atomic.read_bytes(path)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be read: {error.strerror}") from error
        lines, kept = data.splitlines(), []
        for line in lines:
            row = _parse_row(line)
            if row is None:
                continue
            step = row.get(step_key)
            if isinstance(step, int | float) and step > value:
                break
            kept.append(line + b"\n")  # the last may have lost its end only
        if b"".join(kept) != data:
            atomic.write_bytes(path, b"".join(kept))
        return len(lines) - len(kept)

    def _sweep(self) -> None:
        """Remove the temporary files that a killed process left anywhere in the directory."""
        atomic.remove_leftovers(self.root)
        for name in ("inputs", "checkpoints", "results"):
            for folder, _, _ in os.walk(self.root / name):  # follows no links
                atomic.remove_leftovers(folder)

    def _restore(self) -> None:
        """Make the parts that a kill during `create` left out; nothing that exists is touched."""
        for folder in ("checkpoints", "results"):
            try:
                self.path(folder).mkdir(exist_ok=True)
            except OSError as error:
                raise RunDirectoryError(
                    f"{self.root / folder}: cannot make this folder: {error.strerror}"
                ) from error
        for name, key in (("config.input.yaml", "config_input"), ("config.resolved.yaml", "config_resolved")):
            if not (self.root / name).exists():
                atomic.write_text(self.root / name, str(self._marker[key]))
        if not (self.root / "env.json").exists():
            atomic.write_json(self.root / "env.json", environment(), private=True)


def default_path(name: str, base: str | os.PathLike[str] = "runs") -> Path:
    """Make and return the next free ``base/name-0001``; two processes never get the same one."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:100] or "run"
    numbered = re.compile(re.escape(stem) + r"-([0-9]{4,})")
    folder = Path(base)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = [int(match[1]) for entry in os.listdir(folder) if (match := numbered.fullmatch(entry))]
        number = max(taken, default=0)
        while True:
            number += 1
            with contextlib.suppress(FileExistsError):
                path = folder / f"{stem}-{number:04d}"
                path.mkdir()
                return path
    except OSError as error:
        raise RunDirectoryError(
            f"{folder}: cannot make a run directory here: {error.strerror}. Give --out."
        ) from error


def digest(text: str) -> str:
    """Return the SHA-256 of a configuration text."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def _resolve(path: str | os.PathLike[str]) -> Path:
    try:
        resolved = Path(path).expanduser().resolve()
        resolved.exists()  # raises for a name that is too long, and for a folder that may not be entered
        return resolved
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a deleted working folder, a NUL
        raise RunDirectoryError(
            f"{quoted(os.fspath(path))}: not a usable path: {error}. Choose another --out."
        ) from error


def _listing(root: Path) -> str:
    try:
        names = sorted(os.listdir(root))
    except OSError as error:
        return f"what cannot be listed: {error.strerror}"
    return (", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")) or "nothing"


def _refuse_occupied(root: Path) -> None:
    if not root.exists():
        return
    if not root.is_dir():
        raise RunDirectoryError(f"{root}: is a file. Choose another --out.")
    try:
        names = os.listdir(root)
        # What a kill in `create`, before the marker, can leave: an unused lock and a temporary file.
        ours = [
            n
            for n in names
            if atomic.is_temporary(n) or (n == dirlock.NAME and dirlock.holder(root) is not None)
        ]
    except OSError as error:
        raise RunDirectoryError(f"{root}: cannot be read: {error.strerror}. Choose another --out.") from error
    if MARKER in names:
        raise RunDirectoryError(
            f"{root}: already holds a run. Continue it with `mlopt resume {root}`, or choose another --out."
        )
    if len(ours) < len(names):
        raise RunDirectoryError(
            f"{root}: not empty, and not a run directory of mlopt: it holds {_listing(root)}."
            " Choose another --out, or remove it."
        )


def _parse_row(line: bytes) -> dict[str, JSON] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
