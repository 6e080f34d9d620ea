"""OVF 2.0 and npy: what is written comes back, bytes of other programs are read, and broken files are told apart."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlopt.core.errors import InputError, MloptError
from mlopt.potentials.spins import RandomSpins, SpinLattice, read_ovf, read_spins, write_ovf, write_spins

LATTICE = SpinLattice(kind="cubic", repeat=[3, 2, 2], vacant=[4])
CHAIN = torch.stack([RandomSpins(seed=seed).spins(LATTICE) for seed in range(3)])

HEADER = """# OOMMF OVF 2.0
#
# Segment count: 1
## a comment, with: a colon
# Begin: Segment
# Begin: Header
# Title: m
# Desc: Time:  0 s
# Desc: Stage: 1
# meshtype: rectangular
# meshunit: m
# xmin: 0
# x nodes: 2
# YNODES: 1
# znodes: 1
# valuedim: 3
# valuelabels: m_x m_y m_z
# valueunits: 1 1 1
# End: Header
"""
NUMBERS = [0.0, 0.0, 1.0, -1.0, 0.5, 0.0]
PAIR = SpinLattice(kind="chain", repeat=2)


def text(numbers: str = "0 0 1\n-1 0.5 0\n", kind: str = "Text") -> bytes:
    return (HEADER + f"# Begin: Data {kind}\n{numbers}# End: Data {kind}\n# End: Segment\n").encode()


def binary(size: int, end: str = "\n", big: bool = False, numbers: list[float] = NUMBERS) -> bytes:
    check = 1234567.0 if size == 4 else 123456789012345.0
    code = (">" if big else "<") + ("f" if size == 4 else "d") * (len(numbers) + 1)
    data = struct.pack(code, check, *numbers)
    head = HEADER + f"# Begin: Data Binary {size}\n"
    return head.encode() + data + f"{end}# End: Data Binary {size}\n# End: Segment\n".encode()


@pytest.mark.parametrize(
    "content",
    [
        text(),
        text("  0\t0 1e0   -1 5e-1 0\n## between\n"),
        text("0, 0, 1,\n-1, 0.5, 0,\n", "CSV"),
        text().replace(b"\n", b"\r\n"),
        text().replace(b"OVF 2.0", b"OVF 2.0   ").replace(b"# Begin: Data Text", b"# begin:  DATA  text"),
        text().replace(b"OOMMF OVF 2.0", b"OOMMF: rectangular mesh v2.0"),
        text().replace(b"# Segment count: 1\n", b""),
        text().replace(b"count: 1", b"count: 000001"),
        text().removesuffix(b"# End: Segment\n"),
        binary(4),
        binary(8),
        binary(8, end=""),
        binary(8).removesuffix(b"\n# End: Segment\n"),
    ],
)
def test_bytes_of_other_programs(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "m.ovf"
    file.write_bytes(content)
    (segment,) = read_ovf(file)
    assert segment.values.tolist() == [NUMBERS[:3], NUMBERS[3:]] and segment.nodes == (2, 1, 1)
    assert segment.header["desc"].split("\n") == ["Time:  0 s", "Stage: 1"]
    spins = read_spins(file, PAIR)
    assert spins.shape == (1, 2, 3) and spins[0, 0].tolist() == [0, 0, 1]
    assert spins[0, 1].tolist() == pytest.approx([-1 / 1.25**0.5, 0.5 / 1.25**0.5, 0])


def test_irregular_meshes(tmp_path: Path) -> None:
    head = HEADER.replace("rectangular", "irregular").replace("# x nodes: 2", "# pointcount: 2")
    data = "# Begin: Data Text\n0 0 0 0 0 1\n1 0 0 -1 0.5 0\n# End: Data Text\n"
    (tmp_path / "m.ovf").write_text(head + data)
    (segment,) = read_ovf(tmp_path / "m.ovf")
    assert segment.nodes is None and segment.values.tolist() == [NUMBERS[:3], NUMBERS[3:]]
    assert read_spins(tmp_path / "m.ovf", PAIR)[0, 0].tolist() == [0, 0, 1]


@pytest.mark.parametrize("kind, error", [("text", 0.0), ("binary 8", 0.0), ("binary 4", 1e-7)])
def test_round_trips(tmp_path: Path, kind: Any, error: float) -> None:
    file = tmp_path / "chain.omf"
    values = [np.random.default_rng(seed).normal(size=(12, 3)) * 1e5**seed for seed in range(3)]
    write_ovf(file, values, (3, 2, 2), kind=kind, titles=["first", "second\nline"])
    found = read_ovf(file)
    assert [one.header["title"] for one in found] == ["first", "second line", "segment 2"]
    for one, expected in zip(found, values, strict=True):
        assert one.nodes == (3, 2, 2)
        np.testing.assert_allclose(one.values, expected, rtol=error, atol=0)
    # spins are normalised again, which may turn their last bit
    write_spins(file, CHAIN, LATTICE, kind=kind)
    torch.testing.assert_close(read_spins(file, LATTICE), CHAIN, rtol=0, atol=max(2e-16, error))
    assert read_ovf(file)[0].values[4].tolist() == [0, 0, 0]  # the vacant site
    write_spins(file, CHAIN[1], LATTICE, kind=kind)
    assert read_spins(file, LATTICE, dtype=torch.float32).shape == (1, 11, 3)


def test_npy(tmp_path: Path) -> None:
    write_spins(tmp_path / "a.npy", CHAIN, LATTICE)
    torch.testing.assert_close(read_spins(tmp_path / "a.npy", LATTICE), CHAIN, rtol=0, atol=2e-16)
    assert np.load(tmp_path / "a.npy").shape == (3, 12, 3)
    write_spins(tmp_path / "a.npy", CHAIN[2], LATTICE)
    assert np.load(tmp_path / "a.npy").shape == (12, 3)
    np.save(
        tmp_path / "a.npy", 3.0 * CHAIN[:2].numpy().astype(np.float32)
    )  # without the vacant site, of any length
    torch.testing.assert_close(read_spins(tmp_path / "a.npy", LATTICE), CHAIN[:2], rtol=0, atol=1e-6)


def test_what_is_written_is_ovf(tmp_path: Path) -> None:
    lattice = SpinLattice(cell=np.diag([2.0, 1.0, 1.0]), basis=[[0, 0, 0], [0.5, 0, 0]], repeat=[1, 2, 1])
    write_spins(tmp_path / "m.ovf", torch.eye(4, 3) + torch.eye(4, 3).flip(0), lattice, kind="text")
    expected = """# OOMMF OVF 2.0
# Segment count: 1
# Begin: Segment
# Begin: Header
# Title: segment 0
# meshtype: rectangular
# meshunit: m
# valuedim: 3
# valuelabels: m_x m_y m_z
# valueunits: 1 1 1
# xmin: 0
# xmax: 2e-10
# xbase: 5e-11
# xnodes: 2
# xstepsize: 1e-10
# ymin: 0
# ymax: 2e-10
# ybase: 5e-11
# ynodes: 2
# ystepsize: 1e-10
# zmin: 0
# zmax: 1e-10
# zbase: 5e-11
# znodes: 1
# zstepsize: 1e-10
# End: Header
# Begin: Data Text
1.0 0.0 0.0
0.0 1.0 1.0
0.0 1.0 1.0
1.0 0.0 0.0
# End: Data Text
# End: Segment
"""
    assert (tmp_path / "m.ovf").read_text() == expected


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", r"m\.ovf: not an OVF file: its first line should be '# OOMMF OVF 2\.0'"),
        (b"\x93NUMPY\x01\x00", r"m\.ovf: not an OVF file"),
        (text().replace(b"OVF 2.0", b"OVF 3.0"), r"m\.ovf: is OVF 3\.0, but mlopt reads OVF 2\.0"),
        (
            text().replace(b"OVF 2.0", b": rectangular mesh v1.0").replace(b"MF :", b"MF:"),
            r"is OVF 1\.0.*avf2ovf",
        ),
        (b"# OOMMF OVF 2.0\n", r"m\.ovf: there is no segment in it: the file is cut short"),
        (
            HEADER.encode(),
            r"segment 0 \(counted from 0\): there are no data after the header: the file is cut short",
        ),
        (text().replace(b"# x nodes: 2\n", b""), r"segment 0 .*: the header has no '# xnodes:'; add it"),
        (text().replace(b"# valuedim: 3\n", b""), r"the header has no '# valuedim:'; add it"),
        (
            text().replace(b"x nodes: 2", b"xnodes: two"),
            r"'# xnodes: two' should be a whole number above zero",
        ),
        (text().replace(b"x nodes: 2", b"xnodes: 0"), r"'# xnodes: 0' should be a whole number above zero"),
        (
            text().replace(b"# x nodes: 2", b"# xnodes: 2\n# xnodes: 2"),
            r"'# xnodes: 2 2' should be a whole number above zero$",
        ),
        (text().replace(b"rectangular", b"round"), r"'# meshtype: round' should be rectangular or irregular"),
        (text().replace(b"rectangular", b"irregular"), r"the header has no '# pointcount:'; add it"),
        (
            text(kind="Binary 2"),
            r"'# Begin: Data binary 2' is unknown; mlopt reads Text, Binary 4 and Binary 8",
        ),
        (text().replace(b"# Begin: Segment\n", b""), r"data without a header; begin with '# Begin: Segment'"),
        (
            text().replace(b"# Title: m", b"0 0 1"),
            r"a line that begins with '#' should stand where there is '0 0 1'",
        ),
        (
            text("0 0 1\n"),
            r"the header's 2 x 1 x 1 nodes of 3 numbers are 6 numbers, but 3 stand there; correct",
        ),
        (text("0 0 1\n-1 x 0\n"), r"segment 0 .*: number 1 of node 1 \(counted from 0\) is 'x'; correct it"),
        (
            text().split(b"# End: Data")[0],
            r"there is no '# End: Data Text' after the data: the file is cut short",
        ),
        (
            text().replace(b"count: 1", b"count: 2"),
            r"declares 2 segments, but has 1: it is cut short, or correct",
        ),
        (binary(8)[:-60], r"so 48 bytes, but only .* are left: the file is cut short"),
        (binary(4, big=True), r"the data are big-endian, as in OVF 1\.0; OVF 2\.0 is little-endian"),
        (
            binary(8).replace(b"Binary 8", b"Binary 4"),
            r"should begin with the check value 38 b4 96 49, but begin with",
        ),
        (
            HEADER.encode() + b"# Begin: Data Binary 8\n",
            r"check value .*, but begin with nothing: the file is damaged",
        ),
        (
            binary(8, numbers=[*NUMBERS, 7.0]),
            r"6 numbers, but no '# End: Data Binary 8' follows them; correct xnodes",
        ),
        (
            binary(8).replace(b"x nodes: 2", b"x nodes: 999999999999"),
            r"999999999999 x 1 x 1 nodes .* cut short",
        ),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.ovf").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_ovf(tmp_path / "m.ovf")


def test_the_broken_segment_is_named(tmp_path: Path) -> None:
    write_spins(tmp_path / "m.ovf", CHAIN, LATTICE, kind="text")
    content = (tmp_path / "m.ovf").read_text()
    last = content.rindex("# znodes: 2")
    (tmp_path / "m.ovf").write_text(content[:last] + "# znodes: 3" + content[last + 11 :])
    with pytest.raises(
        InputError, match=r"m\.ovf: segment 2 \(counted from 0\): the header's 3 x 2 x 3 nodes"
    ):
        read_ovf(tmp_path / "m.ovf")


def test_files_that_do_not_fit_the_lattice(tmp_path: Path) -> None:
    file, up = tmp_path / "m.ovf", np.tile([0.0, 0.0, 1.0], (12, 1))

    def refused(message: str, lattice: SpinLattice = LATTICE) -> None:
        with pytest.raises(InputError, match=message):
            read_spins(file, lattice)

    write_ovf(file, [up], (3, 2, 2))
    refused(r"m\.ovf: has 12 vectors, but the lattice has 2 sites; choose the file or the lattice", PAIR)
    refused(
        r"has 12 vectors, but the lattice has 14 sites with 13 spins",
        SpinLattice(kind="chain", repeat=14, vacant=[0]),
    )
    write_ovf(file, [up], (2, 3, 2))
    refused(
        r"segment 0 \(counted from 0\): has 2 x 3 x 2 nodes, but the lattice is 3 x 2 x 2 nodes; set `repeat`"
    )
    write_ovf(file, [up, up], (3, 2, 2), kind="text")
    content = file.read_text()
    cut = content.rindex("# xnodes")
    other = content[:cut] + content[cut:].replace("xnodes: 3", "xnodes: 2").replace("0.0 0.0 1.0\n", "", 4)
    file.write_text(other)
    refused(
        r"segment 1 .*: has 2 x 2 x 2 nodes, but segment 0 has 3 x 2 x 2 nodes; the images of a chain must be of"
    )
    write_ovf(file, [up[:, :1]], (3, 2, 2), labels=["Energy"])
    refused(r"segment 0 .*: has values of 1 components; spins have 3")
    # zero vectors are what vacant sites have, and no other
    empty = up.copy()
    empty[4] = 0.0
    write_ovf(file, [up, empty], (3, 2, 2))
    assert read_spins(file, LATTICE).shape == (2, 11, 3)
    empty[5] = 0.0
    write_ovf(file, [up, empty], (3, 2, 2))
    refused(
        r"m\.ovf: image 1 \(counted from 0\): site 5 \(cell 2, 1, 0\) has the length zero, so it has no direction"
    )
    empty[5] = np.nan
    write_ovf(file, [empty], (3, 2, 2))
    refused(r"m\.ovf: site 5 \(cell 2, 1, 0\) is \[nan, nan, nan\], which is not finite; correct it")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.ovf: there is no such file"):
        read_ovf(tmp_path / "a.ovf")
    with pytest.raises(InputError, match=r"is a folder; name a file"):
        read_ovf(tmp_path)
    with pytest.raises(
        InputError, match=r"a\.vtk: \.vtk is not a format of spins that mlopt reads\. Known: \.npy, \.ovf"
    ):
        read_spins(tmp_path / "a.vtk", PAIR)
    with pytest.raises(InputError, match=r"a\.npy: there is no such file"):
        read_spins(tmp_path / "a.npy", PAIR)
    (tmp_path / "a.npy").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"a\.npy: not an npy file of numbers, or damaged"):
        read_spins(tmp_path / "a.npy", PAIR)
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy: not an npy file of numbers"):
        read_spins(tmp_path / "a.npy", PAIR)
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    with pytest.raises(
        InputError, match=r"a\.npy: holds float64 of shape \(2, 2\); spins are numbers of shape \(n, 3\)"
    ):
        read_spins(tmp_path / "a.npy", PAIR)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "m.ovf"
    with pytest.raises(
        InputError, match=r"image 0 \(counted from 0\) has the shape \(11, 3\); the lattice needs \(2, 3\)"
    ):
        write_spins(file, CHAIN, PAIR)
    with pytest.raises(InputError, match=r"write_spins: there is no image to write to .*m\.ovf"):
        write_spins(file, [], PAIR)
    with pytest.raises(
        InputError, match=r"m\.xyz: name it \.npy or \.ovf or .*, so that the format is known"
    ):
        write_spins(tmp_path / "m.xyz", CHAIN, LATTICE)
    with pytest.raises(InputError, match=r"`kind` is 'binary'; it can be 'text', 'binary 4' or 'binary 8'"):
        write_spins(file, CHAIN, LATTICE, kind="binary")  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"field 1 .* has the shape \(5, 3\); 2 x 3 x 1 nodes of 3 components need \(6, 3\)"
    ):
        write_ovf(file, [np.ones((6, 3)), np.ones((5, 3))], (2, 3, 1))
    with pytest.raises(InputError, match=r"there is no field to write"):
        write_ovf(file, [], (2, 3, 1))
    assert not file.exists()
    with pytest.raises(MloptError, match=r"the folder does not exist"):
        write_spins(tmp_path / "none" / "m.ovf", CHAIN, LATTICE)
