"""Tests that kill a run at random instants, resume it to its end, and compare the results."""

from __future__ import annotations

import math
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path


def kill_and_resume(work: Callable[[], int], *, delays: list[float]) -> tuple[int, int]:
    """Run ``work`` in child processes until one ends by itself; kill the first ones.

    Return the number of children that were really killed, and the exit status of the last.

    work: a function that starts or resumes the run and returns an exit status, 0 when the run is done. It runs in a
        fork of this process, so that imports are made once. This process must therefore not have used torch with
        several threads before.
    delays: seconds after which the first, second, ... child gets SIGKILL; later ones are not killed.
    """
    killed = 0
    for delay in [*delays, None]:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = work()
            finally:
                os._exit(status)
        deadline = None if delay is None else time.monotonic() + delay
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            if deadline is not None and time.monotonic() >= deadline:
                os.kill(child, signal.SIGKILL)
                deadline = None
            time.sleep(0.001)
        if os.WIFSIGNALED(status):
            killed += 1
            continue
        return killed, os.waitstatus_to_exitcode(status)
    raise AssertionError("the last child is never killed, so it cannot have died by a signal of ours")


def check_kills(
    start_or_resume: Callable[[Path], int],
    results: Callable[[Path], bytes],
    folder: Path,
    *,
    kills: int,
    seed: int = 0,
    minutes: float = math.inf,
) -> dict[str, int]:
    """Compare killed and resumed runs with an undisturbed one.

    Return ``{"runs", "killed", "different"}``: runs made, children killed, and runs with another result or exit status.

    start_or_resume: a function of a path that starts or resumes a run there, and returns 0 when it is done.
    results: a function that returns, as bytes, the part of a finished run that must be the same. It raises OSError if
        that part is missing.
    kills: number of runs to kill, each once. The instants are spread evenly over the shortest duration of an
        undisturbed run so far. A run that ends before its instant is compared too, and replaced by another.
    minutes: time after which no further run begins, so that fewer are killed.

    Raises:
        AssertionError: most runs end before they can be killed; an undisturbed one fails, or differs from another.
        OSError: an undisturbed run lacks a result.
    """
    ends = time.monotonic() + 60.0 * minutes
    for name in ("first", "whole"):  # the first run fills caches, which shortens later ones
        began = time.monotonic()
        _, status = kill_and_resume(partial(start_or_resume, folder / name), delays=[])
        if status != 0:
            raise AssertionError(f"a run that was left alone ended with exit status {status}")
        lasted = time.monotonic() - began
    expected = results(folder / "whole")
    if results(folder / "first") != expected:
        raise AssertionError("two runs that were left alone have other results")
    draw = random.Random(seed)
    runs = killed = different = 0
    while killed < kills and time.monotonic() < ends:
        if runs == 10 * kills:
            raise AssertionError(f"only {killed} of {runs} runs could be killed; make the run longer")
        path = folder / f"killed-{runs}"
        began = time.monotonic()
        count, status = kill_and_resume(partial(start_or_resume, path), delays=[draw.uniform(0, lasted)])
        if not count:  # the undisturbed run was slowed down by something else
            lasted = min(lasted, time.monotonic() - began)
        runs, killed = runs + 1, killed + count
        different += status != 0 or not _is(expected, results, path)
    return {"runs": runs, "killed": killed, "different": different}


def _is(expected: bytes, results: Callable[[Path], bytes], path: Path) -> bool:
    try:
        return results(path) == expected
    except OSError:
        return False
