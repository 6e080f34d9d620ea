"""What structures carry: masses, what is fixed, tags, charges, moments, columns and info, through every form."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import ase.data
import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.constraints import FixAtoms
from ase.db import connect
from safetensors.torch import save as serialize

from mlopt.core.atoms.elements import MASSES
from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.template import Template
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.minima.minimum import Minimum
from mlopt.core.minima.store import MinimaStore
from mlopt.core.structures.write import write_extxyz

STALE = (
    "energy",
    "free_energy",
    "dft_forces",
    "REF_stress",
    "virial",
    "momenta",
    "velocities",
    "magmoms",
    "charges",
)


def dressed(seed: int, n: int | None = None) -> Atoms:
    """Atoms that carry a random part of all that they may."""
    rng = np.random.default_rng(seed)
    n = n or int(rng.integers(1, 6))
    atoms = Atoms(rng.choice([1, 6, 29, 78], n), positions=rng.normal(size=(n, 3)).round(6))
    if rng.random() < 0.5:
        atoms.set_cell(rng.normal(size=(3, 3)).round(6) + 5.0 * np.eye(3))
        atoms.pbc = rng.random(3) < 0.5
    columns = {
        "masses": rng.uniform(1.0, 200.0, n).round(6),
        "tags": rng.integers(0, 5, n),
        "initial_charges": rng.normal(size=n).round(6),
        "initial_magmoms": rng.normal(size=[(n,), (n, 3)][seed % 2]).round(6),
        "layer": rng.integers(-3, 3, n),
        "axis": rng.normal(size=(n, 3)).round(6),
        "frozen": rng.random(n) < 0.5,
        "site": np.array([f"s{k}" for k in range(n)]),
    }
    for name, array in columns.items():
        if rng.random() < 0.6:
            atoms.set_array(name, array)
    values: dict[str, Any] = {
        "charge": int(rng.integers(-2, 3)),
        "spin": round(float(rng.normal()), 6),
        "label": str(rng.choice(["T", "007", "a b", 'say "x"', "none", "1e5", "-", "plain", "å"])),
        "bulk": bool(rng.random() < 0.5),
        "kpts": np.array([3, 3, int(rng.integers(1, 5))]),
        "settings": {"xc": "PBE", "smearing": [0.1, "T"]},
    }
    atoms.info = {name: value for name, value in values.items() if rng.random() < 0.6}
    if rng.random() < 0.5:
        atoms.set_constraint(FixAtoms(np.flatnonzero(rng.random(n) < 0.5)))
    return atoms


def check_same(a: Atoms, b: Atoms, *, without: tuple[str, ...] = ()) -> None:
    """All that ``a`` carries is in ``b``, and nothing else is."""
    for name in ("numbers", "positions", "pbc"):
        np.testing.assert_allclose(getattr(b, name), getattr(a, name), atol=1e-8)
    np.testing.assert_allclose(b.cell.array, a.cell.array, atol=1e-8)
    assert b.arrays.keys() == a.arrays.keys()
    for name, array in a.arrays.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(b.arrays[name], array, atol=1e-8, err_msg=name)
        else:
            assert (b.arrays[name] == array).all() and b.arrays[name].dtype.kind in array.dtype.kind + "O", (
                name
            )
    fixed = [set(np.concatenate([one.index for one in x.constraints] or [[]])) for x in (a, b)]
    assert fixed[0] == fixed[1]
    info = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in b.info.items()
        if name not in without
    }
    assert info.keys() == a.info.keys()
    for name, value in a.info.items():
        assert type(info[name]) is type(value) and np.array_equal(info[name], value), (
            name,
            info[name],
            value,
        )


@pytest.mark.parametrize("seed", range(30))
def test_everything_is_carried_through_every_form(tmp_path: Path, seed: int) -> None:
    images = [dressed(3 * seed + k) for k in range(3)]
    systems = Systems.from_atoms(images)
    for a, b in zip(images, systems.to_atoms(), strict=True):
        check_same(a, b)
    order = [2, 0, 0, 1, 2]
    chosen = Systems.concatenate([systems.select(order).to(dtype=torch.float32), systems[1].repeat(2)])
    assert chosen.masses.dtype == torch.float64
    for k, atoms in zip([*order, 1, 1], chosen.to(dtype=torch.float64).to_atoms(), strict=True):
        atoms.positions, atoms.cell = images[k].positions, images[k].cell
        check_same(images[k], atoms)
    systems.save(tmp_path / "systems.safetensors")
    for a, b in zip(images, Systems.load(tmp_path / "systems.safetensors").to_atoms(), strict=True):
        check_same(a, b)
    write_extxyz(tmp_path / "all.extxyz", images)
    for a, b in zip(images, ase.io.read(tmp_path / "all.extxyz", ":"), strict=True):
        check_same(a, b)


@pytest.mark.parametrize("seed", range(12))
def test_minima_keep_it(tmp_path: Path, seed: int) -> None:
    """In the store, in a store that it was merged into, in extxyz and in the ASE database."""
    images = [dressed(seed, n) for n in (3, 4)]
    systems, facts = Systems.from_atoms(images), {"max_force": 0.0, "potential": "p"}
    own = ("point_group", "hits", "rank", "max_force")
    with MinimaStore(tmp_path / "a.db") as other, MinimaStore(tmp_path / "b.db") as store:
        for k in range(2):
            other.add(Minimum.of(systems, k, float(k), **facts))
        assert store.merge_from(other) == 2
        store.to_extxyz(tmp_path / "minima.extxyz")
        store.to_ase_db(tmp_path / "minima.ase.db")
        for a, minimum in zip(images, store, strict=True):
            check_same(a, minimum.to_atoms(1), without=own)
            check_same(a, minimum.system().to_atoms()[0])
    for k, (a, b) in enumerate(zip(images, ase.io.read(tmp_path / "minima.extxyz", ":"), strict=True)):
        assert b.get_potential_energy() == k and b.info["rank"] == k + 1
        check_same(a, b, without=own)
    with connect(tmp_path / "minima.ase.db") as database:
        rows = list(database.select())
    for a, row in zip(images, rows, strict=True):
        b = row.toatoms()
        for name, array in row.data.get("arrays", {}).items():
            b.set_array(name, np.array(array))
        info = row.data.get("info", {})
        assert info == {name: value.tolist() if name == "kpts" else value for name, value in a.info.items()}
        b.info = dict(a.info)
        check_same(a, b)


def test_a_lower_copy_brings_its_own(tmp_path: Path) -> None:
    """Atoms come in the order of the copy that is kept, and so does what they carry."""
    atoms = Atoms("Cu3", positions=[[0, 0, 0], [2.5, 0, 0], [0, 2.6, 0]], tags=[1, 2, 3])
    atoms.set_constraint(FixAtoms([2]))
    turned = atoms[[2, 0, 1]]
    systems = Systems.from_atoms([atoms, turned])
    with MinimaStore(tmp_path / "minima.db") as store:
        store.add(Minimum.of(systems, 0, -1.0, max_force=0.0, potential="p"))
        store.add(Minimum.of(systems, 1, -1.0001, max_force=0.0, potential="p"))
        (kept,) = store
    check_same(turned, kept.to_atoms(1), without=("point_group", "hits", "rank", "max_force"))


def test_masses() -> None:
    np.testing.assert_array_equal(MASSES, ase.data.atomic_masses)
    plain, heavy = Atoms("HCu"), Atoms("HO")
    heavy.set_masses([2.014, None])
    systems = Systems.from_atoms([plain, heavy])
    assert systems.masses.tolist() == [1.008, 63.546, 2.014, 15.999]
    assert [one.has("masses") for one in systems.to_atoms()] == [False, True]
    assert systems.select([1, 0]).masses.tolist() == [2.014, 15.999, 1.008, 63.546]
    assert AtomsLandscape(systems, Potential()).select(torch.tensor([1])).masses.tolist() == [2.014, 15.999]
    assert Systems.cluster([1, 8]).masses.tolist() == [1.008, 15.999]
    heavy.set_array("masses", np.array([2.0, -1.0]))
    with pytest.raises(
        InputError, match=r"structure 1: atom 1 has the mass -1\.0; give positive masses in atomic"
    ):
        Systems.from_atoms([plain, heavy])


def test_what_belongs_to_old_positions_is_dropped() -> None:
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.5]], tags=[1, 2], momenta=np.ones((2, 3)))
    for name in STALE:
        atoms.info[name] = 1.0
        if name != "momenta":
            atoms.set_array(name, np.ones(2))
    atoms.info["total_charge"] = 1
    (back,) = Systems.from_atoms(atoms).to_atoms()
    assert back.info == {"total_charge": 1} and set(back.arrays) == {"numbers", "positions", "tags"}


def test_copies_are_apart() -> None:
    """Neither the atoms that came nor those that went change what is carried."""
    atoms = Atoms("Cu", info={"settings": {"xc": "PBE"}}, tags=[4])
    systems = Systems.from_atoms(atoms)
    for one in (atoms, systems.to_atoms()[0]):
        one.info["settings"]["xc"] = "LDA"
        one.arrays["tags"][0] = 9
    (back,) = systems.to_atoms()
    assert back.info == {"settings": {"xc": "PBE"}} and back.get_tags().tolist() == [4]
    with pytest.raises(ValueError, match="read-only"):
        systems.templates[0].arrays["tags"][0] = 1


def test_what_no_file_can_hold_stops_no_writing(tmp_path: Path) -> None:
    atoms = Atoms("Cu2", info={"handle": object(), "good": 1, "a b": 2, "mixed": {"x": {1, 2}, "y": [1]}})
    atoms.set_array("cube", np.zeros((2, 3, 3)))
    atoms.set_array("things", np.array([object(), None]))
    atoms.set_array("words", np.array(["a b", ""]))
    systems = Systems.from_atoms(atoms)
    assert systems.to_atoms()[0].arrays["cube"].shape == (2, 3, 3)
    write_extxyz(tmp_path / "a.extxyz", systems.to_atoms())
    back = ase.io.read(tmp_path / "a.extxyz")
    assert back.info == {"good": 1, "mixed": {"y": [1]}} and len(back) == 2
    systems.save(tmp_path / "a.safetensors")
    template = Systems.load(tmp_path / "a.safetensors").templates[0]
    assert set(template.arrays) == {"cube", "words"} and set(template.info) == {"good", "a b", "mixed"}


def test_refusals() -> None:
    pos, z, ptr = torch.zeros(2, 3), torch.ones(2, dtype=torch.int64), torch.tensor([0, 2])
    worn, template = torch.zeros(1, dtype=torch.int64), Template({"tags": np.arange(3)})
    with pytest.raises(InputError, match="there are 0 templates, and no number 0"):
        Systems(pos, z, ptr, template=worn)
    with pytest.raises(InputError, match="the template of system 0 is not of its 2 atoms"):
        Systems(pos, z, ptr, template=worn, templates=(template,))
    with pytest.raises(InputError, match=r"`given_masses` must have shape \(2,\)"):
        Systems(pos, z, ptr, given_masses=torch.ones(3))
    with pytest.raises(InputError, match="not what a structure carries: '7'"):
        Template.from_json("7")
    with pytest.raises(InputError, match=r"Minimum\(fixed=...\) must have shape \(1,\), got \(2,\)"):
        Minimum(0.0, np.zeros((1, 3)), np.ones(1, int), fixed=np.zeros(2, bool), max_force=0.0, potential="p")


def test_files_of_before_are_read(tmp_path: Path) -> None:
    """Version 1 of the structures' format, and schema 1 of the minima's."""
    systems = Systems.cluster([1, 8], 2)
    names = ("pos", "z", "ptr", "cell", "pbc", "fixed")
    about = {"format": "mlopt-systems", "version": "1"}
    path = tmp_path / "old.safetensors"
    path.write_bytes(serialize({name: getattr(systems, name) for name in names}, metadata=about))
    assert torch.equal(Systems.load(path).z, systems.z) and Systems.load(path).templates == ()
    one = Systems.from_atoms(Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.5]]))
    with MinimaStore(tmp_path / "old.db") as store:
        store.add(Minimum.of(one, 0, -1.0, max_force=0.0, potential="p", source="s"))
    with sqlite3.connect(tmp_path / "old.db") as database:
        for name in ("notes", "fixed", "masses", "template"):
            database.execute(f"ALTER TABLE minima DROP COLUMN {name}")
        database.execute("PRAGMA user_version = 1")
    database.close()
    with MinimaStore(tmp_path / "old.db") as store, MinimaStore(tmp_path / "old.db") as again:
        assert [minimum.fixed for minimum in store] == [None]
        tagged = Systems.from_atoms(Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.5]], tags=[1, 2]))
        assert again.add(Minimum.of(tagged, 0, -1.0001, max_force=0.0, potential="p")) == (1, False)
        assert store.get(1).to_atoms(1).get_tags().tolist() == [1, 2]
