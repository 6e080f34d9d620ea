"""The experiment `search`, end to end: what it returns and writes, that it repeats itself, stops and goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import read, write
from numpy.typing import NDArray
from pydantic import PrivateAttr

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import minimize
from mlopt.core.driver.stop import Reason
from mlopt.core.errors import CheckpointError, InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.minima.matching import same_structure
from mlopt.core.minima.store import MinimaStore, Minimum, verify
from mlopt.core.runs.experiment import Preempted
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import Recorder, Resumed
from mlopt.optimizers.experiments.search.experiment import Search
from mlopt.optimizers.experiments.search.polish import Polish
from mlopt.optimizers.experiments.search.result import SearchResult
from mlopt.optimizers.local.fire import Fire
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.moves.basic import Angular, Displacement, Exchange
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.optimizers.searches.settings import Budget, MinimaSettings, Target
from mlopt.optimizers.starts.starts import GivenStart
from mlopt.potentials.ase.potential import AsePotential
from mlopt.potentials.classical.lennard_jones import LennardJones

#: Hoare & Pal, Adv. Phys. 20, 161 (1971), with the digits of the Cambridge Cluster Database
LJ7 = -16.505384
#: with the step spelled out: which starts hit within a small budget should not change with the default
HOPPING = BasinHopping(moves=[Displacement(step=0.36), Angular()])


def search(cluster: str = "Ar7", calls: int = 400, **settings: Any) -> Search:
    """A small one."""
    given: dict[str, Any] = {
        "system": SystemSpec(cluster=cluster),
        "potential": LennardJones(),
        "optimizer": HOPPING,
        "starts": 4,
        "budget": Budget(force_calls=calls),
        "minima": MinimaSettings(keep=8),
    }
    return Search(**(given | settings))


class Counting(LennardJones):
    """Counts the systems that it evaluates."""

    _seen: list[int] = PrivateAttr(default_factory=list)

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        self._seen.append(len(systems))
        return super().evaluate(systems, stress=stress)


def same(a: SearchResult, b: SearchResult) -> None:
    """Bit for bit, but for the time it took."""
    ours, theirs = [one.summary() | {"wall_s": 0, "compile_s": 0} for one in (a, b)]
    assert ours == theirs
    assert a.table() == b.table()
    assert torch.equal(a.result.x, b.result.x) and torch.equal(a.result.pool_x, b.result.pool_x)
    assert torch.equal(a.result.trace_energy, b.result.trace_energy)
    assert torch.equal(a.polished.systems.pos, b.polished.systems.pos)
    assert [m.energy for m in a.minima] == [m.energy for m in b.minima]
    for one, other in zip(a.minima, b.minima, strict=True):
        assert np.array_equal(one.pos, other.pos) and one.start_index == other.start_index
        assert one.force_calls == other.force_calls and one.hits == other.hits


def lj(
    pos: NDArray[np.float64], z: NDArray[np.int64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
) -> tuple[float, NDArray[np.float64]]:
    """By ASE, for `verify`."""
    from ase.calculators.lj import LennardJones as AseLennardJones

    atoms = Atoms(z, pos, calculator=AseLennardJones(sigma=2 ** (-1 / 6), epsilon=1.0, rc=1e4))
    return float(atoms.get_potential_energy()), atoms.get_forces()


def test_in_memory() -> None:
    import pandas as pd

    potential = Counting()
    found = search(calls=500, potential=potential, target=Target(energy=LJ7, stop="start")).run()
    summary = found.summary()
    assert list(summary) == [
        *("status", "best_energy", "target_energy", "starts", "hits", "mean_calls_to_hit", "force_calls"),
        *("wall_s", "compile_s", "converged", "failed_starts", "unique_minima", "unverified_minima"),
        *("verified_within", "repeats_to", "units", "engine", "headline"),
    ]
    json.dumps(summary, allow_nan=False)
    assert summary["status"] == "finished" and summary["starts"] == 4 and summary["units"] == "reduced"
    assert summary["best_energy"] == pytest.approx(LJ7, abs=1e-6) == found.minima[0].energy
    # the polish included; looking again at what has been stored is no cost of the search
    assert sum(potential._seen) - summary["force_calls"] in (0, len(found.minima))
    assert 0 < summary["hits"] == sum(hit is not None for hit in found.first_hits)
    for hit, reason, calls in zip(
        found.first_hits, found.result.reason, found.result.calls.tolist(), strict=True
    ):
        assert (hit is None and calls == 500) or reason is not Reason.TARGET or hit == calls
    spent = [hit if hit is not None else 500 for hit in found.first_hits]
    assert summary["mean_calls_to_hit"] == pytest.approx(sum(spent) / summary["hits"])

    frame = pd.DataFrame(found.table())
    assert list(frame.columns) == [
        *("index", "energy", "fmax", "calls", "first_hit", "quenches", "reason", "polished_energy"),
    ]
    assert frame.polished_energy.tolist() == found.polished.energy.tolist()
    assert bool((frame.polished_energy <= frame.energy + 1e-9).all())
    atoms = found.atoms()
    assert len(atoms) == len(found.minima) == summary["unique_minima"] > 1
    assert [one.info["rank"] for one in atoms] == list(range(1, len(atoms) + 1))
    assert [one.get_potential_energy() for one in atoms] == [m.energy for m in found.minima]
    assert found.best is found.minima[0]


def test_a_hit_that_only_the_polish_reaches_is_counted_with_its_cost() -> None:
    found = search("Ar4", 3, target=Target(energy=-6.0, tolerance=1e-6)).run()
    assert found.result.first_hit.tolist() == [-1] * 4
    for hit, spent in zip(found.first_hits, found.polished.spent.tolist(), strict=True):
        assert hit == 3 + spent
    assert found.summary()["hits"] == 4 and found.summary()["converged"] is True
    missed = search("Ar4", 3, target=Target(energy=-6.1, tolerance=1e-6)).run().summary()
    assert missed["hits"] == 0 and missed["mean_calls_to_hit"] is None and missed["converged"] is False


def test_files(tmp_path: Path) -> None:
    context = Recorder(tmp_path / "run" / "results")
    found = search(calls=500).run(context)
    folder = tmp_path / "run" / "results"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("minima.ase.db", "minima.db", "minima.extxyz"),
        *("starts.extxyz", "starts.json", "trace.json"),
    ]
    rows = json.loads((folder / "starts.json").read_text())
    assert rows == found.table()
    trace = json.loads((folder / "trace.json").read_text())
    assert trace["calls"][-1] <= 500 and len(trace["energy"]) == len(trace["calls"]) > 20
    assert all(len(line) == 4 for line in trace["energy"])
    assert trace["energy"][-1] == found.result.energy.tolist() or trace["calls"][-1] < 500

    minima = read(folder / "minima.extxyz", ":")
    energies = [one.get_potential_energy() for one in minima]
    assert len(minima) > 1 and energies == sorted(energies)
    assert [one.info["rank"] for one in minima] == list(range(1, len(minima) + 1))
    for one, minimum in zip(minima, found.minima, strict=True):
        assert one.get_potential_energy() == pytest.approx(minimum.energy, abs=1e-7)
        assert np.allclose(one.positions, minimum.pos, atol=1e-8)
        assert lj(one.positions, one.numbers, one.cell[:], one.pbc)[0] == pytest.approx(
            minimum.energy, abs=1e-6
        )
    starts = read(folder / "starts.extxyz", ":")
    assert [one.info["polished_energy"] for one in starts] == pytest.approx(found.polished.energy.tolist())
    with connect(folder / "minima.ase.db") as database:
        stored = [row.energy for row in database.select(sort="energy")]
    assert stored == [minimum.energy for minimum in found.minima]
    with MinimaStore(folder / "minima.db") as store:
        kept = list(store)
        assert [m.energy for m in kept] == [m.energy for m in found.minima]
        assert {m.first_run for m in kept} == {"run"} and {m.seed for m in kept} == {0}
    for minimum in kept:
        told = verify(minimum, lj, force_tolerance=2e-6, energy_tolerance=1e-9)
        assert told.ok, told.reason
        assert 0 <= int(minimum.start_index or 0) < 4 and 0 < int(minimum.force_calls or 0) <= 500

    assert [step for step, _ in context.metrics] == sorted({step for step, _ in context.metrics})
    best = [values["best_energy"] for _, values in context.metrics]
    assert best == sorted(best, reverse=True) and best[-1] == pytest.approx(float(found.result.energy.min()))
    assert context.lines[-1][0] == 1.0 and "2,000 force calls" in context.lines[-1][1]


def test_a_run_without_minima_writes_empty_lists(tmp_path: Path) -> None:
    found = search(calls=2, polish=Polish(force_calls=0)).run(Recorder(tmp_path / "results"))
    assert found.minima == [] and found.best is None and found.atoms() == []
    assert found.summary()["unique_minima"] == 0 and math.isfinite(found.summary()["best_energy"])
    assert (tmp_path / "results" / "minima.extxyz").read_text() == ""
    with connect(tmp_path / "results" / "minima.ase.db") as database:
        assert database.count() == 0
    assert len(read(tmp_path / "results" / "starts.extxyz", ":")) == 4


def test_same_seed_same_result() -> None:
    first = search(seed=3).run()
    same(first, search(seed=3).run())
    other = search(seed=4, calls=50).run()
    assert not bool((first.result.x == other.result.x).all(-1).any())


@pytest.mark.parametrize("optimizer", [BasinHopping(), Fire()], ids=lambda one: type(one).__name__)
def test_a_start_does_not_depend_on_how_many_there_are(optimizer: Any) -> None:
    five = search("Ar8", starts=5, optimizer=optimizer, calls=200).run()
    ten = search("Ar8", starts=10, optimizer=optimizer, calls=200).run()
    assert ten.table()[:5] == five.table()
    assert torch.equal(ten.result.x[:40], five.result.x)
    assert torch.equal(ten.result.pool_x[:40], five.result.pool_x)
    assert torch.equal(ten.result.trace_energy[:, :5], five.result.trace_energy)
    assert torch.equal(ten.polished.systems.pos[:40], five.polished.systems.pos)


def test_what_a_hit_ends() -> None:
    settings = {"energy": -15.5, "tolerance": 0.0}
    never = search(target=Target(**settings, stop="never")).run()
    assert never.result.reason == [Reason.BUDGET] * 4 and never.result.calls.tolist() == [400] * 4
    hits = never.result.first_hit
    assert bool((hits > 0).all()) and len(set(hits.tolist())) == 4  # what is needed to tell the cases apart
    start = search(target=Target(**settings, stop="start")).run()
    assert start.result.reason == [Reason.TARGET] * 4 and torch.equal(start.result.calls, hits)
    run = search(target=Target(**settings, stop="run")).run()
    first = int(hits.min())
    assert run.result.calls.tolist() == [first] * 4
    expected = [Reason.TARGET if hit == first else Reason.RUN_TARGET for hit in hits.tolist()]
    assert run.result.reason == expected
    assert never.first_hits == start.first_hits == hits.tolist()


def test_a_local_optimizer_with_a_threshold() -> None:
    found = search("Ar13", 1500, optimizer=LBFGS(), fmax=1e-3, polish=Polish(fmax=1e-8)).run()
    assert found.result.reason == [Reason.CONVERGED] * 4 and bool((found.result.fmax < 1e-3).all())
    assert bool((found.polished.fmax < 1e-8).all()) and bool((found.polished.spent > 1).all())
    assert found.summary()["converged"] is True
    assert len({round(m.energy, 3) for m in found.minima}) == len(found.minima)
    short = search("Ar13", 20, optimizer=LBFGS(), fmax=1e-3).run()
    assert short.result.reason == [Reason.BUDGET] * 4 and short.summary()["converged"] is False
    assert short.minima  # the polish got there


def test_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search(budget=Budget(minutes=1e-9), engine="eager").run()  # fused looks at the clock less often
    assert found.result.reason == [Reason.TIME] * 4 and bool((found.result.calls <= 1).all())
    ticks = iter(range(10**6))  # a clock that goes on by a second whenever it is looked at
    monkeypatch.setattr("mlopt.core.runs.session.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    found = search(budget=Budget(minutes=0.5), engine="eager").run()
    assert [row["reason"] for row in found.table()] == ["time"] * 4
    calls = found.result.calls.tolist()
    assert len(set(calls)) == 1 and 28 <= calls[0] <= 32
    # the sittings of a run add up: one that was out of time has none left
    before = Recorder(pauses=20)
    with pytest.raises(Preempted):
        search(budget=Budget(minutes=0.5), engine="eager").run(before)
    resumed = search(budget=Budget(minutes=0.5), engine="eager").run(Resumed(before))
    assert 20 <= int(resumed.result.calls[0]) < calls[0]
    assert resumed.wall_s > 30


def preempted(context: Recorder, **settings: Any) -> Recorder:
    with pytest.raises(Preempted):
        search("Ar8", 200, **settings).run(context)
    return context


@pytest.mark.parametrize("pauses", [0, 100, 195])
def test_stopped_while_searching_and_resumed(pauses: int, tmp_path: Path) -> None:
    whole = search("Ar8", 200).run(Recorder(tmp_path / "a"))
    before = preempted(Recorder(tmp_path / "b", pauses=pauses))
    assert not (tmp_path / "b").exists()
    same(search("Ar8", 200).run(Resumed(before)), whole)
    assert (tmp_path / "a" / "minima.extxyz").read_bytes() == (tmp_path / "b" / "minima.extxyz").read_bytes()
    assert (tmp_path / "a" / "starts.json").read_bytes() == (tmp_path / "b" / "starts.json").read_bytes()


def test_stopped_while_polishing_and_resumed(tmp_path: Path) -> None:
    whole_context = Recorder(tmp_path / "whole")
    whole = search("Ar8", 200).run(whole_context)
    asked = whole_context.questions  # once after the search, then before every step of two polishes
    assert asked > 20
    for after in (0, 1, asked // 3, asked - 2):
        potential = Counting()
        before = preempted(Recorder(tmp_path / str(after), asked=after), potential=potential)
        searched = 200
        assert len(potential._seen) - searched <= after + 3  # it stops at once
        # killed again, a little later, and then left alone
        again = Resumed(before, asked=after + 3) if after < asked - 5 else before
        if again is not before:
            preempted(again)
        counted = Counting()
        resumed = search("Ar8", 200, potential=counted).run(Resumed(again))
        assert len(counted._seen) < searched  # the search itself is not done again
        same(resumed, whole)
        name = "minima.extxyz"
        assert (tmp_path / str(after) / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_checkpoint_of_another_system_is_refused(tmp_path: Path) -> None:
    before = preempted(Recorder(pauses=50))
    for other in ("Ar9", "Kr8"):
        with pytest.raises(
            CheckpointError, match=r"of another (system|structure): has the structure file changed"
        ):
            search(other, 200).run(Resumed(before))
    with pytest.raises(CheckpointError, match=r"lacks .*: it was written by another optimizer"):
        search("Ar8", 200, optimizer=Fire()).run(Resumed(before))


def distinct(minima: list[Minimum]) -> bool:
    return not any(
        same_structure(one, other, 1e-3, 0.05) for i, one in enumerate(minima) for other in minima[:i]
    )


def test_runs_share_a_database(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    kept = MinimaSettings(database=str(path), keep=8)
    first = search("Ar8", 250, minima=kept, seed=1).run()
    with MinimaStore(path) as store:
        assert [m.energy for m in store] == [m.energy for m in first.minima]
        before = sum(m.hits for m in store)
    second = search("Ar8", 250, minima=kept, seed=2).run()
    third = search("Ar6", 150, minima=kept, seed=2).run()
    with MinimaStore(path) as store:
        eights, sixes = store.lowest(100, "Ar8"), store.lowest(100, "Ar6")
        assert len(store) == len(eights) + len(sixes)
    assert distinct(eights) and len(sixes) == len(third.minima)
    union = [*first.minima]
    union += [m for m in second.minima if not any(same_structure(m, o, 1e-3, 0.05) for o in union)]
    assert len(eights) == len(union) < len(first.minima) + len(second.minima)
    hits = sum(m.hits for m in eights)
    assert hits == before + sum(m.hits for m in second.minima)
    assert {m.seed for m in eights} == {1, 2}
    # a run that was resumed after it had added its minima adds nothing again; another run of the same kind does
    context = Recorder()
    search("Ar8", 250, minima=kept, seed=5).run(context)
    with MinimaStore(path) as store:
        once = sum(m.hits for m in store)
    again = Resumed(context)
    search("Ar8", 250, minima=kept, seed=5).run(again)
    with MinimaStore(path) as store:
        assert sum(m.hits for m in store) == once


def test_a_database_that_cannot_be_used_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`minima.database`: .*nowhere is no folder that can be written to"):
        search(minima=MinimaSettings(database=str(tmp_path / "nowhere" / "a.db"))).check()
    (tmp_path / "text.db").write_text("this is not a database, it is a text that is long enough to be read")
    with pytest.raises(InputError, match=r"text\.db is not a SQLite file"):
        search(minima=MinimaSettings(database=str(tmp_path / "text.db"))).check()
    MinimaStore(tmp_path / "other.db", energy_window=0.1).close()
    with pytest.raises(InputError, match=r"was created with energy_window=0\.1, not 0\.001"):
        search(minima=MinimaSettings(database=str(tmp_path / "other.db"))).check()


def test_single_precision_ends_with_minima_of_double(tmp_path: Path) -> None:
    found = search("Ar13", 300, dtype="float32").run(Recorder(tmp_path / "results"))
    assert found.result.x.dtype == torch.float32
    assert found.polished.systems.pos.dtype == torch.float64 and found.polished.energy.dtype == torch.float64
    assert len(found.minima) > 2
    for minimum in found.minima:
        told = verify(minimum, lj, force_tolerance=2e-6, energy_tolerance=1e-10)
        assert told.ok, told.reason
    assert not bool((found.polished.systems.pos == found.polished.systems.pos.float()).all())


def test_unlike_atoms(tmp_path: Path) -> None:
    optimizer = BasinHopping(moves=[Displacement(), Exchange()])
    found = search("Ar4Kr2", 300, optimizer=optimizer).run(Recorder(tmp_path / "results"))
    assert all(m.z.tolist() == [18] * 4 + [36] * 2 for m in found.minima)
    images = read(tmp_path / "results" / "minima.extxyz", ":")
    assert {one.get_chemical_formula() for one in images} == {"Ar4Kr2"}
    # the energies are those of six like atoms, for Lennard-Jones makes no difference
    assert found.minima[0].energy == pytest.approx(-12.712062, abs=1e-6)
    assert distinct(found.minima)


@pytest.fixture
def pinned(tmp_path: Path) -> Path:
    """A chain of three fixed atoms at coordinates that float32 cannot hold, and four free ones."""
    pos = np.array(
        [[0, 0, 0], [1 / 3 + 0.7, 0, 0], [2.1, 0.1 / 3, 0], [0, 1, 0], [1, 1, 0], [2, 1, 0], [1, 0.5, 0.9]]
    )
    atoms = Atoms("Ar7", pos, constraint=FixAtoms([0, 1, 2]))
    write(tmp_path / "pinned.traj", atoms)
    return tmp_path / "pinned.traj"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("start", [None, "sphere"])
def test_fixed_atoms_stay(pinned: Path, dtype: Any, start: str | None) -> None:
    given = read(pinned).positions
    settings: dict[str, Any] = {"calls": 150} | ({} if start is None else {"start": start})
    optimizer = BasinHopping(container=0.5)  # tight enough to pull at all of them
    found = search(system=SystemSpec(file=str(pinned)), dtype=dtype, optimizer=optimizer, **settings).run()
    end = found.polished.systems.pos.reshape(4, 7, 3).numpy()
    assert all(np.array_equal(one[:3], given[:3]) for one in end)
    assert not bool((end[:, 3:] == given[3:]).any())
    assert found.minima and all(np.array_equal(m.pos[:3], given[:3]) for m in found.minima)
    assert bool((found.polished.fmax < 1e-5).all())  # of the free ones


def test_a_structure_is_where_starts_begin(pinned: Path) -> None:
    spec = SystemSpec(file=str(pinned))
    none = search(system=spec, calls=1, polish=Polish(force_calls=0)).run()
    given = torch.from_numpy(read(pinned).positions).repeat(4, 1)
    assert torch.equal(none.result.x, given)
    shaken = search(system=spec, calls=1, polish=Polish(force_calls=0), start=GivenStart(rattle=0.01)).run()
    moved = (shaken.result.x - given).abs().reshape(4, 7, 3)
    assert float(moved[:, :3].max()) == 0 and float(moved[:, 3:].min()) > 0 and float(moved.max()) < 0.06


def test_a_periodic_cell_is_kept_to_the_last_bit(tmp_path: Path) -> None:
    cell = np.eye(3) * (5.0 + 1 / 3)
    write(tmp_path / "box.traj", Atoms("Ar3", [[0, 0, 0], [1, 0, 0], [0, 1.1, 0]], cell=cell, pbc=True))
    found = search(
        system=SystemSpec(file=str(tmp_path / "box.traj")),
        potential=LennardJones(cutoff=2.5),
        dtype="float32",
        calls=150,
    ).run()
    assert found.minima and all(np.array_equal(m.cell, cell) for m in found.minima)
    for minimum in found.minima:  # and the energy is that of this cell
        systems = Systems.from_atoms(Atoms(minimum.z, minimum.pos, cell=minimum.cell, pbc=minimum.pbc))
        again = LennardJones(cutoff=2.5).evaluate(systems)
        assert float(again.energy) == pytest.approx(minimum.energy, abs=1e-12)


def test_an_ase_calculator(tmp_path: Path) -> None:
    from ase.cluster import Icosahedron

    atoms = Icosahedron("Cu", 2)
    atoms.rattle(0.1, seed=1)
    write(tmp_path / "cu13.xyz", Atoms(atoms.numbers, atoms.positions))
    experiment = search(
        system=SystemSpec(file=str(tmp_path / "cu13.xyz")),
        potential=AsePotential(calculator="emt"),
        starts=2,
        calls=40,
        polish=Polish(force_calls=60, fmax=1e-4),
    )
    experiment.check()
    found = experiment.run(Recorder(tmp_path / "results"))
    assert found.summary()["units"] == "eV, angstrom" and found.minima
    image = read(tmp_path / "results" / "minima.extxyz", 0)
    told = image.get_potential_energy()
    image.calc = EMT()
    assert image.get_potential_energy() == pytest.approx(told, abs=1e-6)
    assert float(np.linalg.norm(image.get_forces(), axis=1).max()) < 1e-3
    perfect = Icosahedron("Cu", 2)
    perfect.calc = EMT()
    assert told < perfect.get_potential_energy()  # it is relaxed


def test_it_begins_at_starts_of_its_own_seed() -> None:
    # starts and the search that follows draw from separate streams; and the search is `minimize` of these starts
    experiment = search(calls=1, polish=Polish(force_calls=0))
    starts = experiment.run().result.x
    found = search(calls=200).run()
    landscape = AtomsLandscape(Systems.cluster([18] * 7, 4), LennardJones())
    again = minimize(landscape, HOPPING, starts, force_calls=200, seed=0, ids=torch.arange(4))
    assert torch.equal(again.x, found.result.x)
    assert len(set(problem_keys(0, torch.arange(4)).tolist())) == 4


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"device": "gpu"}, "device 'gpu' is not one that torch knows; use cpu, cuda or cuda:0"),
        ({"device": "meta"}, "device 'meta' is not supported; use cpu, cuda or cuda:0"),
        (
            {"optimizer": BasinHopping(), "fmax": 1e-3},
            "`fmax` ends local optimizers only; leave it out with a search",
        ),
        (
            {"start": GivenStart()},
            "`start: given` needs positions, and a formula has none: give a `system.file`",
        ),
        (
            {"potential": AsePotential(calculator="emt")},
            "the ASE calculator 'emt' cannot treat a system of Ar",
        ),
        ({"system": SystemSpec(file="nowhere.xyz")}, "nowhere.xyz: there is no such file"),
    ],
)
def test_check_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        search(**settings).check()
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_no_cuda() -> None:
    for device in ("cuda", "cuda:0"):
        with pytest.raises(
            InputError, match=f"device '{device}': torch sees no CUDA device. Run with `--device cpu`"
        ):
            search(device=device).check()


def test_check_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    search(minima=MinimaSettings(database="shared.db")).check()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    found = search("Ar13", 600, device="cuda").run()
    assert found.result.x.device.type == "cuda" and found.polished.energy.device.type == "cpu"
    for minimum in found.minima:
        told = verify(minimum, lj, force_tolerance=2e-6, energy_tolerance=1e-10)
        assert told.ok, told.reason
    assert found.minima
