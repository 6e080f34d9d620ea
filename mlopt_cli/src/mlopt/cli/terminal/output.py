"""Output of the command: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

import click


def emit_json(value: Any) -> None:
    """Write one JSON object to stdout; NaN and infinity become null, because JSON has neither."""
    click.echo(json.dumps(plain(value), indent=2, allow_nan=False))


def note(message: str) -> None:
    """Write a message for a person to stderr, without characters that a terminal would take for commands."""
    from mlopt.core.quoting import several_lines  # mlopt.core is more than `mlopt --help` may import

    try:
        click.echo(several_lines(message), err=True)
    except (OSError, ValueError):  # it cannot be read there, but the run goes on
        silence(sys.stderr)


def printing_aside() -> contextlib.AbstractContextManager[Any]:
    """Redirect what plugins print to standard error, because standard output is for the result."""
    return contextlib.redirect_stdout(sys.stderr)


def silence(stream: TextIO) -> None:
    """Redirect a broken stream to nowhere, including its buffered output."""
    with contextlib.suppress(OSError, ValueError):  # a stream of a test has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def open_closed_streams() -> None:
    """Open standard streams that the caller has closed, as streams to nowhere.

    Otherwise libraries would take the next opened file, perhaps one of the run, for a standard stream.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115  open as long as the program


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Align columns; the last one is not padded."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append((indent + "  ".join([*cells, row[-1]])).rstrip())
    return "\n".join(lines)


def plain(value: Any) -> Any:
    """Return JSON data of a summary: NaN and infinity become null, other objects their text."""
    value = _numbers(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def not_numbers(value: Any, name: str = "") -> list[tuple[str, float]]:
    """Return the places of NaN and infinity in a summary, such as ``rows.2.mean``, with their values."""
    value = _numbers(value)
    if isinstance(value, float):
        return [] if math.isfinite(value) else [(name, value)]
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    return [one for key, item in pairs for one in not_numbers(item, f"{name}.{key}" if name else str(key))]


def _numbers(value: Any) -> Any:
    """Return NumPy and torch numbers and arrays as Python's; anything else as it is."""
    convert = getattr(value, "tolist", None)
    return convert() if callable(convert) else value


def shown(value: Any) -> str:
    """Return a value in a form for people."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.9g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def is_table(value: Any) -> bool:
    """Return whether a value of a summary is a list of rows, each a mapping."""
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the columns of the rows, in order of appearance, and their cells; numbers are rounded."""
    heads = list(dict.fromkeys(str(key) for row in rows for key in row))
    return [
        [head.replace("_", " ") for head in heads],
        *([_cell(row.get(head)) for head in heads] for row in rows),
    ]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.6g}"
    return shown(value)
