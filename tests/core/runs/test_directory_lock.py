"""One process holds a run directory: it is let go by whatever ends the process, and found by whoever looks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from held_directories import CONFIG, ENVIRONMENT, end, hear, held, start, tell

from mlopt.core.errors import RunDirectoryError
from mlopt.core.files import atomic
from mlopt.core.runs.directory import RunDirectory

RACE = """
import sys
from mlopt.core.errors import RunDirectoryError
from mlopt.core.runs.directory import RunDirectory
run = RunDirectory.open(sys.argv[1])
print("ready", flush=True)
while sys.stdin.readline():
    try:
        with run.lock():
            print("held", flush=True)
            sys.stdin.readline()
        print("released", flush=True)
    except RunDirectoryError as error:
        print(error.exit_code, error, flush=True)
"""


CREATE = """
import sys
from mlopt.core.errors import RunDirectoryError
from mlopt.core.runs.directory import RunDirectory
print("ready", flush=True)
for number, _ in enumerate(sys.stdin):
    try:
        RunDirectory.create(f"{sys.argv[1]}/run-{number}", config_resolved={CONFIG!r})
        print("created", flush=True)
    except RunDirectoryError as error:
        print(error, flush=True)
""".replace("{CONFIG!r}", repr(CONFIG))


def test_of_two_processes_exactly_one_gets_the_lock(run: RunDirectory) -> None:
    racers = [start(run.root, script=RACE), start(run.root, script=RACE)]
    try:
        assert [hear(racer) for racer in racers] == ["ready", "ready"]
        for _ in range(20):
            for racer in racers:
                tell(racer)
            answers = [hear(racer) for racer in racers]
            assert answers.count("held") == 1, answers
            winner = racers[answers.index("held")]
            (refusal,) = [answer for answer in answers if answer != "held"]
            assert refusal.startswith(f"2 {run.root}: in use by process {winner.pid}@")
            assert " since 20" in refusal
            tell(winner)
            assert hear(winner) == "released"
    finally:
        for racer in racers:
            end(racer)


def test_of_two_processes_exactly_one_creates_a_path(tmp_path: Path) -> None:
    racers = [start(tmp_path, script=CREATE), start(tmp_path, script=CREATE)]
    try:
        assert [hear(racer) for racer in racers] == ["ready", "ready"]
        for number in range(20):
            for racer in racers:
                tell(racer)
            answers = [hear(racer) for racer in racers]
            assert answers.count("created") == 1, answers
            (refusal,) = [answer for answer in answers if answer != "created"]
            assert "already holds a run" in refusal or "in use by" in refusal
            assert RunDirectory.open(tmp_path / f"run-{number}").config_resolved == CONFIG
    finally:
        for racer in racers:
            end(racer)


def test_a_kill_frees_the_lock_and_reads_as_killed(run: RunDirectory) -> None:
    with held(run.root) as process:
        assert run.read_status().state == "running"
        with pytest.raises(RunDirectoryError, match=f"in use by process {process.pid}@"), run.lock():
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        status = run.read_status()
        assert (status.state, status.message, status.progress) == ("killed", "step 3", {"step": 3})
        assert status.pid == process.pid
        with run.lock():
            pass


def test_a_forked_worker_does_not_keep_the_lock_of_a_killed_parent(run: RunDirectory) -> None:
    inside = (
        "import os; child = os.fork()\n"
        "        if child == 0: time.sleep(30); os._exit(0)\n"
        "        print(child, flush=True)"
    )
    with held(run.root, inside) as process:
        worker = int(hear(process))
        try:
            with pytest.raises(RunDirectoryError, match="in use"), run.lock():
                pass
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert atomic.process_is_alive(worker)
            with run.lock():
                pass
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_worker_that_leaves_the_with_harms_neither_the_lock_nor_another_file(
    run: RunDirectory, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("content")
    inside = (
        "import os; child = os.fork()\n"
        f"        if child == 0: file = open({str(precious)!r}, 'r+'); sys.exit(0)\n"  # takes the lock's number
        "        os.waitpid(child, 0); print('waited', flush=True)"
    )
    with held(run.root, inside) as process:
        assert hear(process) == "waited"
        assert precious.read_text() == "content"
        with pytest.raises(RunDirectoryError, match=f"in use by process {process.pid}@"), run.lock():
            pass


def test_the_lock_can_be_taken_again_after_success_and_after_an_error(run: RunDirectory) -> None:
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), run.lock():
            with pytest.raises(RunDirectoryError, match=f"in use by process {os.getpid()}@"), run.lock():
                pass
            raise ZeroDivisionError
    assert (run.root / "lock").read_bytes() == b""


def test_reading_the_status_never_spoils_a_lock(run: RunDirectory) -> None:
    code = (
        "import sys; from mlopt.core.runs.directory import RunDirectory\n"
        "run = RunDirectory.open(sys.argv[1]); print('ready', flush=True)\n"
        "while True: run.read_status()"
    )
    command = [sys.executable, "-c", code, str(run.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as reader:
        try:
            assert hear(reader) == "ready"
            for _ in range(200):
                with run.lock():
                    pass
        finally:
            reader.kill()


def test_the_lock_sweeps_up_after_dead_processes(run: RunDirectory) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leftover = run.root / f".STATUS.json.{dead.pid}-00000000.mlopt-tmp"
    leftover.write_text("{")
    with run.lock():
        assert not leftover.exists()
