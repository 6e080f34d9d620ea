"""plugins_example/ as a stranger would have it: installed, found by its entry points, tested, named and used."""

from __future__ import annotations

import importlib.metadata

import pytest
import torch
from click.testing import CliRunner

from mlopt.core import AtomsLandscape, Dataset, Systems, minimize
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.plugins import registry
from mlopt.core.runs.config import load_experiment, resolved
from mlopt.core.testing import (
    check_fittable,
    check_labeller,
    check_optimizer,
    check_potential,
    check_query_strategy,
)
from mlopt.optimizers import LBFGS

try:
    importlib.metadata.version("mlopt-plugins-example")
except importlib.metadata.PackageNotFoundError:
    pytest.skip(
        "plugins_example is not installed: `make test` does it, or pip install --no-deps -e ./plugins_example",
        allow_module_level=True,
    )

PLUGINS = {
    ("potential", "buckingham"),
    ("potential", "gaussian-pairs"),
    ("optimizer", "heavy-ball"),
    ("query-strategy", "farthest"),
    ("labeller", "diluted"),
}
CONFIG = {
    "experiment": "search",
    "system": {"cluster": "Ar5"},
    "potential": {"name": "buckingham", "rho": 0.3},
    "optimizer": {"name": "basin-hopping", "quench": {"name": "heavy-ball", "step_size": 2e-3}},
    "starts": 2,
    "budget": {"force_calls": 300},
}


def clusters() -> Systems:
    """Two clusters of unlike sizes, at distances around that of the pair's minimum."""
    generator = torch.Generator().manual_seed(0)
    grid = 2.5 * torch.cartesian_prod(*[torch.arange(3, dtype=torch.float64)] * 3)
    sizes = [5, 13]
    pos = [grid[:n] + 0.3 * torch.rand(n, 3, generator=generator, dtype=torch.float64) for n in sizes]
    return Systems(torch.cat(pos), torch.full((18,), 18), torch.tensor([0, *sizes]).cumsum(0))


def test_entry_points_are_visible():
    found = {
        (entry.kind, entry.name)
        for entry in registry.entries()
        if entry.distribution == "mlopt-plugins-example"
    }
    assert found == PLUGINS


@pytest.mark.parametrize(("kind", "name"), sorted(PLUGINS))
def test_loads_and_knows_its_name(kind, name):
    cls = registry.load(kind, name)
    assert cls.__module__ == "mlopt_plugins_example"
    assert registry.name_of(kind, cls) == name


def test_potential_keeps_the_contract():
    check_potential(registry.load("potential", "buckingham")(), clusters())


def test_fused_engine_agrees():
    pytest.importorskip("numba")
    systems, potential = clusters(), registry.load("potential", "buckingham")()
    landscape = AtomsLandscape(systems, potential)
    eager, fused = (
        minimize(landscape, LBFGS(), systems.pos, force_calls=200, fmax=1e-3, engine=name)
        for name in ("eager", "fused")
    )
    assert torch.equal(eager.calls, fused.calls)
    torch.testing.assert_close(fused.energy, eager.energy, rtol=1e-9, atol=0.0)
    torch.testing.assert_close(fused.x, eager.x, rtol=0.0, atol=1e-5)


def test_optimizer_keeps_the_contract():
    check_optimizer(registry.load("optimizer", "heavy-ball")())


def test_fittable_potential_keeps_the_contract():
    check_fittable(registry.load("potential", "gaussian-pairs")(), clusters())


def test_query_strategy_keeps_the_contract():
    strategy, systems = registry.load("query-strategy", "farthest")(), clusters()
    known = Dataset(systems.select([0]))
    check_query_strategy(strategy, systems, known)
    found = strategy.select(systems, known, None, 1, torch.tensor(0))
    assert found.indices.tolist() == [1] and found.scores[0] == 0


def test_labeller_keeps_the_contract():
    buckingham, systems = registry.load("potential", "buckingham")(), clusters()
    diluted = registry.load("labeller", "diluted")
    check_labeller(diluted(potential=buckingham), systems)
    crowded = diluted(potential=buckingham, least=2.5).label(systems)
    assert not crowded.with_energy.all() and "too near" in " ".join(crowded.source)


def test_search_from_a_configuration():
    experiment = load_experiment(CONFIG)
    assert "name: heavy-ball" in resolved(experiment)
    found = experiment.run()
    assert found.best is not None
    assert found.summary()["units"] == "eV, angstrom"
    # what is stored is what the potential says of the stored coordinates
    best = Systems.from_atoms(found.atoms()[0])
    landscape: Landscape = AtomsLandscape(best, experiment.potential)
    assert float(landscape.evaluate(best.pos).energy[0]) == pytest.approx(found.best.energy, abs=1e-9)


def test_mlopt_run(tmp_path, monkeypatch):
    from mlopt.cli.main import cli
    from mlopt.core.runs.config import dump_yaml

    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger.yaml").write_text(dump_yaml(CONFIG))
    done = CliRunner().invoke(cli, ["run", "stranger.yaml", "--out", "run", "--quiet"], prog_name="mlopt")
    assert done.exit_code == 0, done.output
    assert "buckingham" in (tmp_path / "run" / "config.resolved.yaml").read_text()
    assert (tmp_path / "run" / "results" / "minima.extxyz").exists()


def test_mlopt_names_the_distribution():
    from mlopt.cli.main import cli

    for arguments in (["info", "buckingham"], ["list", "potential"], ["plugins"]):
        done = CliRunner().invoke(cli, arguments, prog_name="mlopt")
        assert done.exit_code == 0, done.output
        assert "mlopt-plugins-example" in done.output
