"""What readers of files have in common: a file that is there, and one line for what went wrong."""

from __future__ import annotations

from pathlib import Path

from mlopt.core.errors import InputError


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


def one_line(error: Exception) -> str:
    """What an exception says, on one line and short."""
    return " ".join(str(error).split())[:200] or type(error).__name__
