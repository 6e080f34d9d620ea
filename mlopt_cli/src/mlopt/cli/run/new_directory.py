"""The directory of a new run, removed again if the run never began.

Invariant: only files that mlopt has just written are removed. A folder that existed before, and any other file, stays.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from mlopt.core.errors import MloptError, RunDirectoryError
from mlopt.core.files import atomic
from mlopt.core.quoting import quoted
from mlopt.core.runs import lock as dirlock
from mlopt.core.runs.directory import MARKER, RunDirectory, default_path
from mlopt.core.runs.kept_files import FOLDER

_BASE = "runs"
_FILES = (
    "config.input.yaml",
    "config.resolved.yaml",
    "env.json",
    "log.txt",
    "STATUS.json",
    MARKER,
    dirlock.NAME,
)


@dataclass(frozen=True)
class Made:
    """A run directory and the folders that were made for it, innermost first."""

    run: RunDirectory
    folders: list[Path]

    def discard_if_idle(self) -> None:
        """Remove the directory if the run has stored nothing yet."""
        traces = [self.run.root / "metrics.jsonl", *self.run.root.glob("checkpoints/*")]
        traces += self.run.root.glob("results/*")
        if not any(path.exists() for path in traces):
            _remove(self.run.root, self.folders)


def make(out: str | None, name: str, *, config_resolved: str, config_input: str) -> Made:
    """Create ``out``, or the next free ``runs/name-0001``."""
    missing = _missing(Path(_BASE) if out is None else Path(out))
    path = default_path(name, _BASE) if out is None else _expanded(out)
    folders = [path, *missing] if out is None else missing
    try:
        return Made(
            RunDirectory.create(path, config_resolved=config_resolved, config_input=config_input), folders
        )
    except RunDirectoryError:
        # Another process may own what is there; an empty folder that was made for this run alone can go.
        if out is None:
            _remove_empty(folders)
        raise
    except MloptError:  # the disk refused after the directory had become ours
        _remove(path, folders)
        raise


def _expanded(out: str) -> Path:
    try:
        return Path(out).expanduser()
    except RuntimeError as error:  # ~nobody
        raise RunDirectoryError(f"{quoted(out)}: not a usable path: {error} Choose another --out.") from error


def _missing(path: Path) -> list[Path]:
    """Return the missing part of the path, innermost first."""
    try:
        path = path.expanduser().absolute()
        return [folder for folder in (path, *path.parents) if not folder.exists()]
    except (OSError, RuntimeError, ValueError):  # not a usable path: `create` says so
        return []


def _remove(root: Path, folders: list[Path]) -> None:
    atomic.remove_leftovers(root)
    for name in _FILES:
        with contextlib.suppress(OSError):
            (root / name).unlink()
    shutil.rmtree(root / FOLDER, ignore_errors=True)  # the folder was empty when it became ours
    _remove_empty([root / "checkpoints", root / "results", *folders])


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # not empty: it stays
            folder.rmdir()
