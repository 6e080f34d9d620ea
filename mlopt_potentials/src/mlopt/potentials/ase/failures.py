"""Reports of an ASE calculator's failures: each cause once, with a count."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from pathlib import Path

from mlopt.core.atoms.elements import NUMBERS
from mlopt.core.quoting import one_line
from mlopt.potentials.ase.results import BadResultError

log = logging.getLogger(__name__)


@dataclass
class _Seen:
    """One cause of failures: its count, its first message, and the count at which it is logged again."""

    text: str
    count: int = 0
    next_told: int = 1


class Failures:
    """A count of failures by kind of exception and the line that raised it.

    The message does not distinguish causes, because it may contain an energy, a file name or a time, and differ at
    every call. Each cause is logged at its first failure, and again when its count has grown tenfold.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Seen] = {}

    def add(self, calculator: str, error: Exception, index: int) -> None:
        """Count one failure, and log it if it is due."""
        text = cause(error)
        # bad results differ by what was returned, not by where it was noticed
        where = str(error) if isinstance(error, BadResultError) else _place(error)
        seen = self._seen.setdefault((type(error).__name__, where), _Seen(text))
        seen.count += 1
        if seen.count < seen.next_told:
            return
        seen.next_told = 10 * seen.count
        if seen.count == 1:
            log.warning("ASE calculator %r failed for system %d, which gets NaN: %s", calculator, index, text)
        else:
            log.warning(
                "ASE calculator %r has failed in this way %d times; now: %s", calculator, seen.count, text
            )

    def lines(self, calculator: str) -> list[str]:
        """Return one line for each cause, with its count."""
        return [
            f"ASE calculator {calculator!r} failed {seen.count} {'time' if seen.count == 1 else 'times'}, and each "
            f"time one system got NaN; the first: {seen.text}"
            for seen in self._seen.values()
        ]


def cause(error: Exception) -> str:
    """Return kind and text of an exception in one line; for one without text, where it was raised."""
    name = "a bad result" if isinstance(error, BadResultError) else type(error).__name__
    text = one_line(error, 200)
    if isinstance(error, KeyError) and text.strip("'") in NUMBERS:
        text = f"it does not know {text}"  # calculators look elements up in dictionaries
    return f"{name}: {text or _place(error)}" if text or error.__traceback__ else name


def _place(error: Exception) -> str:
    """Return file, line and text of the line that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    return f"{Path(last.filename).name}, line {last.lineno}: {last.line}".strip()
