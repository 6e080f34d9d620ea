"""The experiment `contest`: its rows are those of single searches, it goes on where it was stopped, it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import ConfigError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import build
from mlopt.core.reporting.statistics import mean_calls_to_hit
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import Recorder
from mlopt.optimizers import Adam
from mlopt.optimizers.experiments.contest.experiment import Contest, Contestant
from mlopt.optimizers.experiments.contest.result import ContestResult
from mlopt.optimizers.experiments.search.experiment import Search
from mlopt.optimizers.searches.settings import Budget, MinimaSettings, Target
from mlopt.optimizers.training.tasks.systems import Case
from mlopt.potentials import LennardJones

LJ7 = -16.505384


def settings(**changed: Any) -> dict[str, Any]:
    """Two systems, two optimizers, one of which meets only one system."""
    return {
        "systems": [
            {"system": {"cluster": "Ar7"}, "potential": "lennard-jones", "target": LJ7},
            {"system": {"cluster": "Ar5"}, "potential": "lennard-jones"},
        ],
        "contestants": [
            {"label": "Adam", "optimizer": {"name": "adam", "step_size": 0.02}},
            {"label": "hops/short", "optimizer": "basin-hopping", "systems": ["Ar7"]},
        ],
        "starts": 5,
        "force_calls": 200,
        "engine": "eager",
        **changed,
    }


def contest(**changed: Any) -> Contest:
    made = build(Contest, settings(**changed))
    assert isinstance(made, Contest)
    return made


def numbers(found: ContestResult) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in found.rows]


def test_a_row_is_a_search() -> None:
    one = contest()
    found = one.run()
    assert [(row["optimizer"], row["system"]) for row in found.rows] == [
        ("Adam", "Ar7"),
        ("hops/short", "Ar7"),
        ("Adam", "Ar5"),
    ]
    row = found.rows[1]
    search = Search(
        system=one.systems[0].system,
        potential=one.systems[0].potential,
        optimizer=one.contestants[1].optimizer,
        start=one.systems[0].start,
        starts=5,
        budget=Budget(force_calls=200),
        target=Target(energy=LJ7, stop="start"),
        minima=MinimaSettings(keep=1, per_start=1),
        engine="eager",
    ).run()
    assert row["mean"] == pytest.approx(float(search.polished.energy.mean()), abs=1e-12)
    assert row["min"] == float(search.polished.energy.min())
    assert row["hits"] == sum(hit is not None for hit in search.first_hits) > 0
    assert row["force_calls"] == int(search.result.calls.sum() + search.polished.spent.sum())
    expected = mean_calls_to_hit(search.first_hits, search.result.calls.tolist())
    assert (row["calls_to_hit"], row["calls_to_hit_low"]) == (expected.mean, expected.low)
    assert found.rows[2]["hits"] is None  # no target was given
    assert found.summary()["rows"] == found.rows
    assert "on Ar7 hops/short" in found.summary()["headline"]


def test_all_begin_at_the_same_points() -> None:
    searches = [search for label, _, search in contest().pairs if label == "Ar7"]
    first, second = (search.model_copy(update={"budget": Budget(force_calls=1)}).run() for search in searches)
    assert (first.result.energy == second.result.energy).all()


def test_a_hit_ends_a_start_only_where_asked() -> None:
    early, late = contest().run().rows[1], contest(stop="never").run().rows[1]
    assert early["hits"] == late["hits"] and early["force_calls"] < late["force_calls"]
    assert early["mean"] == pytest.approx(late["mean"], abs=1e-6)


def test_files(tmp_path: Path) -> None:
    context = Recorder(tmp_path)
    contest().run(context)
    assert {"contest.json", "energies.svg", "01-Adam-on-Ar7", "02-hops-short-on-Ar7"} <= {
        path.name for path in tmp_path.iterdir()
    }
    steps = [step for step, _ in context.metrics]
    assert steps == sorted(steps) and {row["pair"] for _, row in context.metrics} >= {
        "Adam on Ar7",
        "Adam on Ar5",
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"systems": []}, "systems: list should have at least 1 item"),
        ({"contestants": []}, "contestants: list should have at least 1 item"),
        (
            {"contestants": [{"label": "a", "optimizer": "adam"}] * 2},
            "two contestants are called 'a'; tables could not tell them apart",
        ),
        (
            {"contestants": [{"label": "a", "optimizer": "adam", "systems": ["Ar8"]}]},
            "contestant 'a' is to meet 'Ar8', which is none of the systems; these are Ar7, Ar5",
        ),
    ],
)
def test_bad_input(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        contest(**changed)


def test_a_contest_without_a_finite_energy_has_failed() -> None:
    class Nowhere(LennardJones):
        def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
            found = super().evaluate(systems, stress=stress)
            return Evaluation(found.energy * torch.nan, found.force)

    case = Case(system=SystemSpec(cluster="Ar3"), potential=Nowhere())
    told = Contest(
        systems=[case],
        contestants=[Contestant(label="adam", optimizer=Adam())],
        starts=2,
        force_calls=9,
        engine="eager",
    ).run()
    assert told.summary()["status"] == "failed" and "every start" in told.summary()["failure"]
