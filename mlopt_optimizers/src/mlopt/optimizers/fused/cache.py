"""The folder of compiled kernels, which must belong to the user and be as it was written.

Each kernel has a folder of its own, with its module, the files that Numba puts beside it, and their digests. The folder
is made under another name and renamed when it is complete, so that several processes may make the same one at once.
Numba reads pickles and machine code without checks. It is therefore given no file that differs from its digest, or that
others could have written.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mlopt.core.errors import MloptError
from mlopt.core.files.atomic import write_text

_TEMPORARY = "mlopt-kernels-"
_DIGESTS = "digests.json"
#: seconds after which a folder that was never finished is swept
_LEFT_BEHIND = 24 * 3600.0


def cache_folder() -> Path:
    """Return ``$MLOPT_CACHE`` or the user's cache folder; if `fault` finds one, a folder of this process alone."""
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home
        folder = wanted_folder()
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if fault(folder) is None:
            return folder
    return _own_folder()


def wanted_folder() -> Path:
    """Return the folder where kernels are to be kept.

    Raises:
        RuntimeError: there is no home folder.
    """
    named = os.environ.get("MLOPT_CACHE")
    if named:
        return Path(named).expanduser() / "kernels"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mlopt" / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlopt" / "kernels"


def fault(folder: Path) -> str | None:
    """Return a clause that says why no code may be kept in ``folder`` or run from it, or None."""
    try:
        found = folder.stat()
    except OSError as error:
        return f"{folder} cannot be used ({error.strerror})"
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is no folder"
    if found.st_uid != os.geteuid():
        return f"{folder} belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to {folder}, which holds code that is run (delete it, or `chmod go-w` it)"
    for above in folder.resolve().parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"anyone may write to {above}, and so replace {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} cannot be written to"
    return None


def is_kept(folder: Path) -> bool:
    """Return whether the content of ``folder`` outlasts this process."""
    return not folder.name.startswith(_TEMPORARY)


@lru_cache(maxsize=1)
def _own_folder() -> Path:
    folder = tempfile.mkdtemp(prefix=_TEMPORARY)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@dataclass(frozen=True)
class Place:
    """The place of one kernel. root: the cache folder. name: of the module, and of the folder around it."""

    root: Path
    name: str

    @property
    def module(self) -> Path:
        """The file of the module."""
        return self.root / self.name / f"{self.name}.py"

    def is_sound(self, text: str) -> bool:
        """Return whether the module has this text, and all files beside it are as they were written."""
        folder = self.module.parent
        try:
            digests = json.loads(_read(folder / _DIGESTS) or b"")
            there = set(_kept_files(folder))
        except (OSError, ValueError, RecursionError):
            return False
        if not isinstance(digests, dict) or _read(self.module) != text.encode():
            return False
        return there == set(digests) and all(_digest(folder / name) == digests[name] for name in there)

    @contextlib.contextmanager
    def being_made(self, text: str) -> Iterator[Place]:
        """Give a place of the same name under a root of its own, with the module in it. `take` keeps it."""
        self._sweep()
        root = Path(tempfile.mkdtemp(prefix=f".{self.name}-", suffix=".new", dir=self.root))
        try:
            made = Place(root, self.name)
            made.module.parent.mkdir()
            write_text(made.module, text)
            yield made
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def take(self, made: Place, text: str) -> None:
        """Put a complete place here. A sound one that another process has put here meanwhile stays."""
        folder, target = made.module.parent, self.module.parent
        digests = {name: _digest(folder / name) for name in _kept_files(folder)}
        write_text(folder / _DIGESTS, json.dumps(digests, indent=2) + "\n")
        for _ in range(3):  # others may do the same at this moment
            with contextlib.suppress(OSError):
                folder.rename(target)
                return
            if self.is_sound(text):
                return
            self.remove()
        raise MloptError(f"{target}: cannot be replaced; remove it, or set MLOPT_CACHE to another folder")

    def remove(self) -> None:
        """Remove whatever has the name of this place."""
        target = self.module.parent
        aside = Path(tempfile.mkdtemp(prefix=f".{self.name}-", suffix=".old", dir=self.root))
        with contextlib.suppress(OSError):  # gone already
            target.rename(aside / "it")
        shutil.rmtree(aside, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove folders that killed processes have left unfinished."""
        for left in [*self.root.glob(".*.new"), *self.root.glob(".*.old")]:
            with contextlib.suppress(OSError):
                if left.lstat().st_mtime < time.time() - _LEFT_BEHIND:
                    shutil.rmtree(left, ignore_errors=True)


def kernels_in(root: Path) -> int:
    """Return the number of kernels in a cache folder."""
    return len(list(root.glob(f"*/{_DIGESTS}")))


def _kept_files(folder: Path) -> list[str]:
    """Return the files that Numba has put beside a module, as names under ``folder``."""
    return sorted(str(one.relative_to(folder)) for one in folder.glob("__pycache__/*"))


def _digest(path: Path) -> str | None:
    content = _read(path)
    return None if content is None else hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes | None:
    """Return the content of a regular file, and None for anything else, such as a FIFO, which would block."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None
