"""OVF and npy as they come from elsewhere: comments, byte order marks, and messages of one line."""

from __future__ import annotations

import codecs
import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mlopt.core.errors import InputError
from mlopt.potentials.spins import SpinLattice, read_ovf, read_spins

PAIR = SpinLattice(kind="chain", repeat=2)
TEXT = """# OOMMF OVF 2.0   ## written by hand
# Segment count: 1  ## only one
# Begin: Segment ## the first
# Begin: Header
# Title: m ## not its name
# meshtype: rectangular ## a grid
# xnodes: 2 ## along x
# ynodes: 1
# znodes: 1
# valuedim: 3
# End: Header
# Begin: Data Text ## numbers
0 0 1 ## up
# a line of words
0 1 0 # across
# End: Data Text
# End: Segment
"""


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("m ## not", "m \u2028 \x1b[2J ## Å").encode("latin-1", "replace"),
    ],
)
def test_comments_and_marks(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.ovf").write_bytes(content)
    (segment,) = read_ovf(tmp_path / "m.ovf")
    assert segment.values.tolist() == [[0, 0, 1], [0, 1, 0]] and segment.nodes == (2, 1, 1)
    assert "##" not in "".join(segment.header.values()) and segment.header["title"].startswith("m")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("rectangular ##", "round\n# meshtype: \x1b[2Jsquare ##", r"should be rectangular or irregular"),
        ("# ynodes: 1", "# ynodes: 1\n# ynodes: 2", r"'# ynodes: 1 2' should be a whole number above zero"),
        ("# valuedim: 3", "# valuedim: " + "9" * 5000, r"should be a whole number above zero"),
        ("Data Text ##", "Data " + "x" * 5000 + "\x00 ##", r"is unknown; mlopt reads Text, Binary 4"),
        ("0 1 0 #", "0 " + "x" * 5000 + "\x1b[2J 0 #", r"number 1 of node 1 \(counted from 0\) is 'xxx"),
        ("# End: Header", "\x1b[2Jnot a comment" + "x" * 5000, r"should stand where there is '\\x1b\[2Jnot"),
        ("count: 1", "count: " + "1" * 5000, r"declares 111.*segments, but has 1"),
    ],
)
def test_messages_are_one_short_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TEXT
    (tmp_path / "m.ovf").write_text(TEXT.replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        read_ovf(tmp_path / "m.ovf")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_text_in_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.ovf").write_bytes(TEXT.encode("utf-16"))
    with pytest.raises(InputError, match=r"is text in UTF-16, .* Save it as UTF-8"):
        read_ovf(tmp_path / "m.ovf")


def test_npy_files_that_are_no_arrays(tmp_path: Path) -> None:
    def saved(array: object) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        return buffer.getvalue()

    sound = saved(np.eye(3)[:2])
    zipped = io.BytesIO()
    np.savez(zipped, a=np.eye(3)[:2])
    (tmp_path / "a.npy").write_bytes(sound)
    assert read_spins(tmp_path / "a.npy", PAIR).shape == (1, 2, 3)
    for content in (
        zipped.getvalue(),
        saved(np.array([{"a": 1}], dtype=object)),
        sound[:-1],
        sound.replace(b"(2, 3)", b"(2, 3 "),
        sound.replace(b"(2, 3), }", b"(8589934592, 3), }")[:-9] + b" " * 9,
        sound.replace(b"'<f8'", b"'|O8'"),
        b"\x93NUMPY",
        b"",
    ):
        (tmp_path / "a.npy").write_bytes(content)
        tracemalloc.start()
        with pytest.raises(InputError, match=r"a\.npy: not an npy file of numbers, or damaged: ") as caught:
            read_spins(tmp_path / "a.npy", PAIR)
        assert tracemalloc.get_traced_memory()[1] < 5e6
        tracemalloc.stop()
        assert str(caught.value).isprintable()
