"""The experiment `fit` of potentials that are not linear: stages, seeds, scans, resumes, and what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_fits import SILICON, fit_of, in_sittings

from mlopt.core import InputError
from mlopt.core.testing.recorder import Recorder
from mlopt.optimizers.experiments.fit import Fit
from mlopt.optimizers.experiments.fit.result import FitResult
from mlopt.potentials import BehlerParrinello

pytest.importorskip("numba")

SMALL: dict[str, Any] = {
    "potential": {"name": "behler-parrinello", "cutoff": 3.8, "hidden": [6], "functions": "amp"},
    "training": {
        "seeds": 2,
        "every": 10,
        "validation": 0.2,
        "stages": [
            {"optimizer": {"name": "annealing", "steps": 50, "calibration": 10}, "evaluations": 20},
            {"optimizer": "lbfgs", "evaluations": 60},
        ],
    },
}


def fit(**settings: Any) -> Fit:
    return fit_of({**SMALL, **settings})


def test_a_training_leaves_a_potential_and_a_report(tmp_path: Path) -> None:
    found = fit().run(Recorder(tmp_path))
    summary = found.summary()
    assert summary["evaluations"] == 80 and len(summary["seeds"]) == 2
    assert summary["seed"] == min((0, 1), key=lambda one: summary["seeds"][one]["held_back"])
    assert "lambda" not in summary and summary["parameters"] == found.how.theta.shape[1]
    assert {"parity.svg", "residuals.svg", "training.svg", "potential.safetensors"} <= {
        path.name for path in tmp_path.iterdir()
    }
    again = BehlerParrinello(weights=str(tmp_path / "potential.safetensors"))
    test = found.errors["test"]
    assert torch.equal(again.evaluate(test.data.systems).force, test.predicted.force)
    rows = {row["set"]: row for row in found.rows}
    assert rows["train"]["energy_mae"] < 0.2 and rows["test"]["structures"] == 6


def told(found: FitResult) -> tuple[list[Any], list[Any]]:
    return found.how.theta.tolist(), [replace(one, seconds=None).plain() for one in found.candidates]


@pytest.mark.slow
def test_a_scan_is_decided_by_what_is_held_back_and_resumes(tmp_path: Path) -> None:
    made = fit(scan={"hidden": [[3], [6], []]})
    whole = made.run(Recorder(tmp_path / "whole"))
    assert whole.chosen.held_back == min(one.held_back or 0.0 for one in whole.candidates)
    assert whole.summary()["chosen"] == whole.chosen.settings
    assert (tmp_path / "whole" / "cost.svg").exists() and (whole.chosen.seconds or 0.0) > 0.0
    found, sittings, _ = in_sittings(made, tmp_path / "parts", pauses=37)
    assert sittings > 3 and told(found) == told(whole)


@pytest.mark.parametrize(
    ("settings", "instead"),
    [
        ({"weights": {"energy": 1.0}}, "`weights` .*: say what residuals count by `training.loss.weights`"),
        ({"prior": {"smooth": 2.0}}, "`prior` .*: `training.loss.decay` keeps parameters small"),
        ({"folds": 3}, "`folds` .*: `training.validation` is the share that is held back"),
        ({"memory": 2.0}, "`memory` .*: `training.block` says how many atoms are evaluated at a time"),
    ],
)
def test_settings_of_linear_potentials_are_refused(settings: dict[str, Any], instead: str) -> None:
    with pytest.raises(InputError, match="plays no part, for BehlerParrinello is trained"):
        fit(**settings)
    with pytest.raises(InputError, match=instead):
        fit(**settings)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    """Through the command, with blocks that are shared out: the same bytes."""
    small = {
        **SMALL,
        "data": SILICON,
        "experiment": "fit",
        "training": {**SMALL["training"], "block": 30, "seeds": 1},
    }
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(small))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = []
    for name, launch in (("one", [sys.executable]), ("two", torchrun)):
        command = [
            *launch,
            "-m",
            "mlopt.cli",
            "run",
            str(tmp_path / "fit.yaml"),
            "--out",
            str(tmp_path / name),
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found.append((tmp_path / name / "results" / "potential.safetensors").read_bytes())
        found.append((tmp_path / name / "metrics.jsonl").read_bytes())
    assert found[:2] == found[2:]
