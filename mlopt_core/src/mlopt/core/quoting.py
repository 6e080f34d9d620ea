"""What messages repeat of what a user gave: on one line, printable, and never longer than a person reads.

Invariant: nothing that `quoted` or `one_line` returns has a line end, a control character or half a surrogate pair.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

#: characters of a wrong value that a message repeats
QUOTED = 60
#: characters of one line of a message
LINE = 760
#: lines of a message
LINES = 60

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = 1_000  # containers: a few items, a few levels


def quoted(value: object, most: int = QUOTED) -> str:
    """``repr`` of a value, at most ``most`` characters of it.

    >>> quoted("Cu13")
    "'Cu13'"
    >>> len(quoted("a" * 5000))
    60
    """
    return one_line(_repr(value), most)


def one_line(text: object, most: int = LINE) -> str:
    r"""Words on one line: white space becomes one blank, what cannot be printed is escaped, the middle may be left out.

    >>> one_line("two\n lines\x1b[2J")
    'two lines\\x1b[2J'
    """
    whole = text if isinstance(text, str) else _text(text)
    if len(whole) <= 4 * most:
        head = tail = _printable(whole)
        if len(head) <= most:
            return head
    else:  # the middle is not looked at: it may be a file
        head, tail = _printable(whole[: 2 * most]), _printable(whole[-2 * most :])
    kept = (most - 3) // 3
    return f"{head[: most - 3 - kept]}...{tail[-kept:]}"


def several_lines(text: str) -> str:
    """A message of one line or more, each as `one_line` has it behind its indentation."""
    lines = text.split("\n")
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"... and {len(lines) - LINES} more lines"]
    return "\n".join(line[: len(line) - len(line.lstrip(" "))][:LINE] + one_line(line) for line in lines)


def listed(names: Sequence[str], most: int = 10) -> str:
    """Names with commas between, each shortened; of many, the first ones and how many more there are."""
    shown = ", ".join(one_line(name, QUOTED) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _printable(text: str) -> str:
    text = " ".join(text.split())
    return (
        text
        if text.isprintable()
        else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
    )


def _repr(value: object) -> str:
    if isinstance(value, str):  # before `repr`, which would make a string of the whole
        return repr(value) if len(value) <= 4 * LINE else repr(value[: 2 * LINE] + value[-2 * LINE :])
    try:
        return _brief.repr(value)
    except Exception:  # an int of more digits than Python prints, or a stranger's class
        return f"<{type(value).__name__}>"


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # an exception of a stranger may fail to say what it is
        return f"<{type(value).__name__}>"
