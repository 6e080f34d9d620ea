"""Files that grow with a run, and are cut back when it resumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlopt.core.errors import CheckpointError, MloptError
from mlopt.core.files.growing import GrowingFile


def test_a_resumed_file_has_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file = GrowingFile(path)
    assert path.read_bytes() == b""
    file.append("one\n")
    file.append("zwölf\n")
    file.sync()
    kept = file.length
    assert kept == path.stat().st_size == 11
    file.append("torn")
    again = GrowingFile(path, kept)
    assert path.read_text() == "one\nzwölf\n"
    again.append("three\n")
    assert path.read_text() == "one\nzwölf\nthree\n" and again.length == 17
    GrowingFile(path)
    assert path.read_bytes() == b"", "a run that begins anew begins its files anew"


def test_what_is_lost_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(
        CheckpointError, match=r"file: this file is missing, and had 1,234 when the checkpoint"
    ):
        GrowingFile(path, 1234)
    path.write_bytes(b"abc")
    with pytest.raises(
        CheckpointError, match=r"file: this file has 3 bytes, and had 4 when .* start the run anew"
    ):
        GrowingFile(path, 4)


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    file = GrowingFile(tmp_path / "file")
    (tmp_path / "file").unlink()
    tmp_path.rmdir()
    with pytest.raises(MloptError, match="the folder does not exist"):
        file.append("text")
    assert file.length == 0
