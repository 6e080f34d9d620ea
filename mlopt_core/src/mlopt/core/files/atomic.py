"""Atomic writing of files: a kill, a full disk or a power cut never leaves half a file.

A reader of ``path`` sees either the whole former content or the whole new one. Data go to a temporary file in the same
folder, are forced to the disk, and take the name in one ``rename``. Then the folder itself is forced to the disk. The
exceptions are ``append_line`` and ``append_text``, for files whose reader accepts a torn last line.

Every function that writes raises ``MloptError``, with path, cause and remedy, instead of ``OSError``. The former file
is then intact and the temporary one is removed.

Source: the order write, fsync, rename, fsync of the folder is that of the LWN article "Ensuring data reaches disk" (J.
Moyer, 2011, https://lwn.net/Articles/457667/).
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from mlopt.core.errors import InputError, MloptError

# JSON data: None, bool, int, float, str, and lists or string-keyed dicts of them. Spelled Any because a
# recursive type would make every reader of a checkpoint cast each number it takes out; the writers check the
# data instead.
JSON: TypeAlias = Any

_TEMPORARY = re.compile(r"\..+\.([0-9]+)-[0-9a-f]{8}\.mlopt-tmp", re.DOTALL)

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "your disk quota is used up: free some space or ask for more",
    errno.EFBIG: "the file would exceed a size limit: raise `ulimit -f` or the file system's limit",
    errno.EROFS: "the file system is read-only: choose another place with --out",
    errno.EACCES: "you may not write there: fix the permissions or choose another place with --out",
    errno.EPERM: "you may not write there: fix the permissions or choose another place with --out",
    errno.ENOENT: "the folder does not exist (any more): create it or choose another place with --out",
    errno.ENOTDIR: "a part of the path is a file: choose another place with --out",
    errno.EISDIR: "a folder has that name: move it away",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one with --out",
    errno.ELOOP: "a symbolic link is in the way: remove it",
    errno.EIO: "the disk reports a fault: use another one",
}


def write_bytes(path: str | os.PathLike[str], data: bytes, *, private: bool = False) -> None:
    """Replace the content of ``path`` by ``data``, durably and atomically.

    private: make the file readable by the user alone.

    Raises:
        MloptError: the file cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.mlopt-tmp")
    created = replaced = False
    try:
        # 0o666 lets the user's umask decide, as for every other file (tempfile would make it private).
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600 if private else 0o666)
        created = True
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, target)
        replaced = True
        _sync_folder(target.parent)
    except OSError as error:
        raise _write_error(target, len(data), error, former=not replaced) from error
    finally:
        if created and not replaced:
            with contextlib.suppress(OSError):  # a second fault must not hide the first
                temporary.unlink()


def write_text(path: str | os.PathLike[str], text: str, *, private: bool = False) -> None:
    """Replace the content of ``path`` by ``text`` in UTF-8; errors as in `write_bytes`."""
    # A path from the file system may hold undecodable bytes; losing one character beats losing the file.
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"), private=private)


def finite(value: Any) -> Any:
    """Return JSON data with null in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def write_json(path: str | os.PathLike[str], value: JSON, *, private: bool = False) -> None:
    """Replace the content of ``path`` by ``value`` as indented JSON.

    Raises:
        InputError: a value that JSON cannot hold, NaN and infinity included, because other programs read these files.
        MloptError: the file cannot be written.
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: this is not JSON data: {error}. Convert it before writing.") from error
    write_text(path, text + "\n", private=private)


def append_line(path: str | os.PathLike[str], text: str) -> None:
    """Append one line; after a failure (``MloptError``) the file is as before.

    The line is not forced to the disk, because this is called at every step. Call `sync` before a checkpoint that
    relies on the line.
    """
    if "\n" in text or "\r" in text:
        raise InputError(f"{path}: one line was to be appended, the text has several: {text[:80]!r}")
    append_text(path, text + "\n")


def append_text(path: str | os.PathLike[str], text: str) -> None:
    """Append ``text``; as `append_line` in all else."""
    data = text.encode("utf-8", errors="backslashreplace")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, data)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _write_error(Path(path), len(data), error) from error


def truncate(path: str | os.PathLike[str], length: int) -> None:
    """Drop what follows the first ``length`` bytes of a file, see `mlopt.core.files.growing`."""
    try:
        os.truncate(path, length)
    except OSError as error:
        raise _write_error(Path(path), 0, error) from error


def sync(path: str | os.PathLike[str]) -> None:
    """Force appended lines of ``path`` to the disk; do nothing if there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _write_error(Path(path), 0, error) from error
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise _write_error(Path(path), 0, error) from error
    finally:
        os.close(descriptor)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading, without ever waiting.

    Raises:
        OSError: it is no regular file, such as a folder or a pipe.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", os.fspath(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", os.fspath(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file; errors as in `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def remove_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove the temporary files that killed processes left in ``folder``; return them."""
    removed = []
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    for name in names:
        match = _TEMPORARY.fullmatch(name)
        if match is None or process_is_alive(int(match[1])):
            continue
        leftover = Path(folder, name)
        try:
            leftover.unlink()
        except OSError:  # cleaning up must never stop a run
            continue
        removed.append(leftover)
    return removed


def is_temporary(name: str) -> bool:
    """Return whether ``name`` has the form of the temporary files of `write_bytes`."""
    return _TEMPORARY.fullmatch(name) is not None


def process_is_alive(pid: int) -> bool:
    """Return whether a process with this number exists on this machine, whoever owns it."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _write_all(descriptor: int, data: bytes) -> None:
    # A write near a limit may store only a part without an error; the next one then raises.
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder, and make renames durable by themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _write_error(path: Path, size: int, error: OSError, former: bool = True) -> MloptError:
    remedy = _REMEDIES.get(error.errno or 0, "check the disk and the path")
    intact = " The former content is intact." if former and path.is_file() else ""
    return MloptError(f"{path}: could not write {size} bytes: {error.strerror or error}; {remedy}.{intact}")
