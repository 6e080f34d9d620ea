"""SQLite files that any number of processes may use at once: opening, schema, transactions, errors in sentences.

Invariants:

- A writer killed at any instant loses at most the transaction that it was in (``synchronous=FULL``).
- A file of another program, or of a newer mlopt, is refused and stays as it is.

A connection must be used in the process and thread that opened it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from mlopt.core.errors import InputError, MloptError

#: seconds to wait for another process that holds the file's one write lock
BUSY_SECONDS = 30.0
_HEADER = b"SQLite format 3\x00"
#: file systems of several machines, whose processes cannot share the memory that the WAL journal needs
_REMOTE = frozenset("nfs nfs4 cifs smb3 smbfs lustre gpfs beegfs ceph glusterfs afs 9p".split())
_REMOTE_FUSE = ("sshfs", "glusterfs", "ceph", "s3fs", "rclone", "juicefs")


class Database:
    """An SQLite file of one kind, created if absent. Use it as a context manager, or call `close`.

    On a local file system the journal is a WAL, so that readers never wait. Where that is impossible it is a rollback
    journal, and ``remark`` says why.

    Raises:
        InputError: the file is of another kind, damaged, or has a newer schema.
    """

    #: what messages call such a file, and what is in it
    kind: ClassVar[str]
    content: ClassVar[str]
    #: what to do if another process keeps the file locked
    when_locked: ClassVar[str] = "stop that process"
    #: number in the header of the file, by which files of this kind are told from others
    application: ClassVar[int]
    schema: ClassVar[int]
    tables: ClassVar[tuple[str, ...]]
    #: columns that later schemas have added, by table; a file that lacks one gets it when it is opened
    added: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        #: the reason for a journal other than WAL, or None
        self.remark: str | None = None
        self._refuse_other_formats()
        with self._explained():
            self._database = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            with self._explained():
                self._prepare()
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything that was added is already on disk."""
        self._database.close()

    def _created(self) -> None:
        """Fill the tables of a new file; called inside the transaction that makes them."""

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._explained():
            cursor = self._database.execute(query, values)
            cursor.row_factory = sqlite3.Row
            return cursor.fetchall()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the file's one write lock; readers go on meanwhile."""
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite itself rolls back on a full disk
                    self._database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            text = str(error)
            if "not a database" in text:
                raise InputError(f"{self.path} is not a SQLite file; a {self.kind} is one.") from error
            if "unable to open" in text:
                raise InputError(
                    f"{self.path} cannot be opened: check that its folder exists and is writable."
                ) from error
            if "readonly" in text:
                raise InputError(
                    f"{self.path} cannot be written: check its permissions, and those of its folder."
                ) from error
            if "malformed" in text:
                raise MloptError(
                    f"{self.path} is damaged ({text}): restore it from a copy, or save what can be read with `sqlite3 "
                    f"{self.path.name} .recover`."
                ) from error
            if "locked" in text:
                raise MloptError(
                    f"{self.path} stayed locked by another process for {BUSY_SECONDS:g} s: {self.when_locked}. "
                    "Nothing was lost."
                ) from error
            advice = " Free some space and start again." if "full" in text else ""
            raise MloptError(f"{self.path}: {text}.{advice} What was added before is kept.") from error

    def _refuse_other_formats(self) -> None:
        """Refuse a folder, and a file that is no SQLite database."""
        if self.path.is_dir():
            raise InputError(
                f"{self.path} is a folder: name the file for the {self.content} in it, such as "
                f"{self.path / self.content}.db."
            )
        if not self.path.exists():
            return
        if not self.path.is_file():
            raise InputError(f"{self.path} is no regular file, so not a {self.kind}: choose another path.")
        with contextlib.suppress(OSError), self.path.open("rb") as file:  # SQLite says what it may not read
            if (head := file.read(16)) and head != _HEADER:
                raise InputError(
                    f"{self.path} is not a SQLite file, so not a {self.kind}: choose another path."
                )

    def _prepare(self) -> None:
        """Create the tables in an empty file, or check that they are those of this kind."""
        new = self._pragma("application_id") != self.application
        if new:
            self._refuse_foreign()
        self._choose_journal()
        if new:
            with self._writing():
                # no other process created it while this one waited for the lock
                if self._pragma("application_id") != self.application:
                    self._refuse_foreign()
                    for table in self.tables:
                        self._database.execute(table)
                    self._created()
                    self._database.execute(f"PRAGMA user_version = {self.schema}")
                    self._database.execute(f"PRAGMA application_id = {self.application}")
        version = self._pragma("user_version")
        if version > self.schema:
            raise InputError(
                f"{self.path} was written by a newer mlopt (schema {version}; this one reads up to {self.schema}): "
                "upgrade mlopt-core to open it."
            )
        if version < self.schema:
            self._upgrade()
        self._database.execute("PRAGMA synchronous = FULL")

    def _upgrade(self) -> None:
        """Add the columns that files of earlier schemas lack."""
        with self._writing():
            for table, columns in self.added.items():
                present = {row[1] for row in self._database.execute(f"PRAGMA table_info({table})")}
                for name, kind in columns.items():
                    if name not in present:
                        self._database.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
            self._database.execute(f"PRAGMA user_version = {self.schema}")

    def _pragma(self, name: str) -> int:
        return int(self._database.execute(f"PRAGMA {name}").fetchone()[0])

    def _refuse_foreign(self) -> None:
        used = self._pragma("application_id") or self._pragma("user_version")
        if used or self._rows("SELECT 1 FROM sqlite_master LIMIT 1"):
            # Another process may have made it one of this kind between the two checks.
            if self._pragma("application_id") == self.application:
                return
            raise InputError(
                f"{self.path} is a SQLite file of another program, not a {self.kind}: choose another path."
            )

    def _choose_journal(self) -> None:
        """Take a WAL, or say why there is none; SQLite does not apply its busy timeout to this statement."""
        remote = remote_file_system(self.path)
        if remote is not None:
            self.remark = (
                f"{self.path} is on a file system of several machines ({remote}), where SQLite has no WAL journal: its "
                f"rollback journal is slower, and needs a mount with working locks"
            )
        wanted = "WAL" if remote is None else "DELETE"
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                (got,) = self._database.execute(f"PRAGMA journal_mode = {wanted}").fetchone()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                continue
            if got.upper() != wanted:
                self.remark = (
                    f"{self.path}: SQLite has no {wanted} journal here, so it is slower ({got.upper()})"
                )
            return


def is_of_mlopt(path: Path) -> bool:
    """Return whether a file is an SQLite database of mlopt, by the number in its header."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError:
        return False
    return head.startswith(_HEADER) and head[68:70] == b"ml"


def remote_file_system(path: Path) -> str | None:
    """Return the type of the file system of ``path`` if several machines share it; None if not, or if unknown."""
    try:
        where = str(path.resolve().parent)
        mounts = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    best, kind = "", ""
    for line in mounts:
        parts = line.split()
        if len(parts) < 3:
            continue
        folder = parts[1].replace("\\040", " ")
        inside = where == folder or where.startswith(folder.rstrip("/") + "/")
        if inside and len(folder) >= len(best):  # a later mount covers an earlier one
            best, kind = folder, parts[2]
    fuse = kind.startswith("fuse.") and kind.removeprefix("fuse.") in _REMOTE_FUSE
    return kind if kind in _REMOTE or fuse else None
