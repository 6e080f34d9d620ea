"""The expected duration of a run, from the measured cost of a force call and the number of calls left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from mlopt.core.runs.experiment import Context

#: seconds after which the expected duration of a run is logged
AFTER = 3.0
#: seconds of a force call from which the potential is logged as slow
SLOW = 0.1
#: seconds between two lines of progress
EVERY = 0.5


class Pace:
    """A measurement of a run's speed, logged once, and a display of its progress.

    Watchers of experiments call `look` before the first step and between steps, and `show` where `due` is true. The
    time left is an upper bound for a run that may end sooner, and is then shown as one.

    giver: the name of the landscape or potential, such as "the potential Morse". The log shows it if calls are slow.
    unit: the noun for what is counted, such as "force call".
    scope: the part of the run that is counted, such as " in this round".
    bounded: True if the number of calls left is an upper bound.
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
        """Return True at the first call, and then once every half second, when a new line of progress may be shown."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + EVERY
        return True

    def show(self, done: float, message: str) -> None:
        """Show progress (0 to 1) in one line, with the time left if it is known."""
        self._context.progress(done, f"{message}, {self.rest}" if self.rest else message)

    def look(self, done: int, left: int) -> None:
        """Record that ``done`` force calls have been made since the run began, and that at most ``left`` follow."""
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
        """The time left, such as ``at most 12 min left``; empty while it is unknown, and at the end."""
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
    """Return a time for people, to two digits.

    >>> ", ".join(spelled(one) for one in (1.234e-5, 0.004, 0.84, 59.0, 700.0, 9_600.0, 1e6))
    '12 µs, 4 ms, 0.84 s, 59 s, 12 min, 2 h 40 min, 12 days'
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
