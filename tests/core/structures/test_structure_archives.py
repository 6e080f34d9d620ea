"""ASE's own files are data: a few words of JSON cannot make them allocate, compute or unpickle."""

from __future__ import annotations

import json
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import jsonio, ulm

from mlopt.core.errors import InputError
from mlopt.core.structures.read import read_atoms, read_structures

HUGE = 2**33
ROW: dict[str, Any] = {
    "numbers": [18, 18],
    "positions": [[0, 0, 0], [0, 0, 4]],
    "cell": np.eye(3).tolist(),
    "pbc": [0] * 3,
}


def refused(file: Path) -> str:
    """What is said, after less than 20 MB were allocated."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            read_atoms(file)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and message.isprintable() and len(message) < 500
    return message


def array(shape: list[int], flat: object, dtype: str = "float64") -> dict[str, object]:
    return {"__ndarray__": [shape, dtype, flat]}


def database(**more: object) -> dict[str, object]:
    return {"1": ROW | more, "ids": [1], "nextid": 2}


def rich() -> list[Atoms]:
    """Structures with everything that the files can hold."""
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    crystal.set_constraint(FixAtoms([1]))
    crystal.calc = SinglePointCalculator(crystal, energy=-1.0, forces=np.zeros((8, 3)))
    crystal.set_initial_magnetic_moments(np.arange(8.0))
    crystal.info["deep"] = {"a": np.arange(3), "b": [1, {"c": 2j}]}
    cluster = Atoms("Ar2", [[0, 0, 0], [0, 0, 4]], tags=[1, 2])
    return [crystal, cluster, crystal]


@pytest.mark.parametrize("name", ["a.traj", "a.json"])
def test_sound_files_are_read_as_ase_reads_them(tmp_path: Path, name: str) -> None:
    ase.io.write(tmp_path / name, rich())
    found, expected = read_atoms(tmp_path / name), ase.io.read(tmp_path / name, ":")
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        assert (
            one == other
            and str(one.info) == str(other.info)
            and str(one.constraints) == str(other.constraints)
        )
        assert one.arrays.keys() == other.arrays.keys()
        assert (one.calc is None) == (other.calc is None)


@pytest.mark.parametrize(
    "content, message",
    [
        (database(positions=array([HUGE, 3], 0.0)), "is no array of numbers"),
        (database(positions=array([HUGE, 3], [0.0])), "has 1 numbers"),
        (database(positions=array([2, 3], [0.0] * 6, "O")), "is no array of numbers"),
        (database(positions=array([2, 3], [0.0] * 6, "S99999999")), "is no array of numbers"),
        (database(positions=array([-2, 3], [0.0] * 6)), "is no array of numbers"),
        (database(data=json.dumps({"x": array([HUGE], 0.0)})), "is no array of numbers"),
        (database(constraints=json.dumps([{"x": array([HUGE], [0.0])}])), "has 1 numbers"),
        (
            database(calculator_parameters=json.dumps(json.dumps({"x": array([HUGE], [0.0])}))),
            "has 1 numbers",
        ),
        (
            database(data=" " + json.dumps({"x": array([HUGE], [0.0])}).replace("_", "\\u005f")),
            "has 1 numbers",
        ),
        (database(cell={"__ase_objtype__": "bandpath", "labelseq": "GX"}), "holds the object 'bandpath'"),
        (database(cell={"__ase_objtype__": "vibrationsdata"}), "holds the object 'vibrationsdata'"),
        (database() | {"ids": [1] * 100_000}, "`ids` names a row more than once"),
        (database() | {"ids": array([2], [1, 1], "int64")}, "`ids` names a row more than once"),
        (database(constraints=[{"name": "os.system", "kwargs": {"command": "false"}}]), "malformed"),
        ([1, 2], "malformed"),
    ],
)
def test_json_allocates_and_makes_nothing(tmp_path: Path, content: object, message: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content))
    assert message in refused(file)


def test_json_that_is_nested_without_end(tmp_path: Path) -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000, "9" * 10_000):
        (tmp_path / "a.json").write_text(text)
        assert "malformed" in refused(tmp_path / "a.json")


def trajectory(file: Path, **more: object) -> bytearray:
    with ulm.open(file, "w", tag="ASE-Trajectory") as writer:
        writer.write(version=1, ase_version="3.29.0", pbc=[False] * 3, numbers=np.array([18, 18]))
        writer.write(positions=np.array(ROW["positions"], dtype=float), cell=ROW["cell"], **more)
    return bytearray(file.read_bytes())


def test_trajectories_that_claim_more_than_they_hold(tmp_path: Path) -> None:
    file = tmp_path / "a.traj"
    data = trajectory(file)
    assert len(read_atoms(file)) == 1
    table = struct.unpack_from("<q", data, 40)[0]
    place = struct.unpack_from("<q", data, table)[0]

    def changed(offset: int, value: int, message: str) -> None:
        other = bytearray(data)
        struct.pack_into("<q", other, offset, value)
        file.write_bytes(other)
        assert message in refused(file)

    for value in (HUGE, -1, 2**62):
        changed(32, value, "it is cut short or damaged")  # number of frames
        changed(40, value, "it is cut short or damaged")  # where their table is
        changed(table, value, "lies outside the file")  # where a frame is
        changed(place, value, "is longer than the file")  # how long it is
    text = bytes(data[place + 8 :])
    assert b'"ndarray": [[2, 3], "float64"' in text
    for old, new, message in (
        (b"[2, 3]", b"[2,33]", "reaches beyond the file"),
        (b"[2, 3]", b"[-2,3]", "is no array of numbers"),
        (b"float64", b"object_", "is no array of numbers"),
    ):
        file.write_bytes(data[: place + 8] + text.replace(old, new))
        assert message in refused(file)


def test_trajectories_whose_frames_are_one_and_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a.traj"
    numbers = np.full(20_000, 18)
    with ulm.open(file, "w", tag="ASE-Trajectory") as writer:
        writer.write(
            version=1, pbc=[False] * 3, numbers=numbers, positions=np.zeros((20_000, 3)), cell=ROW["cell"]
        )
    data = bytearray(file.read_bytes())
    place = struct.unpack_from("<q", data, struct.unpack_from("<q", data, 40)[0])[0]
    struct.pack_into("<qq", data, 32, 5_000, len(data))
    file.write_bytes(data + struct.pack("<5000q", *[place] * 5_000))
    assert "its arrays are larger than the file" in refused(file)


def test_strings_of_trajectories_are_looked_through(tmp_path: Path) -> None:
    file = tmp_path / "a.traj"
    bomb = jsonio.encode([{"name": "FixAtoms", "kwargs": {"indices": array([HUGE], [0.0])}}])
    trajectory(file, constraints=bomb)
    assert "has 1 numbers" in refused(file)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "harm",))

    for name in ("a.traj", "a.json", "a.xyz", "a.cif", "a.pdb", "a.con", "POSCAR"):
        for head in (b"", b"PickleTrajectory", b"- of UlmASE-Trajectory  "):
            (tmp_path / name).write_bytes(head + pickle.dumps(Harm()))
            with pytest.raises(InputError):
                read_structures(tmp_path / name)
    assert not (tmp_path / "harm").exists()
    (tmp_path / "a.traj").write_bytes(b"PickleTrajectory")
    assert "those of before 2014 are pickles, which mlopt does not read" in refused(tmp_path / "a.traj")
