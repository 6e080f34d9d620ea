"""A plugin that ends the process: the command says so, and its exit code is that of a failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mlopt.cli.terminal.leaving import ProcessExit, held
from mlopt.core.runs.directory import RunDirectory


@pytest.fixture
def real(here, plugin_folder):
    """Runs ``mlopt`` in a process of its own, with the test plugins; gives what `subprocess.run` does."""
    (here / "mine.yaml").write_text("experiment: sines\nsteps: 6\n")

    paths = [str(plugin_folder), *filter(None, [os.environ.get("PYTHONPATH")])]

    def run(*args):
        line = [sys.executable, "-m", "mlopt.cli", *args]
        return subprocess.run(
            line,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_a_plugin_ends_the_process_of_a_run(real, here):
    done = real("run", "mine.yaml", "--out", "x", "-s", "trouble=end", "--checkpoint-every", "0", "--json")
    message = "the run failed: something in it called os._exit(0)"
    assert done.returncode == 1 and done.stderr.count(message) == 1, done.stderr
    assert json.loads(done.stdout)["status"] == "error" and "Traceback" not in done.stderr
    status = RunDirectory.open(here / "x").read_status()
    assert status.state == "failed" and message in status.message
    assert "in suffer" in (here / "x" / "log.txt").read_text(), "where it was called"
    assert real("resume", "x").returncode == 0


@pytest.mark.slow
def test_a_thread_ends_the_process_of_a_run(real, here):
    done = real("run", "mine.yaml", "--out", "x", "-s", "trouble=end-in-thread", "--quiet")
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("mlopt: "))
    assert (
        done.returncode == 1 and "a thread of a plugin, or of a library under it, called os._exit(0)" in line
    )
    assert "ended without a word" in real("status", "x").stdout
    again = real("resume", "x")
    assert again.returncode == 0 and "warning: process " in again.stderr
    assert "ended without a word" in (here / "x" / "log.txt").read_text()
    assert "without a word" not in real("status", "x").stdout


def test_a_plugin_ends_the_process_when_it_is_imported(real, here):
    done = real("run", "mine.yaml", "--out", "x", "-s", "experiment=gone")
    assert done.returncode == 2 and "os._exit(0) was called" in done.stderr and not (here / "x").exists()
    assert "mlopt-test-plugins" in done.stderr


@pytest.mark.slow
def test_children_end_as_ever(real, here):
    done = real("run", "mine.yaml", "--out", "x", "-s", "trouble=end-of-children", "--quiet")
    assert done.returncode == 0 and "7 3" in done.stderr + done.stdout, done.stderr


def test_only_within_a_command():
    original = os._exit
    with pytest.raises(SystemExit, match=r"os\._exit\(5\) was called") as caught, held():
        with held(), pytest.raises(ProcessExit):
            os._exit(4)
        os._exit(5)
    assert caught.value.code == 5 and os._exit is original
