"""The input files of a run, kept in its directory.

    inputs/inputs.json  inputs/<digest>/<name of the file>

When a run begins, every file that a setting names (`mlopt.core.plugins.input_file`) is copied. The run and its resumes
read the copies.

Invariant: from then on the original may change or vanish, and the run computes the same. A file that ships with mlopt,
or that is too large to copy, is compared with its digest instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlopt.core.errors import InputError, MloptError, RunDirectoryError
from mlopt.core.files import atomic
from mlopt.core.files.atomic import JSON
from mlopt.core.plugins.input_file import Copy, Reads
from mlopt.core.plugins.plugin import Plugin, mark_of
from mlopt.core.runs import config
from mlopt.core.runs.experiment import Experiment

#: where files are kept in a run directory
FOLDER = "inputs"
#: bytes of a file beyond which it is not copied
LARGEST = 2**28
_LIST = "inputs.json"
_FORMAT = 1
_BLOCK = 2**20

P = TypeVar("P", bound=Plugin)


@dataclass(frozen=True)
class KeptFile:
    """One input file: its setting, its path, its SHA-256, and its copy below ``inputs`` if there is one.

    A second file that belongs to it has the same place, and a copy beside the first one's.
    """

    place: str
    path: str
    sha256: str
    copy: str | None


@dataclass(frozen=True)
class KeptFiles:
    """All input files of a run, in the order of its settings."""

    files: tuple[KeptFile, ...]

    @classmethod
    def of(cls, plugin: Plugin) -> KeptFiles:
        """Look at the files that a plugin names, as they are now; missing ones are left out.

        An experiment's `check` reports those.
        """
        files: list[KeptFile] = []

        def look(place: str, value: str, reads: Reads) -> str:
            try:
                path = reads.find(value)
                paths = [path, *([path.with_suffix(reads.beside)] if reads.beside else [])]
                digests = [_digest(one) for one in paths]
                small = all(one.stat().st_size <= LARGEST for one in paths)
            except (OSError, MloptError):
                return value
            folder = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
            copied = small and str(path) == value  # else it has a name, and ships
            for one, digest in zip(paths, digests, strict=True):
                files.append(KeptFile(place, str(one), digest, f"{folder}/{one.name}" if copied else None))
            return value

        over_files(plugin, look)
        return cls(tuple(files))

    @classmethod
    def read(cls, folder: Path) -> KeptFiles | None:
        """Read the list of files kept in ``folder``; return None if there is none.

        Raises:
            RunDirectoryError: the list is damaged.
        """
        path = folder / _LIST
        try:
            told = json.loads(atomic.read_bytes(path))
            files = [KeptFile(**one) for one in told["files"]]
            if told["format"] != _FORMAT or not all(_is_sound(one) for one in files):
                raise ValueError("not a list of files that this mlopt knows")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunDirectoryError(
                f"{path}: cannot be read ({type(error).__name__}: {error}). Restore it from a backup: it says which "
                f"files the run began with."
            ) from error
        return cls(tuple(files))

    @property
    def digests(self) -> dict[str, str]:
        """The digest of the file, or files, of each setting, which checkpoints store."""
        found: dict[str, str] = {}
        for one in self.files:
            found[one.place] = found.get(one.place, "") + one.sha256
        return found

    def store(self, folder: Path) -> None:
        """Copy the files into ``folder`` and list them there.

        Raises:
            InputError: a file has changed since it was looked at.
        """
        if not self.files:
            return
        folder.mkdir(exist_ok=True)
        for one in self.files:
            data = _read(one.path) if one.copy is not None else None
            if (_digest(Path(one.path)) if data is None else _sha256(data)) != one.sha256:
                raise InputError(
                    f"`{one.place}`: {one.path} changed while the run was starting; start it again"
                )
            if data is not None and one.copy is not None:
                _make(folder / one.copy, data)
        atomic.write_json(folder / _LIST, {"format": _FORMAT, "files": [asdict(one) for one in self.files]})

    def verify(self, folder: Path) -> list[str]:
        """Compare the kept files with their digests; return one line about each original that has changed.

        A damaged copy is made again if the original is still the same.

        Raises:
            RunDirectoryError: neither the copy nor the original of a file is what it was.
        """
        notes = []
        for one in self.files:
            now = _digest_or_none(Path(one.path))
            if one.copy is None:
                if now != one.sha256:
                    raise RunDirectoryError(
                        f"`{one.place}`: {one.path} {_fate(now)} since the run began, and no copy was kept: it ships "
                        f"with mlopt, or is larger than {LARGEST:,} bytes. {_remedy(one)}"
                    )
            elif _digest_or_none(folder / one.copy) != one.sha256:
                if now != one.sha256:
                    raise RunDirectoryError(
                        f"{folder / one.copy}: this copy of a file that the run began with is damaged or gone, and "
                        f"the original, {one.path}, {_fate(now)}. {_remedy(one)}"
                    )
                _make(folder / one.copy, _read(one.path))
                notes.append(f"{folder / one.copy} was damaged or gone; it was copied again from {one.path}")
            elif now != one.sha256:
                notes.append(
                    f"{one.path} {_fate(now)} since the run began: it goes on with the copy that it began with, "
                    f"{folder / one.copy}"
                )
        return notes

    def applied(self, settings: Mapping[str, Any], folder: Path, source: str = "") -> Experiment:
        """Return the experiment of a resolved configuration with copies in place of its files.

        Its `config` shows the original paths.
        """
        first: dict[str, KeptFile] = {}
        for one in self.files:
            if one.copy is not None:
                first.setdefault(one.place, one)
        changed: Any = settings
        for place, one in first.items():
            changed = _put(changed, place.split("."), str(folder / str(one.copy)))

        def remember(place: str, value: str, reads: Reads) -> str:
            kept = first.get(place)
            return value if kept is None else Copy(value, kept.path)

        return over_files(config.load_experiment(changed, source), remember)


def over_files(plugin: P, change: Callable[[str, str, Reads], str]) -> P:
    """Return a copy of a plugin with each name of an input file replaced by ``change(place, name, mark)``.

    place: the path of the setting in the configuration, such as ``systems.0.system.file``.
    """
    changed: P = _over(plugin, None, "", change)
    return changed


def _over(value: Any, reads: Reads | None, place: str, change: Callable[[str, str, Reads], str]) -> Any:
    def inner(key: Any, item: Any, mark: Reads | None) -> Any:
        return _over(item, mark, f"{place}.{key}" if place else str(key), change)

    if isinstance(value, Plugin):
        fields = type(value).model_fields
        made = {name: inner(name, getattr(value, name), mark_of(fields[name], Reads)) for name in fields}
        made = {name: item for name, item in made.items() if item is not getattr(value, name)}
        return value.replace(**made) if made else value
    if isinstance(value, str):
        return change(place, value, reads) if reads is not None and reads.key is None else value
    if isinstance(value, Mapping):
        if reads is None or reads.key is None:
            items = {key: inner(key, item, reads) for key, item in value.items()}
        elif isinstance(value.get(reads.key), str):
            named = change(f"{place}.{reads.key}", value[reads.key], reads)
            items = {**value, reads.key: named}
        else:
            return value
        return items if any(items[key] is not value[key] for key in items) else value
    if isinstance(value, list | tuple):
        made_list = [inner(number, item, reads) for number, item in enumerate(value)]
        same = all(new is old for new, old in zip(made_list, value, strict=True))
        return value if same else type(value)(made_list)
    return value


def _put(tree: Any, keys: list[str], value: str) -> Any:
    """Return a copy of nested mappings and lists with ``value`` at a place."""
    if not keys:
        return value
    if isinstance(tree, list):
        number = int(keys[0])
        return [*tree[:number], _put(tree[number], keys[1:], value), *tree[number + 1 :]]
    return {**tree, keys[0]: _put(tree[keys[0]], keys[1:], value)}


def _make(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, data)


def _read(path: str) -> bytes:
    try:
        return atomic.read_bytes(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest(path: Path) -> str:
    """Return the SHA-256 of a regular file, read block by block. Raises OSError."""
    found = hashlib.sha256()
    with atomic.open_regular(path) as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _digest_or_none(path: Path) -> str | None:
    try:
        return _digest(path)
    except OSError:
        return None


def _fate(now: str | None) -> str:
    return "cannot be read any more" if now is None else "has changed"


def _remedy(one: KeptFile) -> str:
    return f"Put back the file with the SHA-256 {one.sha256}, or start a new run."


def _is_sound(one: KeptFile) -> bool:
    """Return whether an entry of the list has the right types, and its copy is inside the folder."""
    texts: list[JSON] = [one.place, one.path, one.sha256]
    inside = one.copy is None or (
        isinstance(one.copy, str) and one.copy.count("/") == 1 and ".." not in one.copy
    )
    return all(isinstance(text, str) for text in texts) and inside
