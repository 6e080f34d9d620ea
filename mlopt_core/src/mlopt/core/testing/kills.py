"""Kill a run at random instants, resume it until it is done, and see whether anything came out differently."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path


def kill_and_resume(work: Callable[[], int], *, delays: list[float]) -> tuple[int, int]:
    """Run ``work`` in child processes until one ends by itself, killing the first ones.

    work: starts or resumes the run and returns an exit status, 0 when it is done. It runs in a fork of this process
        (imports are paid once), so this process must not have used torch with several threads before.
    delays: seconds after which the first, second, ... child gets SIGKILL; later ones are left alone.

    Returns the number of children that were really killed, and the exit status of the last.
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
    runs: int,
    kills_per_run: int = 1,
    seed: int = 0,
) -> dict[str, int]:
    """Compare killed and resumed runs with one that was left alone.

    start_or_resume: given a path, starts a run there or resumes the one that is there; returns 0 when it is done.
    results: what of a finished run must be the same, as bytes.
    runs: how many runs to kill, each ``kills_per_run`` times at instants drawn evenly over an undisturbed run.

    Returns ``{"runs", "killed", "different"}``: children killed, and runs with another result or exit status.
    """
    began = time.monotonic()
    kill_and_resume(lambda: start_or_resume(folder / "whole"), delays=[])
    lasted = time.monotonic() - began
    expected = results(folder / "whole")
    draw = random.Random(seed)
    killed = different = 0
    for index in range(runs):
        path = folder / f"killed-{index}"

        def work(path: Path = path) -> int:
            return start_or_resume(path)

        count, status = kill_and_resume(work, delays=[draw.uniform(0, lasted) for _ in range(kills_per_run)])
        killed += count
        different += status != 0 or results(path) != expected
    return {"runs": runs, "killed": killed, "different": different}
