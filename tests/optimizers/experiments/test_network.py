"""Networks of minima and transition states: known ones, in one piece and resumed, files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ase.io import read

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.errors import CheckpointError, ConfigError, InputError, MloptError
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.core.plugins.plugin import build
from mlopt.core.runs.experiment import Preempted
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import Recorder, Resumed
from mlopt.core.testing.surfaces import Watched
from mlopt.optimizers.experiments.network.experiment import Network
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.saddles.explorer import Explorer, StationaryPoints
from mlopt.optimizers.saddles.min_mode import Dimer
from mlopt.optimizers.saddles.starts import downhill, halfway, kicked
from mlopt.potentials.classical.lennard_jones import LennardJones

#: eps = sigma = 1; found for the project by searches of its own, and as many as the literature counts
LJ7_MINIMA = [-16.505384, -15.935043, -15.593211, -15.533060]
LJ7_SADDLES = """-15.444734 -15.319864 -15.283421 -15.097846 -15.033384 -15.026438 -14.816400 -14.811130 -14.596946
    -14.568061 -14.548573 -12.548938"""


def network(cluster: str = "Ar6", **settings: Any) -> Network:
    given: dict[str, Any] = {
        "system": SystemSpec(cluster=cluster),
        "potential": LennardJones(),
        "starts": 6,
        "searches": 20,
        "force_calls": 250,
        "rounds": 2,
        "patience": 2,
    }
    return Network(**(given | settings))


@pytest.mark.slow
def test_lj7_is_complete() -> None:
    """All 4 minima and 12 transition states, each joined to two minima; lowest barrier 1.060650."""
    result = network("Ar7", starts=20, searches=300, force_calls=400, rounds=20, patience=3).run()
    assert [point.energy for point in result.minima] == pytest.approx(LJ7_MINIMA, abs=1e-6)
    saddles = [float(word) for word in LJ7_SADDLES.split()]
    assert [point.energy for point in result.saddles] == pytest.approx(saddles, abs=1e-6)
    assert result.complete
    rows = result.table()
    assert (rows[0]["minimum_1"], rows[0]["minimum_2"]) == (0, 1)
    assert rows[0]["barrier_1"] == pytest.approx(1.060650, abs=1e-6)
    assert rows[0]["barrier_2"] == pytest.approx(0.490309, abs=1e-6)
    joined = [(1, 2), (1, 3), (1, 1), (0, 2), (0, 3)]
    assert [result.ends[i] for i in range(1, 6)] == joined
    assert result.summary()["lowest_barrier"] == pytest.approx(1.060650, abs=1e-6)


@pytest.mark.parametrize("searches", [1, 2])
def test_a_round_may_have_fewer_searches_than_kinds_of_start(searches: int) -> None:
    result = network("Ar4", starts=2, searches=searches, rounds=1).run()
    assert result.found.searches == searches


def test_files(tmp_path: Path) -> None:
    context = Recorder(tmp_path)
    found = network(searches=12, rounds=1).run(context)
    assert len(found.minima) == 2 and len(found.saddles) >= 2
    assert [p.energy for p in found.minima] == pytest.approx([-12.712062, -12.302928], abs=1e-6)
    assert [step for step, _ in context.metrics] == [1]
    told = json.loads((tmp_path / "network.json").read_text())
    assert len(told["minima"]) == 2 and len(told["saddles"]) == len(found.saddles)
    first = told["saddles"][0]
    assert first["barrier_1"] == pytest.approx(first["energy"] - told["minima"][first["minimum_1"]]["energy"])
    images = read(tmp_path / "saddles.extxyz", index=":")
    assert [image.get_potential_energy() for image in images] == pytest.approx(
        [p.energy for p in found.saddles]
    )


def test_a_checkpoint_of_another_system_is_refused() -> None:
    before = Recorder(asked=0)
    with pytest.raises(Preempted):
        network("Ar4").run(before)
    with pytest.raises(CheckpointError, match="the checkpoint is of another structure"):
        network("Ar5").run(Resumed(before))


def biaxial() -> FunctionLandscape:
    weights = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    return FunctionLandscape(lambda x, s: s.sum(x * x * weights), Segments.uniform(1, 1), UnitSphere())


def test_every_call_is_counted() -> None:
    watched = Watched(biaxial())
    explorer = Explorer(watched, searches=6, force_calls=100)
    found = StationaryPoints()
    explorer.settle(found, torch.tensor([[0.8, 0.6, 0.0]], dtype=torch.float64))
    assert watched.calls[0] == found.calls > 0
    assert explorer.round(found) > 0
    assert watched.calls[0] == found.calls


def test_spins() -> None:
    """A biaxial spin: two minima, two saddles between them; the poles have two negative modes."""
    found = StationaryPoints()
    explorer = Explorer(biaxial(), searches=30, kick=0.5, force_calls=200, fmax=1e-8)
    assert explorer.settle(found, torch.tensor([[0.8, 0.6, 0.0]], dtype=torch.float64)) == 1
    explorer.round(found)
    assert sorted(float(point.x[0, 0].round(decimals=6)) for point in found.minima) == [-1.0, 1.0]
    assert sorted(float(point.x[0, 1].round(decimals=6)) for point in found.saddles) == [-1.0, 1.0]
    assert [sorted(pair) for pair in found.ends] == [[0, 1], [0, 1]]
    assert found.barriers(0) == (pytest.approx(1.0), pytest.approx(1.0))


def test_starts_are_of_their_key_alone() -> None:
    landscape = AtomsLandscape(Systems.cluster([18, 18, 36, 18]), LennardJones())
    generator = torch.Generator().manual_seed(0)
    points = [torch.randn(4, 3, dtype=torch.float64, generator=generator) for _ in range(3)]
    keys = problem_keys(5, torch.arange(6))
    for begin in (kicked, halfway, downhill):
        whole = begin(landscape, points, 0.3, keys)
        assert len(whole) == 6 and all(torch.isfinite(x).all() for x in whole)
        assert torch.equal(begin(landscape, points, 0.3, keys[4:5])[0], whole[4])
    unmoved = kicked(landscape, points, 0.0, keys)
    assert all(any(torch.equal(x, point) for point in points) for x in unmoved)


def test_halfway_exchanges_like_atoms_only() -> None:
    """Half-way to its own mirror image: an unlike atom in the middle stays there, whoever turns about it."""
    landscape = AtomsLandscape(Systems.cluster([36, 18, 18]), LennardJones())
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0]], dtype=torch.float64)
    for x in halfway(landscape, [line], 0.0, problem_keys(0, torch.arange(20))):
        assert float(x[0].abs().max()) < 1e-12
        assert float((x[1] + x[2]).abs().max()) < 1e-12


def test_fixed_atoms_stay() -> None:
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.5, 0.9, 0], [0.5, 0.3, 0.8]], dtype=torch.float64)
    fixed = torch.tensor([True, True, False, False])
    systems = Systems(pos, torch.full((4,), 18), torch.tensor([0, 4]), fixed=fixed)
    landscape = AtomsLandscape(systems, LennardJones())
    keys = problem_keys(0, torch.arange(4))
    for begin in (kicked, halfway):
        for x in begin(landscape, [pos], 0.3, keys):
            assert torch.equal(x[:2], pos[:2])


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="dimer: lBFGS ends at a minimum; take one that ends at saddles"):
        build(Network, {"system": {"cluster": "Ar7"}, "potential": LennardJones(), "dimer": LBFGS()})
    with pytest.raises(ConfigError, match="quench: dimer ends at a saddle"):
        build(Network, {"system": {"cluster": "Ar7"}, "potential": LennardJones(), "quench": Dimer()})
    with pytest.raises(MloptError, match=r"no start was relaxed to a minimum .* allow more `force_calls`"):
        network(force_calls=2).run()
    two = FunctionLandscape(lambda x, s: s.sum(x * x), Segments.uniform(2, 1))
    with pytest.raises(InputError, match="a network is of one problem; the landscape has 2"):
        Explorer(two)
    one = FunctionLandscape(lambda x, s: s.sum(x * x), Segments.uniform(1, 1))
    with pytest.raises(InputError, match="a network begins at a minimum, and none is known"):
        Explorer(one).round(StationaryPoints())
    with pytest.raises(InputError, match="LBFGS ends at a minimum: a network needs an optimizer"):
        Explorer(one, dimer=LBFGS())
    with pytest.raises(InputError, match="not one that torch knows"):
        network(device="quantum").check()
