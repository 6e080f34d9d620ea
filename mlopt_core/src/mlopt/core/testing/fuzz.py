"""Fuzz tests of readers, in separate processes, so that an input at which a reader hangs or dies is found and named.

A reader may accept an input, or refuse it with an `MloptError` whose lines are printable and short. Everything else is
a fault: another exception, a warning, a message of several lines, a hang, or the death of the process.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlopt.core.errors import ConfigError, MloptError
from mlopt.core.quoting import one_line

#: characters of one line of a message beyond which it counts as a fault
LONGEST = 1000

#: tries the input of an index: returns if it is accepted, raises otherwise
Attempt = Callable[[int], None]


@dataclass
class Tally:
    """The outcome of the inputs. ``faults``: (index, what happened), the first of them only."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    foreign: int = 0
    unreadable: int = 0
    hangs: int = 0
    died: int = 0
    longest: int = 0
    grown: int = 0  # MiB of memory at the worst
    faults: list[tuple[int, str]] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.foreign or self.unreadable or self.hangs or self.died)

    def add(self, other: Tally) -> None:
        for name in ("inputs", "accepted", "refused", "foreign", "unreadable", "hangs", "died"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest, self.grown = max(self.longest, other.longest), max(self.grown, other.grown)
        self.faults += other.faults

    def fault(self, name: str, index: int, what: str) -> None:
        setattr(self, name, getattr(self, name) + 1)
        self.faults.append((index, f"{name}: {what}"))


def try_inputs(
    attempt: Attempt, indices: Sequence[int], told: Callable[[int], None] = lambda _: None
) -> Tally:
    """Try inputs in this process; ``told`` is called with each index before it is tried."""
    tally = Tally()
    before = _memory()
    for index in indices:
        told(index)
        tally.inputs += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                attempt(index)
            tally.accepted += 1
        except MloptError as error:
            tally.refused += 1
            _judge(tally, index, error)
        except (Exception, SystemExit) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {one_line(error, 150)}"
            tally.fault("foreign", index, f"{what} ({place.filename}:{place.lineno})")
    tally.grown = max(0, _memory() - before)
    return tally


def fuzz(attempt: Attempt, count: int, *, processes: int = 2, limit: float = 20.0, first: int = 0) -> Tally:
    """Try ``count`` inputs from ``first`` on, in forks; an input of more than ``limit`` seconds counts as a hang."""
    context = multiprocessing.get_context("fork")
    tally = Tally()
    shares = [list(range(first + rank, first + count, processes)) for rank in range(processes)]
    running = [_Worker(context, attempt, share) for share in shares if share]
    while running:
        time.sleep(0.05)
        for worker in list(running):
            ended = worker.ended(tally, limit)
            if ended is not None:
                running.remove(worker)
                if ended:
                    running.append(_Worker(context, attempt, ended))
    tally.faults.sort()
    return tally


class _Worker:
    """A process with its share of inputs; if it hangs or dies, only the counts of its finished inputs are lost."""

    def __init__(self, context: Any, attempt: Attempt, share: list[int]) -> None:
        self.share = share
        self.current = context.Value("q", share[0], lock=False)
        self.since = context.Value("d", time.monotonic(), lock=False)
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=self._work, args=(attempt, sender))
        self.process.start()
        sender.close()

    def _work(self, attempt: Attempt, sender: Any) -> None:
        def told(index: int) -> None:
            self.current.value, self.since.value = index, time.monotonic()

        for start in range(0, len(self.share), 20):  # in pieces, so that little is counted anew after a hang
            sender.send(try_inputs(attempt, self.share[start : start + 20], told))

    def ended(self, tally: Tally, limit: float) -> list[int] | None:
        """Return None while the process works, then the inputs that are left."""
        alive = self.process.is_alive()
        while self.receiver.poll():
            try:
                piece = self.receiver.recv()
            except EOFError:
                break
            tally.add(piece)
            self.share = self.share[piece.inputs :]
        if not self.share:
            self.process.join()
            return []
        hung = alive and time.monotonic() - self.since.value > limit
        if alive and not hung:
            return None
        index = int(self.current.value)
        if hung:
            self.process.kill()
        self.process.join()
        what = f"more than {limit:g} s" if hung else f"exit code {self.process.exitcode}"
        tally.fault("hangs" if hung else "died", index, what)
        tally.inputs += 1
        return [one for one in self.share if one != index]


def _judge(tally: Tally, index: int, error: MloptError) -> None:
    lines = str(error).split("\n")
    tally.longest = max(tally.longest, *map(len, lines))
    if not isinstance(error, ConfigError) and len(lines) > 1:
        tally.fault("unreadable", index, f"{len(lines)} lines: {lines[0][:150]}")
    elif max(map(len, lines)) > LONGEST:
        tally.fault("unreadable", index, f"{max(map(len, lines))} characters: {max(lines, key=len)[:150]}")
    elif not all(line.isprintable() for line in lines):
        tally.fault("unreadable", index, f"control characters: {ascii(str(error))[:150]}")


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
