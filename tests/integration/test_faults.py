"""Some faults of benchmarks/faults.py: a damaged run goes on to the same bytes, or is refused in one message."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlopt.cli.testing.damaged import Bench, Command, Ended, wrong
from mlopt.cli.testing.faults import faults

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    return Bench(tmp_path_factory.mktemp("bench"))


def test_quick_faults_are_held(bench: Bench) -> None:
    quick = [one for one in faults() if one.quick]
    assert len(quick) >= 5
    for one in quick:
        assert one.attempts(bench, 1, 0) == [""], one.name


@pytest.mark.slow
@pytest.mark.parametrize("name", [one.name for one in faults() if not one.quick])
def test_faults_are_held(bench: Bench, name: str) -> None:
    (fault,) = (one for one in faults() if one.name == name)
    told = fault.attempts(bench, 4, 1)
    assert len(told) >= 4 and not any(told)


@pytest.mark.parametrize(
    ("code", "err", "status", "found", "complaint"),
    [
        (0, "", "finished", b"right", ""),
        (1, "mlopt: it is damaged: restore it\n", "preempted", b"", ""),
        (1, "a line of the log\nmlopt: it is damaged:\n  restore it\n", "", b"", ""),
        (0, "", "finished", b"other", "finished with other results"),
        (1, "mlopt: no\n", "finished", b"right", "finished with exit code 1"),
        (0, "", "running", b"", "exit code 0, and STATUS is 'running'"),
        (1, "", "failed", b"", "0 messages"),
        (1, "mlopt: one\nmlopt: two\n", "failed", b"", "2 messages"),
        (1, "mlopt: one\nTraceback (most recent call last):\n", "failed", b"", "traceback"),
        (-11, "", "running", b"", "died by SIGSEGV"),
        (None, "", "running", b"", "hangs"),
    ],
)
def test_what_is_wrong(
    code: int | None, err: str, status: str, found: bytes, complaint: str, tmp_path: Path
) -> None:
    if status:
        (tmp_path / "STATUS.json").write_text(json.dumps({"state": status}))
    told = wrong(Ended(code, "", err), tmp_path, found, b"right")
    assert told.startswith(complaint) and bool(told) == bool(complaint)


def test_a_command_in_a_process_of_its_own(tmp_path: Path) -> None:
    ended = Command(["list", "nonsense"], tmp_path).wait()
    assert ended.code == 2 and ended.messages == 1 and ended.out == "" and "nonsense" in ended.err
    hung = Command(["--version"], tmp_path, lambda: time.sleep(1000)).wait(limit=0.1)
    assert hung.code is None
    assert Command(["--version"], tmp_path, lambda: os._exit(7)).wait().code == 7
