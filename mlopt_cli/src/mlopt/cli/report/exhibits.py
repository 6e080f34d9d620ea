"""The exhibits of a run, read from ``results/page.json`` and the files that it names.

Invariant: only files inside the results are read; one that is missing or no picture is named in a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.errors import MloptError
from mlopt.core.reporting.summary import Card, Figure, Gallery, Structure, Summary, Table

if TYPE_CHECKING:
    from ase import Atoms

#: bytes of a picture that the report still shows
MOST_PICTURE = 4 * 2**20
#: bytes of a structure file that is still read for its pictures
_MOST_STRUCTURES = 64 * 2**20
_KINDS = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Image:
    """A picture in its file's format. ``kind``: its media type, such as ``image/svg+xml``."""

    title: str
    caption: str
    kind: str
    content: bytes


@dataclass(frozen=True)
class Structures:
    """Structures to be drawn side by side, each with its label."""

    title: str
    caption: str
    labels: tuple[str, ...]
    atoms: tuple[Atoms, ...]


@dataclass(frozen=True)
class Exhibits:
    """Cards, remarks and tables of a run, and the contents of its figures."""

    cards: tuple[Card, ...] = ()
    remarks: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Image | Structures, ...] = ()


def read_exhibits(results: Path, page: Any, notes: list[str]) -> Exhibits | None:
    """Read the files named in ``page`` (the content of ``page.json``); return None for a run without a page."""
    if page is None:
        return None
    try:
        told = Summary.with_page({}, page)
    except (TypeError, KeyError, ValueError, OverflowError, MloptError) as error:
        notes.append(f"page.json: not what a run wrote ({type(error).__name__}: {error})")
        return None
    found: list[Image | Structures] = []
    for figure in told.figures:
        one = (
            _image(results, figure, notes) if isinstance(figure, Figure) else _gallery(results, figure, notes)
        )
        if one is not None:
            found.append(one)
    return Exhibits(told.cards, told.remarks, told.tables, tuple(found))


def drawn(results: Path, notes: list[str]) -> tuple[Image, ...]:
    """Return every SVG in the results, for a run without a page."""
    titles = ((file, file.stem.replace("_", " ").replace("-", " ")) for file in sorted(results.glob("*.svg")))
    images = (_image(results, Figure(title.capitalize(), file.name), notes) for file, title in titles)
    return tuple(image for image in images if image is not None)


def _inside(results: Path, name: str, most: int, notes: list[str]) -> Path | None:
    """Return the file of this name if it is one of the results and not too large."""
    path = results / name
    try:
        if not path.resolve().is_relative_to(results.resolve()):
            notes.append(f"{name}: not shown, for it is no file inside the results")
        elif not path.is_file():
            notes.append(f"{name}: not shown, for there is no such file in the results")
        elif path.stat().st_size > most:
            notes.append(f"{name}: not shown, for it is larger than {most / 2**20:g} MiB")
        else:
            return path
    except (OSError, ValueError) as error:
        notes.append(f"{name}: cannot be read ({error})")
    return None


def _image(results: Path, figure: Figure, notes: list[str]) -> Image | None:
    path = _inside(results, figure.file, MOST_PICTURE, notes)
    if path is None:
        return None
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        notes.append(f"{figure.file}: not shown, for it is neither .svg nor .png")
        return None
    try:
        return Image(figure.title, figure.caption, kind, path.read_bytes())
    except OSError as error:
        notes.append(f"{figure.file}: cannot be read ({error.strerror})")
        return None


def _gallery(results: Path, gallery: Gallery, notes: list[str]) -> Structures | None:
    files: dict[str, Sequence[Atoms]] = {}
    labels, atoms = [], []
    for one in gallery.structures:
        if one.file not in files:
            files[one.file] = _frames(results, one.file, notes)
        found = _frame(files[one.file], one, notes)
        if found is not None:
            labels.append(one.label)
            atoms.append(found)
    return Structures(gallery.title, gallery.caption, tuple(labels), tuple(atoms)) if atoms else None


def _frames(results: Path, name: str, notes: list[str]) -> Sequence[Atoms]:
    path = _inside(results, name, _MOST_STRUCTURES, notes)
    if path is None:
        return ()
    from ase.io import iread

    try:
        # An open file, for ASE reads an @ in a name as an index.
        with path.open(encoding="utf-8") as lines:
            return list(iread(lines, index=":", format=path.suffix.removeprefix(".")))
    # ASE raises whatever its parser meets in a torn or foreign file; the report goes on without it.
    except Exception as error:
        notes.append(f"{name}: cannot be read ({type(error).__name__}: {error})")
        return ()


def _frame(frames: Sequence[Atoms], wanted: Structure, notes: list[str]) -> Atoms | None:
    try:
        return frames[wanted.frame]
    except IndexError:
        if frames:
            notes.append(f"{wanted.file}: has {len(frames)} structures, and none of index {wanted.frame}")
        return None


def goal(page: Any, numbers: Mapping[str, Any]) -> Summary:
    """Return the summary of a finished run from its files, whose page may be missing or damaged."""
    try:
        return Summary.with_page(numbers, page)
    except (TypeError, KeyError, ValueError, OverflowError, MloptError):
        return Summary.of(numbers)
