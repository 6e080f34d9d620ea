"""Signals set a flag, and everything is as before afterwards."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading

import pytest

from mlopt.core.errors import InputError
from mlopt.core.runs.preemption import CheckpointClock, ExitCode, Preemption

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGUSR2, 75), (signal.SIGINT, 130)],
)
def test_a_signal_sets_the_flag_and_nothing_else(number: signal.Signals, code: int) -> None:
    with Preemption() as preemption:
        assert (preemption.requested, preemption.exit_code) == (None, 0)
        signal.raise_signal(number)
        assert (preemption.requested, preemption.exit_code) == (number.name, code)


def test_the_first_signal_is_the_reason() -> None:
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGINT)  # the first Ctrl-C, so no KeyboardInterrupt
        assert preemption.requested == "SIGTERM"


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    before = handlers()
    with pytest.raises(KeyboardInterrupt), Preemption() as preemption:
        signal.raise_signal(signal.SIGINT)
        assert preemption.requested == "SIGINT"
        signal.raise_signal(signal.SIGINT)
    assert handlers() == before


def test_the_former_handlers_return_even_after_an_error() -> None:
    former = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    try:
        before = handlers()
        with pytest.raises(ZeroDivisionError), Preemption():
            assert all(now != then for now, then in zip(handlers(), before, strict=True))
            raise ZeroDivisionError
        assert handlers() == before
        with Preemption(), Preemption():
            pass
        assert handlers() == before
    finally:
        signal.signal(signal.SIGUSR2, former)


def test_an_object_can_be_used_again() -> None:
    preemption = Preemption()
    for _ in range(2):
        with preemption:
            assert preemption.requested is None
            signal.raise_signal(signal.SIGINT)
        assert preemption.requested == "SIGINT"


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            signal.raise_signal(signal.SIGINT)
            assert preemption.requested is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)


def test_another_thread_gets_a_no_op() -> None:
    before = handlers()
    seen: list[object] = []

    def work() -> None:
        with Preemption() as preemption:
            seen.extend([preemption.requested, handlers() == before])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, True]


def test_a_forked_worker_still_dies_of_sigterm() -> None:
    code = (
        "import os, signal, time\n"
        "from mlopt.core.runs.preemption import Preemption\n"
        "with Preemption() as preemption:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(5)\n"
        "        os._exit(0)\n"
        "    _, status = os.waitpid(child, 0)\n"
        "    print(os.waitstatus_to_exitcode(status), preemption.requested)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, env=environment
    )
    assert done.stdout == f"{-signal.SIGTERM} None\n", done.stderr


def test_a_real_sigterm_lets_the_step_end_and_gives_exit_code_75() -> None:
    code = (
        "import sys, time\n"
        "from mlopt.core.runs.preemption import Preemption\n"
        "with Preemption() as preemption:\n"
        "    print('ready', flush=True)\n"
        "    while preemption.requested is None:\n"
        "        time.sleep(0.01)\n"
        "    print('saved', flush=True)\n"
        "sys.exit(preemption.exit_code)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "saved\n"
        assert process.wait(10) == 75


def test_exit_codes_are_the_documented_numbers() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0, "FAILED": 1, "USAGE": 2, "NOT_CONVERGED": 3, "PREEMPTED": 75, "INTERRUPTED": 130,
    }  # fmt: skip


def test_the_clock_says_due_once_per_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("mlopt.core.runs.preemption.time.monotonic", lambda: now)
    clock = CheckpointClock(10.0)
    answers = []
    for now in (1000.0, 1009.9, 1010.0, 1010.1, 1019.9, 1020.0, 1099.0, 1100.0):  # noqa: B007
        answers.append(clock.due())
    assert answers == [False, False, True, False, False, True, True, False]


def test_the_clock_at_its_limits() -> None:
    always, never = CheckpointClock(0), CheckpointClock(math.inf)
    assert [always.due(), always.due()] == [True, True]
    assert not never.due()
    for bad in (-1.0, math.nan):
        with pytest.raises(InputError, match=r"every_seconds=.*at least 0"):
            CheckpointClock(bad)
