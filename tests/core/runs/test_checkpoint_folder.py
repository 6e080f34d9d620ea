"""A folder of checkpoints: the newest sound one is found, spares are kept, and nothing else is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mlopt.core.errors import CheckpointError
from mlopt.core.runs import checkpoint
from mlopt.core.runs.checkpoint import Checkpoint


def small() -> Checkpoint:
    return Checkpoint({"x": torch.arange(6, dtype=torch.float64).reshape(2, 3)}, {"step": 7, "energy": -0.1})


def test_save_then_load_and_newest_first(tmp_path: Path) -> None:
    for step in (5, 10**13, 40):
        path = checkpoint.save(tmp_path, step, Checkpoint({}, {"step": step}), keep=9)
        assert checkpoint.load(path).meta == {"step": step}
    assert [p.name for p in checkpoint.paths(tmp_path)] == [
        "step-10000000000000.ckpt", "step-000000000040.ckpt", "step-000000000005.ckpt",
    ]  # fmt: skip


def test_an_empty_or_missing_folder_has_no_newest(tmp_path: Path) -> None:
    assert checkpoint.newest_sound(tmp_path) is None
    assert checkpoint.newest_sound(tmp_path / "missing") is None


def test_newest_sound_falls_back_and_says_what_it_skipped(tmp_path: Path) -> None:
    saved = [checkpoint.save(tmp_path, step, Checkpoint({}, {"step": step}), keep=9) for step in (1, 2, 3)]
    saved[2].write_bytes(saved[2].read_bytes()[:-5])
    data = bytearray(saved[1].read_bytes())
    data[-1] ^= 4
    saved[1].write_bytes(data)
    found = checkpoint.newest_sound(tmp_path)
    assert found is not None
    path, loaded, skipped = found
    assert path == saved[0]
    assert loaded.meta == {"step": 1}
    assert [("truncated" in line, "altered" in line) for line in skipped] == [(True, False), (False, True)]
    saved[0].write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of the 3 checkpoints can be used") as caught:
        checkpoint.newest_sound(tmp_path)
    assert all(str(path) in str(caught.value) for path in saved)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_pruning_keeps_that_many(keep: int, tmp_path: Path) -> None:
    for step in range(6):
        checkpoint.save(tmp_path, step, small(), keep=keep)
        assert len(checkpoint.paths(tmp_path)) == min(step + 1, keep)


def test_pruning_counts_only_sound_ones(tmp_path: Path) -> None:
    oldest, middle, newest = (checkpoint.save(tmp_path, step, small(), keep=3) for step in (1, 2, 3))
    for path in (middle, newest):
        path.write_bytes(path.read_bytes()[:-1])
    fourth = checkpoint.save(tmp_path, 4, small(), keep=2)
    # With the damaged ones counted, `oldest` would be gone and a fault in `fourth` would lose the run.
    assert checkpoint.paths(tmp_path) == [fourth, newest, middle, oldest]
    fifth = checkpoint.save(tmp_path, 5, small(), keep=2)
    assert checkpoint.paths(tmp_path) == [fifth, fourth]


def test_a_resumed_run_keeps_spares_below_a_damaged_newer_one(tmp_path: Path) -> None:
    early = checkpoint.save(tmp_path, 50, small())
    damaged = checkpoint.save(tmp_path, 100, small())
    damaged.write_bytes(b"")
    again = checkpoint.save(tmp_path, 60, small())
    assert checkpoint.paths(tmp_path) == [damaged, again, early]


def test_other_files_are_left_alone_and_leftovers_of_dead_processes_go(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    other = tmp_path / "step-1.ckpt.bak"
    mine = tmp_path / f".step-000000000002.ckpt.{os.getpid()}-0123abcd.mlopt-tmp"
    left = tmp_path / f".step-000000000001.ckpt.{dead.pid}-0123abcd.mlopt-tmp"
    for path in (other, mine, left):
        path.write_text("x")
    for step in range(4):
        checkpoint.save(tmp_path, step, small(), keep=1)
    assert other.exists()
    assert mine.exists()
    assert not left.exists()
