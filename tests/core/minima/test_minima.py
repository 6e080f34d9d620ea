"""The minima store: what merges, what does not, and what survives other writers, kills and foreign files."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mlopt.core.errors import InputError, MloptError
from mlopt.core.minima.store import MinimaStore, Minimum, verify
from mlopt.core.minima.symmetry import PointGroup

Floats = NDArray[np.float64]
POTENTIAL = '{"name":"lennard-jones"}'


def amorphous(n: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    pos: list[Floats] = []
    while len(pos) < n:
        trial = rng.uniform(-1, 1, 3) * 0.8 * n ** (1 / 3)
        if all(np.linalg.norm(trial - known) > 0.9 for known in pos):
            pos.append(trial)
    return np.array(pos)


def minimum(seed: int = 0, n: int = 8, energy: float = -10.0, **others: object) -> Minimum:
    base = Minimum(energy, amorphous(n, seed), np.full(n, 18), max_force=1e-5, potential=POTENTIAL)
    return replace(base, **others)  # type: ignore[arg-type]


def moved(of: Minimum, seed: int, mirror: bool = False) -> Minimum:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(of.pos))
    rotation = Rotation.random(None, rng).as_matrix() * (-1 if mirror else 1)
    return replace(of, pos=(of.pos @ rotation.T + rng.normal(size=3))[order], z=of.z[order])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MinimaStore]:
    with MinimaStore(tmp_path / "minima.db") as opened:
        yield opened


def integrity(path: Path) -> str:
    database = sqlite3.connect(path)
    try:
        return str(database.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        database.close()


def test_a_record_comes_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    original = minimum(
        energy=-173.92842659128473,
        cell=rng.normal(size=(3, 3)),
        pbc=np.array([True, False, True]),
        rms_force=1.2345e-6,
        point_group=PointGroup("C3v", 6),
        first_run="run-7",
        seed=2**64 - 1,
        start_index=np.int64(12),
        force_calls=np.int64(3_000_000_000),
    )
    with MinimaStore(tmp_path / "minima.db") as store:
        identifier, new = store.add(original)
        assert new
    with MinimaStore(tmp_path / "minima.db") as store:
        found = store.get(identifier)
        assert len(store) == 1
    for name in ("pos", "z", "cell", "pbc"):
        assert getattr(found, name).tobytes() == getattr(original, name).tobytes(), name
    for name in ("energy", "max_force", "rms_force", "point_group", "first_run", "seed", "start_index"):
        assert getattr(found, name) == getattr(original, name), name
    assert (found.force_calls, found.potential, found.hits) == (3_000_000_000, POTENTIAL, 1)


@pytest.mark.parametrize("mirror", [False, True])
def test_moved_and_mirrored_copies_are_hits_of_one_minimum(store: MinimaStore, mirror: bool) -> None:
    first = minimum(n=20)
    identifier, new = store.add(first)
    assert new
    for seed in range(5):
        assert store.add(moved(first, seed, mirror)) == (identifier, False)
    assert len(store) == 1 and store.get(identifier).hits == 6


def test_different_structures_of_equal_energy_stay_apart(store: MinimaStore) -> None:
    identifiers = [store.add(minimum(seed, n=13))[0] for seed in range(6)]
    assert len(set(identifiers)) == len(store) == 6
    assert store.add(moved(minimum(3, n=13), 1)) == (identifiers[3], False)


def test_swapped_species_other_potentials_and_other_energies_stay_apart(store: MinimaStore) -> None:
    first = minimum(n=6, z=np.array([18, 36, 36, 36, 36, 36]))
    swapped = replace(first, z=np.array([36, 18, 36, 36, 36, 36]))
    inverse = replace(first, z=np.array([36, 18, 18, 18, 18, 18]))
    others = [swapped, inverse, replace(first, potential="{}"), replace(first, energy=-10.1)]
    assert all(store.add(one)[1] for one in [first, *others])
    assert len(store) == 5


def test_the_lower_energy_is_kept_and_the_discovery_remembered(store: MinimaStore) -> None:
    first = minimum(energy=-10.0, first_run="first", force_calls=5)
    better = replace(moved(first, 1), energy=-10.0005, first_run="second", max_force=1e-7, force_calls=9)
    worse = replace(moved(first, 2), energy=-10.0002, first_run="third")
    identifier = store.add(first)[0]
    store.add(better)
    store.add(worse)
    found = store.get(identifier)
    assert (found.energy, found.max_force) == (-10.0005, 1e-7)
    assert np.array_equal(found.pos, better.pos)
    assert (found.first_run, found.force_calls, found.hits) == ("first", 5, 3)


def test_adding_a_source_again_changes_nothing(store: MinimaStore) -> None:
    first = minimum(source="run-1/3/0")
    identifier = store.add(first)[0]
    assert store.add(first) == (identifier, False)
    assert store.add(replace(first, energy=-99.0)) == (identifier, False)
    assert (store.get(identifier).hits, store.get(identifier).energy) == (1, -10.0)
    store.add(replace(first, source="run-1/4/0"))
    assert store.get(identifier).hits == 2


def test_point_groups_are_filled_in_for_finite_structures_only(store: MinimaStore) -> None:
    square = np.array([[1.0, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]])
    finite = minimum(n=4, pos=square)
    periodic = replace(finite, cell=np.eye(3) * 5, pbc=np.ones(3, dtype=bool))
    overlapping = minimum(n=2, pos=np.array([[0.0, 0, 0], [0, 0, 1e-3]]))
    groups = [store.get(store.add(one)[0]).point_group for one in (finite, periodic, overlapping)]
    assert groups == [PointGroup("D4h", 16), None, None]


def test_order_and_selection(store: MinimaStore) -> None:
    energies = [-3.0, -7.5, -1.0, -7.4999, -5.0]
    for seed, energy in enumerate(energies):
        store.add(minimum(seed, n=9, energy=energy))
    store.add(minimum(1, n=5, energy=-20.0))
    store.add(minimum(1, n=5, energy=-30.0, z=np.array([8, 1, 1, 8, 1]), potential="water"))
    assert [one.energy for one in store] == [-30.0, -20.0, *sorted(energies)]
    assert [one.energy for one in store.lowest(2, composition="Ar9")] == [-7.5, -7.4999]
    assert [one.energy for one in store.lowest(9, composition=[18] * 5)] == [-20.0]
    assert [one.energy for one in store.lowest(9, composition="H3O2")] == [-30.0]
    assert [one.energy for one in store.lowest(1, potential=POTENTIAL)] == [-20.0]
    assert store.lowest(0) == [] and store.lowest(3, composition="Kr") == []
    with pytest.raises(InputError, match="'argon!' is not a formula"):
        store.lowest(1, composition="argon!")
    with pytest.raises(InputError, match=r"lowest\(k=...\) must not be negative"):
        store.lowest(-1)


def test_merging_is_complete_and_may_be_repeated(tmp_path: Path) -> None:
    with MinimaStore(tmp_path / "a.db") as a, MinimaStore(tmp_path / "b.db") as b:
        for seed in (0, 1, 2):
            a.add(minimum(seed, energy=-seed))
        for seed in (2, 3, 3):
            b.add(moved(minimum(seed, energy=-seed), seed, mirror=True))
        assert a.merge_from(b) == 1
        expected = [(-3.0, 2), (-2.0, 2), (-1.0, 1), (0.0, 1)]
        assert [(one.energy, one.hits) for one in a] == expected
        assert a.merge_from(b) == 0
        assert [(one.energy, one.hits) for one in a] == expected
        assert b.merge_from(a) == 2
        assert [(one.energy, one.hits) for one in b] == expected
        with pytest.raises(InputError, match="cannot be merged into itself"):
            a.merge_from(a)


WRITER = """
import sys
import numpy as np
from mlopt.core.minima.store import Minimum, MinimaStore
path, worker, count, forever = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "forever"
shapes = np.random.default_rng(0).uniform(-3, 3, size=(count, 6, 3))
rng = np.random.default_rng(worker)
with MinimaStore(path) as store:
    print("ready", flush=True)
    turn = 0
    while turn == 0 or forever:
        for index in rng.permutation(count):
            order = rng.permutation(6)
            minimum = Minimum(
                -1.0, shapes[index][order] * rng.choice([-1, 1]), np.full(6, 18), max_force=0.0,
                potential="shared", source=f"{worker}/{turn}/{index}",
            )
            store.add(minimum)
        turn += 1
"""


def writer(path: Path, worker: int, count: int, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(worker), str(count), how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_four_processes_lose_nothing_and_leave_no_duplicate(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    writers = [writer(path, worker, 25, "once") for worker in range(4)]
    for process in writers:
        assert process.communicate(timeout=60)[1] == "" and process.returncode == 0
    with MinimaStore(path) as store:
        assert [one.hits for one in store] == [4] * 25
    assert integrity(path) == "ok"


def test_a_killed_writer_neither_corrupts_nor_blocks(tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    for round_number in range(3):
        process = writer(path, round_number, 15, "forever")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with MinimaStore(path) as store:
            before = sum(one.hits for one in store)
            while (
                sum(one.hits for one in store) < before + 20 + round_number
            ):  # surely in the middle of its work
                assert process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.communicate()
            after = sum(one.hits for one in store)
            identifier, new = store.add(minimum(5, potential="next writer", source=f"next/{round_number}"))
            assert new is (round_number == 0)
            assert sum(one.hits for one in store) == after + 1
            shared = [one for one in store if one.potential == "shared"]
            assert store.get(identifier).hits == round_number + 1 and 0 < len(shared) <= 15
        assert integrity(path) == "ok"


def test_killed_inside_a_transaction_leaves_the_state_before(tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    with MinimaStore(path) as store:
        store.add(minimum(0))
    script = f"""
import os, signal
from mlopt.core.minima.store import MinimaStore
store = MinimaStore({str(path)!r})
with store._writing():
    store._database.execute("DELETE FROM minima")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    with MinimaStore(path) as store:
        assert len(store) == 1 and store.add(minimum(1))[1]
    assert integrity(path) == "ok"


def test_a_failure_inside_adding_rolls_back(store: MinimaStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store, "_insert", fail)
        with pytest.raises(KeyboardInterrupt):
            store.add(minimum(0, source="interrupted"))
    assert len(store) == 0
    assert store.add(minimum(0, source="interrupted"))[1]


def test_files_that_are_not_ours_are_refused_untouched(tmp_path: Path) -> None:
    text = tmp_path / "notes.db"
    text.write_text("not a database, but longer than a header")
    foreign = tmp_path / "foreign.db"
    database = sqlite3.connect(foreign)
    database.execute("CREATE TABLE systems (id INTEGER)")
    database.commit()
    database.close()
    before = text.read_bytes(), foreign.read_bytes()
    with pytest.raises(InputError, match=r"notes\.db is not a SQLite file, so not a minima store"):
        MinimaStore(text)
    with pytest.raises(InputError, match=r"foreign\.db is a SQLite file of another program"):
        MinimaStore(foreign)
    assert (text.read_bytes(), foreign.read_bytes()) == before
    with pytest.raises(InputError, match="is a folder: name the file"):
        MinimaStore(tmp_path)
    with pytest.raises(InputError, match="check that its folder exists and is writable"):
        MinimaStore(tmp_path / "absent" / "minima.db")
    empty = tmp_path / "empty.db"
    empty.touch()
    with MinimaStore(empty) as store:
        assert len(store) == 0


def test_newer_schema_other_tolerances_and_altered_blobs_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "minima.db"
    with MinimaStore(path, energy_window=1e-4) as store:
        assert (store.energy_window, store.distance_tolerance) == (1e-4, 0.05)
        store.add(minimum())
    with MinimaStore(path) as store:
        assert store.energy_window == 1e-4
    with pytest.raises(InputError, match=r"created with energy_window=0\.0001, not 0\.01"):
        MinimaStore(path, energy_window=0.01)
    with pytest.raises(InputError, match=r"distance_tolerance=\.\.\.\) must be positive, got 0"):
        MinimaStore(path, distance_tolerance=0)
    database = sqlite3.connect(path)
    database.execute("UPDATE minima SET pos = substr(pos, 1, 100)")
    database.commit()
    with (
        MinimaStore(path) as store,
        pytest.raises(MloptError, match="pos of minimum 1 has 100 bytes instead of 192"),
    ):
        store.get(1)
    database.execute("PRAGMA user_version = 99")
    database.commit()
    database.close()
    with pytest.raises(InputError, match=r"newer mlopt \(schema 99; this one reads up to 3\): upgrade"):
        MinimaStore(path)


def test_bad_minima_are_refused_before_they_reach_the_file() -> None:
    with pytest.raises(InputError, match=r"Minimum\(energy=...\) must be finite, got nan"):
        minimum(energy=float("nan"))
    with pytest.raises(InputError, match=r"max_force=...\) must be non-negative and finite, got inf"):
        minimum(max_force=float("inf"))
    with pytest.raises(InputError, match="z must be 8 integers"):
        minimum(z=np.array([18]))
    with pytest.raises(InputError, match=r"cell must be \(3, 3\)"):
        minimum(cell=np.zeros(3))
    with pytest.raises(ValueError, match="read-only"):
        minimum().pos[0] = 0


@pytest.mark.parametrize("kind", ["extxyz", "db"])
def test_exports_come_back_through_ase(store: MinimaStore, tmp_path: Path, kind: str) -> None:
    import ase.db
    import ase.io

    square = np.array([[1.0, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]])
    store.add(minimum(0, energy=-1.0 / 3))
    store.add(minimum(0, energy=-1.0 / 3))
    store.add(minimum(n=4, pos=square, energy=-2.0 / 3))
    store.add(minimum(7, energy=-0.1, point_group=PointGroup("T", 12)))
    store.add(minimum(n=2, pos=np.array([[0.0, 0, 0], [0, 0, 1.1]]), energy=0.0))
    path = tmp_path / f"lowest.{kind}"
    for _ in range(2):  # the second time replaces the first
        (store.to_extxyz if kind == "extxyz" else store.to_ase_db)(path)
    images = ase.io.read(path, index=":")
    assert [atoms.get_potential_energy() for atoms in images] == pytest.approx(
        [-2 / 3, -1 / 3, -0.1, 0.0], abs=1e-12
    )
    for atoms, one in zip(images, store, strict=True):
        np.testing.assert_allclose(atoms.positions, one.pos, atol=1e-8)
        assert np.array_equal(atoms.numbers, one.z) and not atoms.pbc.any()
    if kind == "extxyz":
        labels = [atoms.info for atoms in images]
    else:
        with ase.db.connect(path) as database:  # type: ignore[no-untyped-call]
            labels = [row.key_value_pairs for row in database.select()]
    assert [label["point_group"] for label in labels] == ["D4h", "C1", "T", "D*h"]
    assert [label["hits"] for label in labels] == [1, 2, 1, 1]
    assert [label["rank"] for label in labels] == [1, 2, 3, 4]
    assert sorted(file.name for file in tmp_path.iterdir() if not file.name.startswith("minima")) == [
        path.name
    ]


def test_exports_of_a_selection_and_of_nothing(store: MinimaStore, tmp_path: Path) -> None:
    import ase.io

    store.to_extxyz(tmp_path / "none.extxyz")
    assert (tmp_path / "none.extxyz").read_text() == ""
    store.to_ase_db(tmp_path / "none.db")
    assert (tmp_path / "none.db").exists()
    for seed in range(3):
        store.add(minimum(seed, energy=-seed))
    store.to_extxyz(tmp_path / "two.extxyz", store.lowest(2))
    assert [atoms.get_potential_energy() for atoms in ase.io.read(tmp_path / "two.extxyz", index=":")] == [
        -2,
        -1,
    ]
    with pytest.raises(MloptError, match="does not exist"):
        store.to_extxyz(tmp_path / "absent" / "two.extxyz")


def test_verification_recomputes_from_the_stored_coordinates() -> None:
    def spring(pos: Floats, z: object, cell: object, pbc: object) -> tuple[float, Floats]:
        return 0.5 * float(np.sum(pos**2)), -pos

    at_rest = minimum(n=1, pos=np.full((1, 3), 1e-6), energy=0.0)
    result = verify(at_rest, spring, force_tolerance=1e-5, energy_tolerance=1e-9)
    assert result.ok and result.reason == "" and result.max_force == pytest.approx(3**0.5 * 1e-6)
    moved_away = replace(at_rest, pos=np.ones((1, 3)))
    result = verify(moved_away, spring, force_tolerance=1e-5, energy_tolerance=1e-9)
    assert not result.ok and result.energy == 1.5
    assert "energy 1.5 differs from the stored 0.0" in result.reason and "largest force 1.73" in result.reason
    broken = verify(at_rest, lambda *_: (float("nan"), np.zeros((1, 3))), 1e-5, 1e-9)
    assert not broken.ok and "nan" in broken.reason
    with pytest.raises(InputError, match=r"must return forces of shape \(1, 3\), got \(3,\)"):
        verify(at_rest, lambda *_: (0.0, np.zeros(3)), 1e-5, 1e-9)
