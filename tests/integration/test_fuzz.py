"""A short run of the fuzzers: damaged files and configurations are read or refused, never more (benchmarks/fuzz.py)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mlopt.cli.testing.fuzzing import command_lines, configurations, structure_files
from mlopt.core.errors import InputError
from mlopt.core.testing.fuzz import fuzz, try_inputs


def test_damaged_structure_files(tmp_path: Path) -> None:
    told = try_inputs(structure_files(7, tmp_path), range(250))
    assert told.sound, told.faults
    assert told.inputs == 250 and told.accepted > 25 and told.refused > 125


def test_damaged_configurations(tmp_path: Path) -> None:
    told = try_inputs(configurations(7, tmp_path), range(40))
    assert told.sound, told.faults
    assert told.inputs == 40 and told.refused > 20
    told = try_inputs(command_lines(7), range(20))
    assert told.sound, told.faults


def test_the_harness_tells_faults_apart() -> None:
    def attempt(index: int) -> None:
        if index == 1:
            raise InputError("one line")
        if index == 2:
            raise KeyError("not ours")
        if index == 3:
            raise InputError("two\nlines")
        if index == 4:
            import os

            os._exit(9)
        if index == 5:
            time.sleep(60)
        if index == 6:
            import warnings

            warnings.warn("odd", RuntimeWarning, stacklevel=1)

    told = fuzz(attempt, 9, processes=2, limit=1.0)
    assert (told.inputs, told.accepted, told.refused) == (9, 3, 2)
    assert (told.foreign, told.unreadable, told.died, told.hangs) == (2, 1, 1, 1)
    assert [index for index, _ in told.faults] == [2, 3, 4, 5, 6]
    assert told.faults[2][1] == "died: exit code 9" and told.faults[3][1] == "hangs: more than 1 s"
    assert not told.sound


@pytest.mark.slow
def test_many_damaged_files(tmp_path: Path) -> None:
    told = fuzz(structure_files(11, tmp_path), 5000)
    assert told.sound, told.faults
