"""Structures from and to other forms, and what is said about bad files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import ase.io
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms, FixBondLength, FixCartesian

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.structures.checks import check_structures
from mlopt.core.structures.read import read_atoms, read_structure, read_structures

FIELDS = ("pos", "z", "ptr", "cell", "pbc", "fixed")


def assert_same(a: Systems, b: Systems) -> None:
    for name in FIELDS:
        left, right = getattr(a, name), getattr(b, name)
        assert left.dtype == right.dtype and torch.equal(left, right), name


def several() -> Systems:
    """A cluster, a crystal with a fixed atom, and a slab, at positions with full mantissas."""
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    crystal.rattle(0.1, seed=1)
    crystal.set_constraint(FixAtoms([2]))
    cluster = Atoms("Ar3", [[1 / 3, 0, 0], [0, 1.1, -7], [2e-5, 1e5, 3]])
    slab = Atoms("Cu2", [[0, 0, 0], [0, 0, 2]], cell=[[3, 0, 0], [1, 3, 0], [0, 0, 0]], pbc=[1, 1, 0])
    return Systems.from_atoms([cluster, crystal, slab])


def test_atoms_there_and_back() -> None:
    systems = several()
    assert systems.pos.dtype == torch.float64 and systems.fixed.sum() == 1
    images = systems.to_atoms()
    assert [one.get_chemical_formula() for one in images] == ["Ar3", "Cl4Na4", "Cu2"]
    assert images[1].constraints[0].index.tolist() == [2]
    assert_same(Systems.from_atoms(images), systems)
    assert_same(Systems.from_atoms(images[1]), systems[1])


def test_constraints_that_mlopt_cannot_keep() -> None:
    atoms = Atoms("Ar2", [[0, 0, 0], [1, 0, 0]], constraint=FixCartesian(1, (True, True, True)))
    assert Systems.from_atoms(atoms).fixed.tolist() == [False, True]
    for constraint in (FixCartesian(1, (True, False, True)), FixBondLength(0, 1)):
        atoms.set_constraint(constraint)
        name = type(constraint).__name__
        with pytest.raises(
            InputError, match=f"structure 0 has the constraint {name}, but mlopt can only fix whole"
        ):
            Systems.from_atoms(atoms)
    with pytest.raises(InputError, match="at least one Atoms"):
        Systems.from_atoms([])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_file_keeps_every_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    systems = several().to(dtype=dtype)
    systems.pos[0, 0] = float("nan")
    systems.save(tmp_path / "systems.safetensors")
    back = Systems.load(tmp_path / "systems.safetensors")
    assert torch.equal(back.pos.isnan(), systems.pos.isnan())
    assert_same(back.with_pos(back.pos.nan_to_num()), systems.with_pos(systems.pos.nan_to_num()))


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "systems.safetensors"
    with pytest.raises(InputError, match="there is no such file"):
        Systems.load(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"systems\.safetensors: not a safetensors file, or damaged"):
        Systems.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"not one that Systems\.save wrote"):
        Systems.load(path)
    save_file({"a": torch.zeros(1)}, path, metadata={"format": "mlopt-systems", "version": "9"})
    with pytest.raises(InputError, match=r"version 9 of the format; this mlopt reads up to 2\. Update mlopt"):
        Systems.load(path)


def test_pyg_there_and_back() -> None:
    pytest.importorskip("torch_geometric")
    from torch_geometric.data import Batch, Data

    systems = several()
    batch = systems.to_pyg()
    assert batch.num_graphs == 3 and batch.ptr.tolist() == systems.ptr.tolist()
    assert_same(Systems.from_pyg(batch), systems)
    plain = Batch.from_data_list([Data(pos=torch.rand(n, 3), z=torch.full((n,), 6)) for n in (2, 4)])
    assert Systems.from_pyg(plain).ptr.tolist() == [0, 2, 6]
    one = Systems.from_pyg(Data(pos=torch.rand(2, 3), z=torch.ones(2), cell=torch.eye(3), pbc=torch.ones(3)))
    assert one.cell.shape == (1, 3, 3) and one.periodic
    with pytest.raises(InputError, match="no `z`"):
        Systems.from_pyg(Data(pos=torch.rand(2, 3)))


def test_pyg_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(InputError, match="Install it: pip install torch-geometric"):
        several().to_pyg()


@pytest.mark.parametrize(
    "name, kind",
    [
        ("a.extxyz", "extxyz"),
        ("a.XYZ", "xyz"),
        ("a.cif", "cif"),
        ("a.vasp", "vasp"),
        ("POSCAR", "vasp"),
        ("CONTCAR.relaxed", "vasp"),
        ("a.traj", "traj"),
        ("a.json", "json"),
        ("a.con", "eon"),
        ("a.pdb", "proteindatabank"),
    ],
)
def test_formats(tmp_path: Path, name: str, kind: str) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    ase.io.write(tmp_path / name, atoms, format=kind)
    read = read_structures(tmp_path / name)
    assert len(read) == 1 and sorted(read.z.tolist()) == [11] * 4 + [17] * 4
    # some formats sort atoms by element
    found, expected = (one.get_all_distances(mic=True).ravel() for one in (read.to_atoms()[0], atoms))
    assert sorted(found) == pytest.approx(sorted(expected), abs=1e-3)


def test_frames(tmp_path: Path) -> None:
    path = tmp_path / "many.extxyz"
    ase.io.write(path, [Atoms("Ar2", [[0, 0, 0], [0, 0, 1.0 + i]]) for i in range(3)])
    assert len(read_atoms(path)) == 3 and len(read_structures(path)) == 3
    assert read_structure(path).pos[1, 2] == 3.0
    assert read_structure(path, 1).pos[1, 2] == 2.0
    with pytest.raises(
        InputError, match=r"has 3 structures, so there is no number 3; use 0 to 2, or -1 for the last"
    ):
        read_structure(path, 3)


BAD = {
    "cut.xyz": (
        "3\n\nAr 0 0 0\nAr 1 1 1\n",
        r"frame 0 \(counted from 0\) declares 3 atoms, but only 2 lines follow",
    ),
    "huge.xyz": ("999999999\n\nAr 0 0 0\n", r"declares 999,999,999 atoms; more than 1,000,000"),
    "huger.xyz": ("9" * 5000 + "\n\nAr 0 0 0\n", r"declares 999,999,999,999,999,999 atoms"),
    "none.xyz": ("0\n\n", r"frame 0 \(counted from 0\) has no atoms"),
    "text.xyz": ("hello\n", r"line 1 should be the number of atoms, but is 'hello'"),
    "second.xyz": (
        "1\n\nAr 0 0 0\nhm\n\n",
        r"frame 1 \(counted from 0\): line 4 should be the number of atoms",
    ),
    "element.xyz": ("1\n\nXq 0 0 0\n", r"frame 0 .*: no element has the symbol 'Xq'"),
    "hint.xyz": ("1\n\nArr 0 0 0\n", r"no element has the symbol 'Arr'\. Did you mean Ar\?"),
    "number.xyz": (
        "1\n\nAr 0 zero 0\n",
        r"frame 0 .*: malformed: atom 0 \(Ar, line 3\): 'zero' is not a number",
    ),
    "columns.xyz": ("1\n\nAr 0 0\n", r"frame 0 .*: malformed"),
    "nan.xyz": ("2\n\nAr 0 0 0\nAr nan 1 1\n", r"the structure: atom 1 \(Ar\) is at \(nan, 1, 1\)"),
    "inf.xyz": ("2\n\nAr 0 0 0\nAr 1 -inf 1\n", r"atom 1 \(Ar\) is at \(1, -inf, 1\)"),
    "same.xyz": (
        "2\n\nAr 0 0 0\nKr 0 0 0.0001\n",
        r"atoms 0 and 1 \(Ar and Kr\) are 0\.0001 apart, less than 0\.001",
    ),
    "flat.extxyz": (
        '1\nLattice="1 0 0 2 0 0 0 0 1" Properties=species:S:1:pos:R:3\nAr 0 0 0\n',
        r"periodic along a b c, but its cell vectors .* are zero or not independent",
    ),
    "nocell.extxyz": ('1\npbc="T F F"\nAr 0 0 0\n', r"is periodic along a, but its cell vectors"),
    "image.extxyz": (
        '2\nLattice="4 0 0 0 4 0 0 0 4"\nAr 0 0 1e-5\nAr 4 0 3.99999\n',
        r"atoms 0 and 1 \(Ar and Ar\) are 2e-05 apart",
    ),
    "POSCAR": (
        "x\n1\n1 0 0\n0 1 0\n0 0 1\nAr\n900000\nDirect\n0 0 0\n",
        r"declares 900000 atoms, but only 2 lines",
    ),
    "a.poscar": ("garbage\n", r"a\.poscar: malformed"),
    "a.con": ("\n" * 6 + "1\n99999999\n1\n", r"declares 99,999,999 atoms"),
    "a.cif": ("data_x\n", r"malformed|no structures"),
    "a.json": ("{", r"malformed"),
    "a.traj": ("not a trajectory", r"malformed"),
    "a.pdb": ("REMARK\n", r"malformed|no structures|has no atoms"),
    "a.xyz": ("", r"the file is empty"),
    "a.pkl": ("x", r"\.pkl is not a structure format that mlopt reads\. Known: \.extxyz, \.xyz"),
    "noending": ("x", r"a name without an ending is not a structure format"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_structures(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.xyz: there is no such file"):
        read_structures(tmp_path / "a.xyz")
    with pytest.raises(InputError, match="is a folder; name a file"):
        read_structures(tmp_path)
    (tmp_path / "b.xyz").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        read_structures(tmp_path / "b.xyz")


def test_bad_systems() -> None:
    argon = Systems.cluster([18, 18])
    for systems, message in (
        (Systems.cluster([]), "the structure has no atoms"),
        (Systems.cluster([200]), "200 is not an atomic number"),
        (argon, r"start: the structure: atoms 0 and 1 \(Ar and Ar\) are 0 apart"),
        (
            Systems.concatenate([Systems.cluster([1]), argon]),
            r"start: structure 1 \(counted from 0\): atoms 0 and 1",
        ),
        (argon.select([]), "there are no structures"),
    ):
        with pytest.raises(InputError, match=message):
            check_structures(systems, source="start")


def test_separate() -> None:
    systems = Systems.concatenate([Systems.cluster([1]), Systems.cluster([18] * 20), Systems.cluster([6])])
    before = systems.pos.clone()
    apart = check_structures(systems, separate=True)
    assert torch.equal(systems.pos, before)
    assert torch.pdist(apart[1].pos).min() > 1e-3 and apart.pos.abs().max() < 1.0
    assert torch.equal(apart.pos[[0, 1, 21]], before[[0, 1, 21]])  # the first of each heap stays
    assert_same(check_structures(systems[1], separate=True), apart[1])
    assert check_structures(apart) is apart


def test_pairs_across_skewed_faces_are_found() -> None:
    cell = torch.tensor([[3.0, 0, 0], [1.4, 2.5, 0], [1.3, 0.7, 2.0]], dtype=torch.float64)
    for index in range(20):
        generator = torch.Generator().manual_seed(index)
        spot = torch.rand(3, generator=generator, dtype=torch.float64).round(decimals=1) @ cell
        steps = torch.randint(-3, 4, (3,), generator=generator).double()
        pos = torch.stack([spot, spot + steps @ cell + 4e-4])
        systems = Systems(
            pos, torch.tensor([18, 18]), torch.tensor([0, 2]), cell[None], torch.ones(1, 3).bool()
        )
        with pytest.raises(InputError, match=re.escape("are 0.000693 apart")):
            check_structures(systems)
