"""plugins_example/ as a stranger would have it: installed, found by its entry points, tested, named and used."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import ase.build
import ase.eos
import ase.io
import ase.units
import pytest
import torch
from click.testing import CliRunner

from mlopt.core import AtomsLandscape, Dataset, Systems, minimize
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.plugins import registry
from mlopt.core.runs.config import dump_yaml, load_experiment, resolved
from mlopt.core.testing import (
    check_experiment,
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
    ("experiment", "equation-of-state"),
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
    assert cls.__module__ in ("mlopt_plugins_example", "mlopt_equation_of_state")
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


@pytest.fixture
def copper(tmp_path, monkeypatch):
    """A configuration of the new kind of run, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    ase.io.write("copper.extxyz", ase.build.bulk("Cu", cubic=True))
    config = {
        "experiment": "equation-of-state",
        "system": "copper.extxyz",
        "potential": {"name": "ase", "calculator": "emt"},
        "optimizer": "lbfgs",
    }
    (tmp_path / "copper.yaml").write_text(dump_yaml(config))
    return config


def test_a_kind_of_run_keeps_the_contract(copper, tmp_path):
    check_experiment(load_experiment(copper).replace, tmp_path / "contract")


def test_its_numbers_are_those_of_ase(copper):
    """Volume, energy and bulk modulus by ASE's own fit to the same points."""
    found = load_experiment(copper).run()
    volume, energy, modulus = ase.eos.EquationOfState(
        found.points[:, 0], found.points[:, 1], eos="birchmurnaghan"
    ).fit()
    assert found.minimum == pytest.approx((volume, energy, modulus), rel=1e-6)
    assert found.summary()["bulk_modulus"] == pytest.approx(modulus / ase.units.GPa, rel=1e-6)
    away = load_experiment({**copper, "span": 0.001, "volumes": 5, "system": {"file": "copper.extxyz"}})
    assert away.run().summary().reached is False


def test_a_kind_of_run_gets_all_that_the_built_in_ones_get(copper, tmp_path):
    """A run directory, resume, strictness and a full report, without a line about it anywhere in mlopt."""
    from mlopt.cli.main import cli

    def mlopt(*arguments):
        return CliRunner().invoke(cli, list(arguments), prog_name="mlopt")

    assert "largest change of the volume" in mlopt("info", "equation-of-state").output
    stopped = mlopt("run", "copper.yaml", "--out", "x", "--quiet", "--max-minutes", "1e-9")
    assert stopped.exit_code == 75, stopped.output
    done = mlopt("resume", "x", "--quiet", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["experiment"] == "equation-of-state" and summary["status"] == "finished"
    report = (tmp_path / "x" / "report.html").read_text()
    assert "<h1>x: bulk modulus 134.3 GPa</h1>" in report
    assert "<dt>bulk modulus</dt><dd>134.337 GPa</dd>" in report and "<h2>Volumes</h2>" in report
    assert "<h2>Energy against volume</h2>" in report and "data:image/svg+xml;base64," in report
    strict = mlopt("run", "copper.yaml", "--out", "y", "--quiet", "--strict", "-s", "span=0.001")
    assert strict.exit_code == 3 and "no minimum among the volumes" in strict.output


def test_the_howto_shows_the_plugin():
    """The same text, so that what the page explains is what is tested here."""
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs/howto/experiment.md").read_text()
    source = (root / "plugins_example/src/mlopt_equation_of_state.py").read_text()
    assert f"```python\n# equation_of_state.py\n{source}```" in page
