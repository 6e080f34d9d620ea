"""Files are written whole or not at all, and what goes wrong is said with its remedy."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlopt.core.errors import InputError, MloptError
from mlopt.core.files import atomic


def run_python(code: str, *args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def test_write_replaces_the_file_and_respects_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    atomic.write_json(path, {"a": [1, None, "Å"]})
    assert json.loads(path.read_text()) == {"a": [1, None, "Å"]}
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("bad", [object(), math.nan, {"a": {1, 2}}, {(1, 2): 3}])
def test_data_that_is_not_json_leaves_the_file_as_it_was(bad: object, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(InputError, match=r"a\.json: this is not JSON data"):
        atomic.write_json(path, bad)
    assert path.read_text() == "old"


def test_write_errors_name_the_path_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(MloptError, match=r"gone/a: could not write 1 bytes: No such file .*--out"):
        atomic.write_bytes(tmp_path / "gone" / "a", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MloptError, match="a folder has that name"):
        atomic.write_bytes(tmp_path / "folder", b"x")
    assert os.listdir(tmp_path) == ["folder"]


def test_append_line_appends_and_never_leaves_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = (
        "import resource, sys; from mlopt.core.files import atomic\n"
        "atomic.append_line(sys.argv[1], 'one'); atomic.append_line(sys.argv[1], 'two')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))\n"
        "try: atomic.append_line(sys.argv[1], 'x' * 100)\n"
        "except atomic.MloptError as error: print(error)"
    )
    done = run_python(code, path)
    assert "log: could not write 101 bytes" in done.stdout, done.stderr
    assert path.read_text() == "one\ntwo\n"
    with pytest.raises(InputError, match="has several"):
        atomic.append_line(path, "a\nb")
    assert path.read_text() == "one\ntwo\n"


def test_append_line_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "log").symlink_to(tmp_path / "target")
    with pytest.raises(MloptError, match="symbolic link"):
        atomic.append_line(tmp_path / "log", "x")
    assert (tmp_path / "target").read_text() == "mine"
