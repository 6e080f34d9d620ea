"""Inputs for `mlopt.core.testing.fuzz`: damaged files of structures and spins, and damaged configurations."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mlopt.cli.configs import sources
from mlopt.core.testing.mutations import NUMBERS, WORDS, mutated, mutated_settings


def structure_files(seed: int, folder: Path) -> Callable[[int], None]:
    """Return a function that tries file ``index``: a sound file of some format, mutated, and read as a run reads it.

    folder: for the files, one for each index, removed after it.
    """
    from mlopt.core.atoms.systems import Systems
    from mlopt.core.structures.read import read_structures
    from mlopt.potentials.spins import read_spins

    lattice, files = _spins(folder)
    files |= _structures(folder)
    names = sorted(files)
    contents = list(files.values())

    def attempt(index: int) -> None:
        random = np.random.default_rng((seed, index))
        name = names[index % len(names)]
        folder_of_one = folder / str(index)
        folder_of_one.mkdir()
        file = folder_of_one / name
        try:
            file.write_bytes(mutated(files[name], contents, random))
            if file.suffix in (".ovf", ".npy"):
                read_spins(file, lattice)
            elif file.suffix == ".safetensors":
                Systems.load(file)
            else:
                read_structures(file)
        finally:
            file.unlink()
            folder_of_one.rmdir()

    return attempt


def configurations(seed: int, folder: Path) -> Callable[[int], None]:
    """Return a function that tries configuration ``index``: a recipe or the template, mutated and validated."""
    texts = {name: sources.recipe(name) for name in sources.recipe_paths()}
    texts["template"] = sources.TEMPLATE.read_text(encoding="utf-8")
    names = sorted(texts)
    data = {name: text.encode() for name, text in texts.items()}
    settings = {name: yaml.safe_load(text) for name, text in texts.items()}

    def attempt(index: int) -> None:
        random = np.random.default_rng((seed, index))
        name = names[index % len(names)]
        if random.random() < 0.7:
            changed = mutated_settings(settings[name], random)
            content = yaml.safe_dump(changed, allow_unicode=bool(random.random() < 0.5)).encode(
                "utf-8", "replace"
            )
            if random.random() < 0.2:
                content = _anchored(content, random)
        else:
            content = mutated(data[name], list(data.values()), random)
        file = folder / f"{index}.yaml"
        file.write_bytes(content)
        try:
            sources.find(str(file)).experiment()
        finally:
            file.unlink()

    return attempt


def command_lines(seed: int, folder: Path | None = None) -> Callable[[int], None]:
    """Return a function that tries unexpected assignments ``-s key=value`` on a recipe. Needs no folder."""
    known = [
        "starts",
        "budget.force_calls",
        "optimizer.temperature",
        "optimizer",
        "system.cluster",
        "moves.0.name",
    ]

    def attempt(index: int) -> None:
        random = np.random.default_rng((seed, index))

        def one(choices: Any) -> str:
            return str(choices[int(random.integers(len(choices)))])

        key = ".".join(one(known * 5 + WORDS) for _ in range(int(random.integers(1, 4))))
        more = [one(NUMBERS + WORDS)] if random.random() < 0.2 else []
        sources.find("lj13", [f"{key}={one(NUMBERS + WORDS)}", *more]).experiment()

    return attempt


def _anchored(content: bytes, random: np.random.Generator) -> bytes:
    """Return YAML with one of the features that mlopt's configurations do not have."""
    odd = [b": &a ", b": *a\n", b": !!python/object:os.system ", b": ${oc.env:HOME} ", b": ???\n", b"\n---\n"]
    lines = content.split(b": ")
    place = int(random.integers(1, len(lines) + 1))
    return b": ".join(lines[:place]) + odd[int(random.integers(len(odd)))] + b": ".join(lines[place:])


def _structures(folder: Path) -> dict[str, bytes]:
    """Return name and content of a sound file of every format."""
    import ase.io
    from ase import Atoms
    from ase.build import bulk
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.constraints import FixAtoms, FixCartesian

    from mlopt.core.atoms.systems import Systems

    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    crystal.rattle(0.05, seed=1)
    crystal.set_constraint(FixAtoms([0, 3]))
    calculator = SinglePointCalculator(crystal, energy=-1.5, forces=np.zeros((8, 3)))
    crystal.calc = calculator
    crystal.info["note"] = {"a": [1, 2]}
    cluster = Atoms(
        "Cu2OH", [[0, 0, 0], [0, 2.5, 0], [1.7, 1.2, 0.1], [2.6, 1.3, 0.2]], charges=[1, 1, -2, 0]
    )
    directions = bulk("Cu", cubic=True)
    directions.set_constraint([FixCartesian(1, (True, True, True))])
    made = {
        "a.extxyz": [crystal, crystal],
        "b.extxyz": [directions],
        "c.xyz": [cluster, cluster],
        "POSCAR": [crystal],
        "a.cif": [bulk("NaCl", "rocksalt", a=5.64, cubic=True)],
        "a.traj": [crystal, crystal],
        "b.traj": [cluster],
        "a.json": [crystal, cluster],
        "a.con": [crystal, crystal],
        "a.pdb": [cluster, crystal],
    }
    formats = {"POSCAR": "vasp", "a.con": "eon", "a.pdb": "proteindatabank"}
    for name, images in made.items():
        ase.io.write(folder / name, images if len(images) > 1 else images[0], format=formats.get(name))
    Systems.from_atoms([crystal, cluster]).save(folder / "a.safetensors")
    files = {name: (folder / name).read_bytes() for name in [*made, "a.safetensors"]}
    files["b.cif"] = _SYMMETRIC.encode()
    for name in files:
        (folder / name).unlink(missing_ok=True)
    return files


def _spins(folder: Path) -> tuple[Any, dict[str, bytes]]:
    """Return a lattice, and files of spins on it."""
    from mlopt.potentials.spins import RandomSpins, SpinLattice, write_spins

    lattice = SpinLattice(kind="cubic", repeat=[3, 2, 2], vacant=[4])
    chain = [RandomSpins(seed=seed).spins(lattice) for seed in range(2)]
    files = {}
    for name, kind in (("a.ovf", "text"), ("b.ovf", "binary 8"), ("c.ovf", "binary 4"), ("a.npy", "text")):
        write_spins(folder / name, chain, lattice, kind=kind)  # type: ignore[arg-type]
        files[name] = (folder / name).read_bytes()
        (folder / name).unlink()
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return lattice, files | {"b.npy": buffer.getvalue()}


_SYMMETRIC = """data_NaCl
_cell_length_a 5.64(1)
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
_symmetry_Int_Tables_number 225
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na+ 0 0 0 1.0
Cl1 Cl- 0.5 0.5 0.5 1.0
"""
