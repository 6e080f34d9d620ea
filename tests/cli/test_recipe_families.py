"""Recipes that are written for a number."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from mlopt.cli.configs import families, sources
from mlopt.core.runs.config import read_yaml
from mlopt.optimizers.experiments.search.experiment import Search

DATA = Path(os.environ.get("MLOPT_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize("n", [2, 30, 33, 104, 150])
def test_sizes_are_searches_for_the_known_energy(n: int) -> None:
    experiment = sources.find(f"lj{n}").experiment()
    assert isinstance(experiment, Search)
    assert experiment.target is not None
    assert experiment.target.energy == families.lennard_jones_minima()[n]
    assert len(experiment.system.load().z) == n
    assert type(experiment.optimizer).__name__ == ("LearnedHopping" if n > 30 else "BasinHopping")


@pytest.mark.parametrize("name", ["lj1", "lj0", "lj151", "lj038", "lj38x", "LJ40", "lj-40", "lj\u0664\u0660"])
def test_other_names_are_no_recipes(name: str, mlopt) -> None:
    assert families.written(name) is None
    result = mlopt("run", name)
    assert result.code == 2 and "is neither a file nor a recipe" in result.err
    assert "lj2 ... lj150" in result.err


def test_files_come_first_and_have_the_same_energies() -> None:
    """Those of a file have settings of their own."""
    for name, path in sources.recipe_paths().items():
        if families.written(name) is not None:
            assert sources.recipe(name) == path.read_text(encoding="utf-8") != families.written(name)
            energy = read_yaml(sources.recipe(name))["target"]["energy"]
            assert energy == families.lennard_jones_minima()[int(name[2:])]


def test_energies_fall_with_every_atom() -> None:
    known = families.lennard_jones_minima()
    assert list(known) == list(range(2, 151))
    steps = [known[n + 1] - known[n] for n in range(2, 150)]
    assert min(steps) > -9.0 and max(steps) < -1.9


def test_energies_are_those_of_the_database() -> None:
    file = DATA / "clusters" / "lj_global_minima.csv"
    if not file.exists():
        pytest.skip("the reference data are not there")
    with file.open() as open_file:
        table = {int(row["n"]): float(row["energy"]) for row in csv.DictReader(open_file)}
    assert families.lennard_jones_minima() == table


def test_a_recipe_of_a_family_is_written_to_a_file(mlopt, here) -> None:
    assert mlopt("init", "lj104").code == 0
    assert (here / "lj104.yaml").read_text() == families.written("lj104")
    assert mlopt("info", "lj104").out == families.written("lj104")
    assert "lj2 ... lj150" in mlopt("list", "recipes").out
