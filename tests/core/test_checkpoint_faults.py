"""Folders of checkpoints in which something is not as it should be."""

from __future__ import annotations

from pathlib import Path

from mlopt.core import checkpoint
from mlopt.core.checkpoint import Checkpoint


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
