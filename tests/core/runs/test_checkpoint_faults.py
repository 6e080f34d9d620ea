"""Folders of checkpoints in which something is not as it should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlopt.core.errors import CheckpointError
from mlopt.core.runs import checkpoint
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.directory import RunDirectory


def test_what_was_just_written_stays_even_below_newer_numbers(tmp_path: Path) -> None:
    for step in (50, 60, 70):
        checkpoint.save(tmp_path, step, Checkpoint({}, {}))
    written = checkpoint.save(tmp_path, 10, Checkpoint({}, {}))
    assert written.exists()
    assert [path.name for path in checkpoint.paths(tmp_path)] == [
        "step-000000000070.ckpt",
        "step-000000000060.ckpt",
        "step-000000000010.ckpt",
    ]


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_something_else_under_the_name_of_a_checkpoint(tmp_path: Path, kind: str) -> None:
    """Opening a pipe would wait for a writer for ever."""
    checkpoint.save(tmp_path, 1, Checkpoint({}, {"step": 1}))
    newest = tmp_path / "step-000000000002.ckpt"
    newest.mkdir() if kind == "folder" else os.mkfifo(newest)
    words = "it is a folder, not a file" if kind == "folder" else "it is a pipe or a device, not a file"
    with pytest.raises(CheckpointError, match=f"{newest}: cannot read this checkpoint: {words}"):
        checkpoint.load(newest)
    found = checkpoint.newest_sound(tmp_path)
    assert found is not None and found[1].meta == {"step": 1} and words in found[2][0]
    checkpoint.save(tmp_path, 3, Checkpoint({}, {"step": 3}))
    assert {path.name[-6] for path in checkpoint.paths(tmp_path)} == {"1", "2", "3"}


def test_the_advice_for_no_sound_checkpoint_does_not_go_in_circles(tmp_path: Path) -> None:
    for step in (1, 2):
        path = checkpoint.save(tmp_path, step, Checkpoint({}, {}))
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints can be used") as caught:
        checkpoint.newest_sound(tmp_path)
    told = str(caught.value)
    assert "Use an older checkpoint" not in told and told.count("truncated") == 2
    assert "Restore one from a backup. Without one, move them all out of the folder" in told


def test_leftovers_are_swept_when_a_run_is_taken_up(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", config_resolved="experiment: x\n")
    folder = run.root / "results" / "01-fire-on-Ar7"
    folder.mkdir()
    dead = 2**22 + 1  # more than any process number
    kept = folder / ".notes.mlopt-tmp"
    kept.write_text("not of mlopt")
    for place in (run.root, run.root / "results", folder, run.root / "checkpoints"):
        (place / f".starts.json.{dead}-0123abcd.mlopt-tmp").write_text("half")
    with run.lock():
        pass
    assert list(run.root.rglob(".*.mlopt-tmp")) == [kept]
