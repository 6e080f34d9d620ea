"""Every kind of run keeps the contract: however it is run, stopped or killed, the same comes out, and a full report."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import pytest

from mlopt.cli.report.page import write_report
from mlopt.core.plugins.registry import entries
from mlopt.core.runs.config import load_experiment
from mlopt.core.testing.experiment import check_experiment

LJ5 = {"system": {"cluster": "Ar5"}, "potential": "lennard-jones", "target": -9.103852}
SPIN = {
    "name": "heisenberg",
    "lattice": {"kind": "chain", "repeat": [1]},
    "units": "reduced",
    "anisotropy": [{"axis": [1, 0, 0], "k": 1.0}, {"axis": [0, 0, 1], "k": -2.0}],
}
#: a second or so of each kind of run
SMALL: dict[str, dict[str, Any]] = {
    "search": {
        "system": {"cluster": "Ar5"},
        "potential": "lennard-jones",
        "optimizer": "basin-hopping",
        "starts": 2,
        "budget": {"force_calls": 30},
        "target": {"energy": -9.103852, "stop": "never"},
        "minima": {"keep": 3},
        "engine": "eager",
    },
    "path": {
        "model": SPIN,
        "initial": {"kind": "ferromagnet", "direction": [1, 0, 0]},
        "final": {"kind": "ferromagnet", "direction": [-1, 0, 0]},
        "start": {"axis": [0, 0, 1], "disturbance": 0.05},
        "band": {"images": 3},
        "optimizer": {"name": "lbfgs", "max_step": 0.1},
        "fmax": 1.0e-4,
        "paths": 2,
    },
    "network": {
        "system": {"cluster": "Ar4"},
        "potential": "lennard-jones",
        "starts": 2,
        "searches": 2,
        "force_calls": 60,
        "rounds": 2,
        "fmax": 1.0e-3,
    },
    "md": {
        "system": "Ar5",
        "potential": "lennard-jones",
        "integrator": {"name": "langevin", "time_step": 0.005, "temperature": 0.1, "friction": 1.0},
        "temperatures": [0.1, 0.2],
        "steps": 30,
        "every": 4,
        "min_distance": 0.9,
        "relax": {"fmax": 1.0e-2},
        "engine": "eager",
    },
    "active": {
        "system": {"crystal": {"element": "Si", "repeat": [1, 1, 1]}},
        "potential": {"name": "mtp", "level": 6, "cutoff": 3.8},
        "labeller": {"name": "potential", "potential": "stillinger-weber"},
        "optimizer": {"name": "langevin", "time_step": 2.0, "temperature": 2500.0, "friction": 0.02},
        "walkers": 2,
        "force_calls": 20,
        "begin": {"structures": 3, "displacement": 0.05},
        "engine": "eager",
    },
    "contest": {
        "systems": [LJ5],
        "contestants": [
            {"label": "adam", "optimizer": {"name": "adam", "step_size": 0.02}},
            {"label": "hops", "optimizer": "basin-hopping"},
        ],
        "starts": 2,
        "force_calls": 15,
        "polish": {"force_calls": 15},
        "engine": "eager",
    },
    "meta-train": {
        "task": {
            "name": "rollout",
            "members": [LJ5 | {"reference": -9.1}],
            "learnable": "classic",
            "horizon": 8,
            "held_out": {"starts": 2, "descent": 5},
            "engine": "eager",
        },
        "trainer": {"name": "es", "population": 4},
        "epochs": 4,
        "evaluate_every": 2,
        "keep": "best",
    },
    "fit": {
        "data": {
            "drawn": {
                "crystal": {"element": "Si", "repeat": [1, 1, 1]},
                "count": 12,
                "labeller": {"name": "potential", "potential": "stillinger-weber"},
            },
            "leave_out": 0.25,
        },
        "potential": {"name": "mtp", "degrees": [5, 4], "cutoff": 3.8, "pair_functions": 4, "chebyshev": 5},
        "radial": {"evaluations": 12},
        "scan": {"cutoff": [3.8, 3.4]},
        "folds": 3,
    },
}


def test_every_kind_is_here() -> None:
    shipped = {entry.name for entry in entries("experiment") if entry.distribution == "mlopt-optimizers"}
    assert set(SMALL) == shipped


@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=[pytest.mark.slow] if one == "fit" else []) for one in SMALL]
)
def test_contract_and_report(kind: str, tmp_path: Path) -> None:
    experiment = load_experiment({"experiment": kind, **SMALL[kind]})
    # a path is stopped at each of its few steps, for its stages are unlike each other
    whole = check_experiment(experiment.replace, tmp_path, sittings=12 if kind == "path" else 3)
    summary = json.loads((whole / "results" / "summary.json").read_text())
    page = json.loads((whole / "results" / "page.json").read_text())
    report = write_report(whole).read_text()
    assert f": {escape(summary['headline'])}</h1>" in report and "could not be used" not in report
    assert all(f"<dt>{escape(card['label'])}</dt>" in report for card in page["cards"])
    assert all(f"<h2>{escape(one['title'])}</h2>" in report for one in [*page["tables"], *page["figures"]])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_contract_under_real_kills(tmp_path: Path) -> None:
    experiment = load_experiment({"experiment": "contest", **SMALL["contest"]})
    check_experiment(experiment.replace, tmp_path, sittings=1, kills=5)
