"""How long a run will take, told from its first seconds on: what one force call costs, and how many may be left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from mlopt.core.runs.experiment import Context

#: seconds of a run after which it is told how long it will take
AFTER = 3.0
#: seconds of a force call from which on what evaluates is called slow, by its name
SLOW = 0.1
#: seconds between two lines of progress
EVERY = 0.5


class Pace:
    """Measures a run from look to look, logs once what it measured, and shows how far the run is.

    Watchers of experiments `look` before the first step and between steps, and `show` a line where one is `due`. What
    is left is an upper bound wherever a run may end sooner, and then is told as one.

    giver: what evaluates, such as "the potential Morse"; named where it is slow.
    unit: of what is counted. scope: of what is left, such as " in this round". bounded: whether that is an upper bound.
    """

    def __init__(
        self,
        context: Context,
        giver: str = "",
        *,
        unit: str = "force call",
        bounded: bool = True,
        scope: str = "",
        after: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context, self._giver, self._unit, self._clock = context, giver, unit, clock
        self._scope = scope
        self._bounded, self._bound = bounded, "at most " if bounded else "about "
        self._after = AFTER if after is None else after
        self._since: tuple[float, int] | None = None  # time and count where the measurement began
        self._seconds = 0.0  # that one takes; 0: not known yet
        self._left = 0
        self._told = False
        self._next = -math.inf  # when the next line is due

    def due(self) -> bool:
        """Return True at first, and then once every half second: another line of progress is welcome."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + EVERY
        return True

    def show(self, done: float, message: str) -> None:
        """Show how far the run is (0 to 1) in one line, with the time that is left where that is known."""
        self._context.progress(done, f"{message}, {self.rest}" if self.rest else message)

    def look(self, done: int, left: int) -> None:
        """Say that ``done`` force calls have been made since the run began, and ``left`` follow, at most."""
        now = self._clock()
        left += self._context.calls_to_follow
        if self._since is None:
            self._since = now, done
            return
        seconds, count = now - self._since[0], done - self._since[1]
        if count <= 0:
            return
        if seconds < self._after:  # the first steps load libraries, or make lists of neighbours
            return
        self._seconds, self._left = seconds / count, left
        if not self._told and left > 0:
            self._told = True
            self._context.log(self._sentence())

    @property
    def rest(self) -> str:
        """``at most 12 min left``, for a line of progress; empty while that is not known, and at the end."""
        seconds = self._seconds * self._left
        return f"{self._bound}{spelled(seconds)} left{self._scope}" if seconds > 0 else ""

    def _sentence(self) -> str:
        one = spelled(self._seconds)
        slow = self._giver and self._seconds >= SLOW
        article = "an" if self._unit[0] in "aeiou" else "a"
        head = f"{self._giver} takes {one} a call" if slow else f"{article} {self._unit} takes {one}"
        count = f"{self._bound if self._bounded else ''}{self._left:,} are left{self._scope}"
        return f"{head}; {count}: {self._bound}{spelled(self._seconds * self._left)}"


def spelled(seconds: float) -> str:
    """A time as a person says it, to two digits.

    >>> [spelled(one) for one in (1.234e-5, 0.004, 0.84, 59.0, 700.0, 9_600.0, 1e6)]
    ['12 µs', '4 ms', '0.84 s', '59 s', '12 min', '2 h 40 min', '12 days']
    """
    for factor, unit in ((1e-6, "µs"), (1e-3, "ms")):
        if seconds < 99.5 * factor:
            return f"{seconds / factor:.2g} {unit}"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60.0)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{round(seconds / 86_400.0):,} days"
