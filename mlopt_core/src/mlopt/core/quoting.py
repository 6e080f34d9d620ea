"""Quotations of user input in messages: on one line, printable, and of bounded length.

Invariant: nothing that `quoted` or `one_line` returns has a line end, a control character or half a surrogate pair.
"""

from __future__ import annotations

import reprlib

#: characters of a wrong value that a message repeats
QUOTED = 60
#: characters of one line of a message
LINE = 760
#: lines of a message
LINES = 60

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = 1_000  # few items and few levels of containers


def quoted(value: object, most: int = QUOTED) -> str:
    """Return at most ``most`` characters of the ``repr`` of a value.

    >>> quoted("Cu13")
    "'Cu13'"
    >>> len(quoted("a" * 5000))
    60
    """
    return _bounded(_repr(value), most)


def one_line(text: object, most: int = LINE) -> str:
    r"""Return a text on one line of at most ``most`` characters; the middle of a longer text is left out.

    White space becomes one blank, and characters that cannot be printed are escaped.

    >>> one_line("two\n lines\x1b[2J")
    'two lines\\x1b[2J'
    """
    whole = text if isinstance(text, str) else _text(text)
    if len(whole) > 4 * most:  # the middle is not looked at: it may be a file
        head, tail = " ".join(whole[: 2 * most].split()), " ".join(whole[-2 * most :].split())
        return _bounded(f"{head}{' ' * most}{tail}", most)
    return _bounded(" ".join(whole.split()), most)


def cause(error: BaseException) -> str:
    """Return an exception's message on one short line, or the name of its class if it has none."""
    return one_line(error, 200) or type(error).__name__


def several_lines(text: str) -> str:
    """Return a message of one or more lines, each printable and of bounded length; blanks stay as they are."""
    lines = text.split("\n")
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"... and {len(lines) - LINES} more lines"]
    return "\n".join(_bounded(line, LINE) for line in lines)


def _bounded(line: str, most: int) -> str:
    if not line.isprintable():
        line = "".join(
            one if one.isprintable() else " " if one.isspace() else ascii(one)[1:-1] for one in line
        )
    if len(line) <= most:
        return line
    kept = (most - 3) // 3
    return f"{line[: most - 3 - kept]}...{line[-kept:]}"


def _repr(value: object) -> str:
    if isinstance(value, str):  # before `repr`, which would make a string of the whole
        return repr(value) if len(value) <= 4 * LINE else repr(value[: 2 * LINE] + value[-2 * LINE :])
    try:
        return _brief.repr(value)
    except Exception:  # an int of more digits than Python prints, or a third-party class
        return f"<{type(value).__name__}>"


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # a third-party exception may fail to format itself
        return f"<{type(value).__name__}>"
