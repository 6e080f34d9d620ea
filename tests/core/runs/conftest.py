"""The run directory that the tests of directories share."""

from __future__ import annotations

from pathlib import Path

import pytest
from held_directories import CONFIG

from mlopt.core.runs.directory import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs" / "lj38", config_resolved=CONFIG, config_input="# mine\n")
