"""What readers of files have in common: a file that is there, and its text whatever program has written it."""

from __future__ import annotations

import codecs
from pathlib import Path

from mlopt.core.errors import InputError


def is_there(path: str | Path) -> bool:
    """Whether a file or a folder has that name; a name that no file can have is not there."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name that is too long, a NUL
        return False


def existing_file(path: str | Path) -> Path:
    """The path of a file that is there.

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
    """The text of a file in UTF-8 or, if it begins with a byte order mark, UTF-16; the mark is left out.

    otherwise: an encoding to take for what is not UTF-8.

    Raises:
        InputError: it cannot be read, or is in none of these.
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
    """Lines, ended as Unix, Windows or old Macs do; form feeds and the separators of Unicode end none."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
