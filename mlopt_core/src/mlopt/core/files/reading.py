"""Common parts of the readers of files: checks that a file exists, and text in any usual encoding."""

from __future__ import annotations

import codecs
from pathlib import Path

from mlopt.core.errors import InputError


def is_there(path: str | Path) -> bool:
    """Return whether a file or a folder has that name; False for a name that no file can have."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name that is too long, a NUL
        return False


def existing_file(path: str | Path) -> Path:
    """Return the path of an existing file.

    Raises:
        InputError: it is a folder, or there is none.
    """
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a file")
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    return file


def read_text(file: Path, otherwise: str | None = None) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 if it begins with a byte order mark, which is removed.

    otherwise: an encoding for files that are not UTF-8.

    Raises:
        InputError: the file cannot be read, or is in none of these encodings.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    name = "UTF-16" if wide else "UTF-8"
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        if otherwise is not None:
            return data.decode(otherwise)
        raise InputError(
            f"{file}: not a text file (byte {error.start} is not {name}). Is its ending right? Save it as UTF-8"
        ) from error


def lines_of(text: str) -> list[str]:
    """Return lines that end as on Unix, Windows or old Macs; form feeds and Unicode separators end no line."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
