"""Structure files as other programs write them: what is read, and which atom a refusal names."""

from __future__ import annotations

import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms, FixScaled

from mlopt.core.atoms.elements import SYMBOLS, parse_label
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.structures.checks import check_structures
from mlopt.core.structures.read import read_atoms, read_structures

LATTICE = 'Lattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3'
CIF = """data_x
_cell_length_a 5
_cell_length_b 5
_cell_length_c 5
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P 1'
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""
POSCAR = "a title\n1.0\n9 0 0\n0 9 0\n0 0 9\nCu H\n1 1\nDirect\n0 0 0\n0.5 0 0\n"
CON = "a\nb\n9 9 9\n90 90 90\n0 0\n0 0 0\n2\n1 1\n63.5 1.0\nCu\nfirst\n0 0 0 0 0\nH\nsecond\n2 0 0 1 1\n"


def read(folder: Path, name: str, content: str | bytes) -> list[Atoms]:
    """The atoms of a file; no warning may get out."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_structures(folder / name)
        return read_atoms(folder / name)


def refused(folder: Path, name: str, content: str | bytes) -> str:
    """What is said of a file, on one line that begins with its name."""
    with pytest.raises(InputError) as caught:
        read(folder, name, content)
    message = str(caught.value)
    assert message.startswith(str(folder / name)) and message.isprintable() and len(message) < 500
    return message.removeprefix(str(folder / name))


@pytest.mark.parametrize(
    "label, symbol",
    [("Cu1", "Cu"), ("Fe2+", "Fe"), ("O_w", "O"), ("C.ar", "C"), ("cu", "Cu"), ("CU", "Cu"), ("O2-", "O")],
)
def test_labels_of_atoms(tmp_path: Path, label: str, symbol: str) -> None:
    assert parse_label(label) == (symbol, None)
    for name, content in (
        ("a.xyz", f"1\n\n{label} 0 0 0\n"),
        ("a.extxyz", f"1\nProperties=pos:R:3:species:S:1\n0 0 0 {label}\n"),
        ("POSCAR", POSCAR.replace("Cu", label.replace("_", "1"))),
        ("a.con", CON.replace("Cu", label)),
    ):
        assert read(tmp_path, name, content)[0].symbols[0] == symbol


def test_labels_that_may_mean_several_things(tmp_path: Path) -> None:
    for symbol in SYMBOLS:
        assert parse_label(symbol) == (symbol, None)
    message = refused(tmp_path, "a.xyz", "2\n\nC 0 0 0\nCA1 0 0 2\n")
    assert message == (
        ": frame 0 (counted from 0): atom 1 (line 4): no element has the symbol 'CA1'. Did you mean Ca?"
    )
    for label, hint in (
        ("29", "If it is an atomic number, write Cu"),
        ("Arr", "Did you mean Ar"),
        ("Wa2", "mean W"),
    ):
        assert hint in refused(tmp_path, "a.xyz", f"1\n\n{label} 0 0 0\n")
    for label in ("X1", "0", "999", "é", "1Cu", "a" * 5000, "Cu(1)", ""):
        with pytest.raises(InputError, match="no element has the symbol"):
            parse_label(label)


def test_heavy_hydrogen(tmp_path: Path) -> None:
    rows = "D 0 0 0\nT 0 0 2\nH 0 0 4\nD2 0 0 6\n"
    (atoms,) = read(tmp_path, "a.xyz", "4\n\n" + rows)
    assert atoms.get_chemical_formula() == "H4"
    assert atoms.get_masses().tolist() == [2.014, 3.016, 1.008, 2.014]
    (atoms,) = read(tmp_path, "POSCAR", POSCAR.replace("Cu H", "D H"))
    assert atoms.get_masses().tolist() == [2.014, 1.008]
    (atoms,) = read(tmp_path, "a.cif", CIF + "D1 0 0 0 1\nH1 0.5 0 0 1\n")
    assert atoms.get_masses().tolist() == [2.014, 1.008]
    symmetric = CIF.replace("'P 1'", "'F m -3 m'") + "D1 0 0 0 1\n"
    assert read(tmp_path, "a.cif", symmetric)[0].get_masses().tolist() == [2.014] * 4
    ase.io.write(tmp_path / "a.pdb", Atoms("H2", [[0, 0, 0], [0, 0, 1]]))
    lines = (tmp_path / "a.pdb").read_text().split("\n")
    lines = [line[:76] + " D" if line.startswith("ATOM      1") else line for line in lines]
    assert read(tmp_path, "b.pdb", "\n".join(lines))[0].get_masses().tolist() == [2.014, 1.008]
    # masses of the file win
    assert read(tmp_path, "a.xyz", "1\nProperties=species:S:1:pos:R:3:masses:R:1\nD 0 0 0 7\n")[
        0
    ].get_masses() == [7.0]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff1\n\nCu 0 0 1\n".encode(),
        "\ufeff1\n\nCu 0 0 1\n".encode("utf-16-le"),
        "\ufeff1\n\nCu 0 0 1\n".encode("utf-16-be"),
        b"1\r\n\r\nCu 0 0 1\r\n\r\n  \r\n",
        b"1\r\rCu 0 0 1\r",
        *(
            f"1\na{mark}comment{mark}{mark}\nCu 0 0 1\n".encode()
            for mark in "\u2028\u2029\f\v\x85\x1c\x1d\x1e"
        ),
        b"1\n\nCu 0.0D+00 0d0 1.0D+00",
        b'1\nLattice="9.0D+00 0 0 0 9d0 0 0 0 9"\nCu 0 0 1\n',
    ],
)
def test_encodings_and_ends_of_lines(tmp_path: Path, content: bytes) -> None:
    (atoms,) = read(tmp_path, "a.xyz", content)
    assert atoms.symbols[0] == "Cu" and atoms.positions.tolist() == [[0, 0, 1]]
    assert atoms.cell.lengths()[0] in (0, 9)


def test_other_formats_with_marks_and_windows_lines(tmp_path: Path) -> None:
    for name, content in (("POSCAR", POSCAR), ("a.con", CON), ("a.cif", CIF + "Cu1 0 0 0 1\n")):
        for encoded in ("\ufeff" + content, content.replace("\n", "\r\n"), content + "\n\n"):
            assert read(tmp_path, name, encoded)[0].symbols[0] == "Cu"
    fortran = POSCAR.replace("9 0 0", "9.0D0 0 0").replace("0.5", "5.D-1")
    assert read(tmp_path, "POSCAR", fortran)[0].positions[1, 0] == 4.5
    assert "(byte 0 is not UTF-8). Is its ending right?" in refused(tmp_path, "a.xyz", b"\xe5\n")
    assert "is not UTF-16" in refused(tmp_path, "a.xyz", b"\xff\xfe\x00")


def test_frames_may_be_apart(tmp_path: Path) -> None:
    assert len(read(tmp_path, "a.xyz", "1\n\nCu 0 0 0\n\n \n1\n\nCu 0 0 1\n\n")) == 2


def test_huge_numbers_name_the_atom(tmp_path: Path) -> None:
    for number in ("1e300", "-1e300", "1e154", "2e9"):
        message = refused(tmp_path, "a.xyz", f"2\n\nCu 0 0 0\nAg 0 {number} 0\n")
        assert "atom 1 (Ag) is at (0, " in message and message.endswith(
            ", 0), beyond 1e+09: correct its coordinates"
        )
    assert "has an entry beyond 1e+09" in refused(
        tmp_path, "a.extxyz", "1\n" + LATTICE.replace("9 0", "1e300 0") + "\nCu 0 0 0\n"
    )
    message = refused(tmp_path, "a.extxyz", "1\n" + LATTICE.replace("9 0", "1e-300 0") + "\nCu 0 0 0\n")
    assert "zero or not independent" in message
    message = refused(tmp_path, "a.extxyz", "1\n" + LATTICE.replace('"9 0', '"1e-5 0') + "\nCu 0 0 0\n")
    assert "periodic along a, but this cell vector is 1e-05 long" in message


def test_masks_of_three_columns(tmp_path: Path) -> None:
    def fixed(columns: int, *rows: str) -> list[list[int]]:
        head = f"{len(rows)}\n{LATTICE}:move_mask:L:{columns}\n"
        text = head + "".join(f"Cu 0 0 {2 * index} {row}\n" for index, row in enumerate(rows))
        found = read(tmp_path, "a.extxyz", text)[0].constraints
        assert Systems.from_atoms(read_atoms(tmp_path / "a.extxyz")).fixed.tolist() == [
            "F" in row.split()[0] for row in rows
        ]
        return [one.index.tolist() for one in found]

    assert fixed(3, "F F F", "T T T", "F F F") == [[0, 2]]
    assert fixed(3, "T T T", "T T T") == []
    assert fixed(1, "T", "F") == [[1]]
    message = refused(tmp_path, "a.extxyz", f"2\n{LATTICE}:move_mask:L:3\nCu 0 0 0 F F F\nAg 0 0 2 T F T\n")
    assert "atom 1 (Ag) is fixed along y alone, but mlopt fixes whole atoms" in message
    message = refused(tmp_path, "a.extxyz", f"1\n{LATTICE}:move_mask:L:2\nCu 0 0 0 F F\n")
    assert "move_mask has 2 columns; give it 1, or 3" in message


def test_directions_that_are_fixed_in_other_formats(tmp_path: Path) -> None:
    crystal = bulk("Cu", cubic=True)
    for mask in ((True, True, True), (True, False, True)):
        crystal.set_constraint([FixScaled(1, mask), FixAtoms([3])])
        ase.io.write(tmp_path / "a.traj", crystal)
        content = (tmp_path / "a.traj").read_bytes()
        if all(mask):
            assert read(tmp_path, "a.traj", content)[0].constraints[0].index.tolist() == [1, 3]
        else:
            assert "atom 1 (Cu) is fixed along x and z alone" in refused(tmp_path, "a.traj", content)
    crystal.set_constraint(FixAtoms([99]))
    ase.io.write(tmp_path / "a.traj", crystal)
    message = refused(tmp_path, "a.traj", (tmp_path / "a.traj").read_bytes())
    assert "atom 99 is fixed, but there are 4 atoms, counted from 0" in message


def test_occupancies(tmp_path: Path) -> None:
    for more in ("", ":occupancy:R:1", ":occupancy:S:1", ":occupancy:R:2"):
        values = " 1 1" if more else ""
        assert (
            len(read(tmp_path, "a.extxyz", f"2\n{LATTICE}{more}\nCu 0 0 0{values}\nAg 0 0 2{values}\n")[0])
            == 2
        )
    for info in (
        "occupancy=1",
        'occupancy="1 1 2"',
        "occupancy",
        "occupancy=high",
        'occupancy="_JSON {\\"0\\": {}}"',
    ):
        assert len(read(tmp_path, "a.extxyz", f"1\n{LATTICE} {info}\nCu 0 0 0\n")[0]) == 1
    message = refused(tmp_path, "a.extxyz", f"2\n{LATTICE}:occupancy:R:1\nCu 0 0 0 1\nAg 0 0 2 0.5\n")
    assert "has partly occupied sites (site 1: 0.5); choose one arrangement of atoms" in message
    for value in ("1", "1.0", "1.000(5)", "?", "."):
        assert len(read(tmp_path, "a.cif", CIF + f"Cu1 0 0 0 {value}\n")[0]) == 1
    assert "site 1 (Ag1): 0.25)" in refused(tmp_path, "a.cif", CIF + "Cu1 0 0 0 1\nAg1 .5 0 0 0.25\n")
    message = refused(tmp_path, "a.cif", CIF + "Cu1 0 0 0 much\n")
    assert message == ": block 'x': site 0 (Cu1) has the occupancy 'much', which is no number"
    assert "site 0 (Cu1) has y = 'up', which is no number" in refused(
        tmp_path, "a.cif", CIF + "Cu1 0 up 0 1\n"
    )


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.xyz", "2\n\nCu 0 0 0\nAg 0 0\n", "atom 1 (line 4) has 3 columns instead of 4"),
        ("a.xyz", "2\n\nCu 0 0 0\nAg 0 0 \x1b[2J\n", r"atom 1 (Ag, line 4): '\x1b[2J' is not a number"),
        ("a.xyz", "1\nProperties=species:S:1:pos:R:3:n:I:1\nCu 0 0 0 1.5\n", "'1.5' is not a whole number"),
        ("POSCAR", POSCAR.replace("0.5", "half"), "atom 1 (line 10): 'half' is not a number"),
        ("POSCAR", POSCAR.replace("0.5 0 0", "0.5"), "atom 1 (line 10) has 1 columns instead of 3"),
        (
            "POSCAR",
            POSCAR.replace("Cu H", "Cuu H"),
            "line 6: no element has the symbol 'Cuu'. Did you mean Cu?",
        ),
        ("POSCAR", POSCAR.replace("1 1", "1 ²"), "line 7 should be numbers of atoms, but is '1 ²'"),
        ("POSCAR", POSCAR.replace("1 1", "1"), "line 6 has 2 elements, line 7 1 numbers of atoms"),
        (
            "a.con",
            CON.replace("2 0 0 1", "2 x 0 1"),
            "frame 0 (counted from 0): atom 1 (line 15): 'x' is not",
        ),
        (
            "a.con",
            CON + CON.replace("1 1\n", "1 99\n"),
            "frame 1 (counted from 0) declares 100 atoms, but only",
        ),
        ("a.con", CON.replace("\n2\n", "\n3\n"), "line 8 has 2 numbers of atoms, line 7 says 3"),
        (
            "a.pdb",
            "ATOM      0   Cu MOL     1       0.000   zero\n",
            "model 0, atom 0 (line 1): 'zero' is not",
        ),
    ],
)
def test_refusals_name_the_atom(tmp_path: Path, name: str, content: str, message: str) -> None:
    assert message in refused(tmp_path, name, content)


@pytest.mark.parametrize("columns", ["999999999", "1_000_000", "٣", "0", "-1", "x", "3:a"])
@pytest.mark.parametrize("key", ["Properties", "Prop\\erties"])
def test_columns_allocate_nothing(tmp_path: Path, columns: str, key: str) -> None:
    message = refused(tmp_path, "a.xyz", f"1\n{key}=species:S:1:pos:R:{columns}\nCu 0 0 0\n")
    assert "should be triplets of name, kind" in message
    assert "instead of 1000" in refused(tmp_path, "a.xyz", f"1\n{key}=species:S:1:pos:R:999\nCu 0 0 0\n")


def test_symmetry_is_applied_and_bounded(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "p1.cif", bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    assert len(read(tmp_path, "p1.cif", (tmp_path / "p1.cif").read_bytes())[0]) == 8
    rock = CIF.replace("'P 1'", "'F m -3 m'") + "Na1 0 0 0 1\nCl1 0.5 0.5 0.5 1\n"
    (atoms,) = read(tmp_path, "a.cif", rock)
    assert atoms.get_chemical_formula() == "Cl4Na4" and atoms.pbc.all() and not atoms.info.get("occupancy")
    sites = "".join(f"Cu{index} {index / 5000:.5f} 0.13 0.29 1\n" for index in range(3001))
    assert "3001 sites with 192 symmetry operations, which takes too long" in refused(
        tmp_path, "a.cif", CIF.replace("'P 1'", "'F m -3 m'") + sites
    )
    # without symmetry there is nothing to compare
    assert "closer" not in str(read(tmp_path, "a.cif", CIF.replace("_a 5", "_a 50000") + sites)[0])


def test_heaps_of_atoms_are_refused_in_little_memory() -> None:
    heap = Systems.cluster([18] * 30_000)  # whose pairs would take 7 GB
    with pytest.raises(
        InputError, match=r"atoms 0 and 1 \(Ar and Ar\) are 0 apart, .*, and 29998 more pairs"
    ):
        check_structures(heap)
    apart = check_structures(Systems.cluster([18] * 500), separate=True)
    assert torch.pdist(apart.pos).min() > 1e-3
    spots = Systems.cluster([18] * 400).with_pos(
        torch.arange(400)[:, None] // 100 * torch.ones(400, 3).double()
    )
    with pytest.raises(InputError, match="and 395 more pairs"):
        check_structures(spots)


def test_velocities_are_left(tmp_path: Path) -> None:
    more = POSCAR + "\n" + "0.1 0.0 0.0\n" * 2
    np.testing.assert_allclose(read(tmp_path, "POSCAR", more)[0].positions[1], [4.5, 0, 0])
