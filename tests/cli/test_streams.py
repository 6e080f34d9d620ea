"""Standard streams that are closed, full, or that nobody reads: no fault of mlopt, and a run goes on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlopt.cli.run.options import finish
from mlopt.cli.run.runner import Ending
from mlopt.core.runs.directory import RunDirectory
from mlopt.core.runs.preemption import ExitCode

MLOPT = f"{sys.executable} -m mlopt.cli"


@pytest.fixture
def shell(here):
    """Run a line of a shell in which $MLOPT is the command."""

    def run(line: str) -> subprocess.CompletedProcess[str]:
        script = line.replace("$MLOPT", MLOPT)
        return subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, timeout=120, check=False
        )

    return run


SEARCH = """
experiment: search
system: {cluster: Ar3}
potential: lennard-jones
optimizer: fire
starts: 1
budget: {force_calls: 3}
engine: eager
"""


def test_a_run_without_standard_streams(shell, here):
    (here / "mine.yaml").write_text(SEARCH)
    assert shell("$MLOPT run mine.yaml --out x 0<&- 1>&- 2>&-").returncode == 0
    assert RunDirectory.open(here / "x").read_status().state == "finished"
    assert "mlopt" not in (here / "x" / "metrics.jsonl").read_text()


def test_a_run_whose_messages_nobody_can_read(shell, here):
    (here / "mine.yaml").write_text(SEARCH)
    done = shell("$MLOPT run mine.yaml --out x --json 2> /dev/full")
    assert done.returncode == 0 and '"status": "finished"' in done.stdout


def test_a_full_standard_output(shell):
    done = shell("$MLOPT list --json > /dev/full")
    assert done.returncode == 1
    assert done.stderr == (
        "mlopt: standard output cannot be written to (No space left on device); what was to go there is lost\n"
    )
    done = shell("$MLOPT status nowhere --json > /dev/full")
    assert done.returncode == 2 and done.stderr.count("mlopt:") == 1 and "Traceback" not in done.stderr


def test_a_reader_that_has_left(shell):
    done = shell("$MLOPT list | true; exit ${PIPESTATUS[0]}")
    assert done.stderr == "" and done.returncode in (0, 1)


@pytest.mark.parametrize(
    ("terminal", "as_json", "linked"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_terminal_is_told_last_what_to_open(here, monkeypatch, capsys, terminal, as_json, linked):
    """As a link, on one line: terminals open it at a click."""
    report = here / "a run" / "report.html"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    for code in (ExitCode.OK, ExitCode.NOT_CONVERGED):
        assert finish(Ending(code, "said", {"report": str(report), "total": 1}), as_json=as_json) == code
        last = capsys.readouterr().out.splitlines()[-1]
        assert (last == f"open file://{here}/a%20run/report.html") == linked
    finish(Ending(ExitCode.OK, "", {"report": None}), as_json=as_json)
    assert "file:" not in capsys.readouterr().out
