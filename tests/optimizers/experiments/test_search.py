"""The experiment `search`, end to end: what it returns and writes, that it repeats itself, what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.db import connect
from ase.io import read
from small_searches import HOPPING, LJ7, Counting, lj, same, search

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import minimize
from mlopt.core.driver.stop import Reason
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.minima.store import MinimaStore, verify
from mlopt.core.runs.config import load_experiment
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import Recorder
from mlopt.optimizers.experiments.search.polish import Polish
from mlopt.optimizers.local.fire import Fire
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.optimizers.searches.settings import MinimaSettings, Target
from mlopt.optimizers.starts.starts import GivenStart
from mlopt.potentials.ase.potential import AsePotential
from mlopt.potentials.classical.lennard_jones import LennardJones


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


def test_an_optimizer_of_fits_is_refused_before_a_folder_is_made() -> None:
    config = {"experiment": "search", "system": {"cluster": "Ar3"}, "potential": "lennard-jones"}
    with pytest.raises(ConfigError, match=r"minimises sums of squares, .* `training\.stages` of a fit"):
        load_experiment(config | {"optimizer": "levenberg-marquardt"})
    own = {"system": config["system"], "potential": config["potential"], "target": -3.0}
    contest = {"systems": [own], "contestants": [{"label": "one", "optimizer": "levenberg-marquardt"}]}
    with pytest.raises(ConfigError, match=r"minimises sums of squares, .* `training\.stages` of a fit"):
        load_experiment({"experiment": "contest", **contest})
