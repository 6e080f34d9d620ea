"""Run directories, and processes that hold them, for the tests of directories and of their lock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIG = "experiment: search\nseed: 0\nbudget:\n  force_calls: 1000\n"

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

#: a program that holds a run directory once it is told to, until it is told again
HOLD = """
import sys, time
from mlopt.core.errors import RunDirectoryError
from mlopt.core.runs.directory import RunDirectory
run = RunDirectory.open(sys.argv[1])
sys.stdin.readline()
try:
    with run.lock():
        run.write_status("running", "step 3", {"step": 3})
        print("held", flush=True)
        {inside}
        sys.stdin.readline()
except RunDirectoryError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


def start(path: Path, inside: str = "", script: str = HOLD) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script.replace("{inside}", inside), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@contextmanager
def held(path: Path, inside: str = "") -> Iterator[subprocess.Popen[str]]:
    process = start(path, inside)
    try:
        tell(process)
        assert hear(process) == "held"
        yield process
    finally:
        end(process)
