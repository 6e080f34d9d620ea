"""The experiment `fit`: chooses without a look at the test set, resumes, and leaves a potential to be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ase.io import read, write
from small_fits import SILICON, fit_of, in_sittings

from mlopt.core import InputError, Systems
from mlopt.core.runs.config import load_experiment
from mlopt.core.testing.recorder import Recorder
from mlopt.optimizers.experiments.fit import Fit, experiment
from mlopt.optimizers.experiments.fit.result import FitResult
from mlopt.optimizers.fitting.least_squares import Solution
from mlopt.potentials import Mtp

pytest.importorskip("numba")

SMALL: dict[str, Any] = {
    "potential": {"name": "mtp", "degrees": [7, 6], "cutoff": 3.8, "pair_functions": 6},
    "folds": 4,
}


def fit(**settings: Any) -> Fit:
    return fit_of({**SMALL, **settings})


def test_a_fit_reproduces_what_it_learns_from(tmp_path: Path) -> None:
    found = fit(potential={"name": "mtp", "degrees": [10, 8], "cutoff": 3.8}).run(Recorder(tmp_path))
    rows = {row["set"]: row for row in found.rows}
    assert rows["train"]["structures"] == 18 and rows["test"]["structures"] == 6
    assert rows["test"]["energy_mae"] < 0.01 and rows["test"]["force_mae"] < 0.15
    summary = found.summary()
    assert summary["headline"].startswith("test errors (MAE): ") and summary["parameters"] == len(
        found.how.theta
    )
    assert [count for count, _ in found.curve] == sorted(count for count, _ in found.curve)
    written = {path.name for path in tmp_path.iterdir()}
    pictures = {"parity.svg", "residuals.svg", "learning.svg", "extrapolation.svg"}
    assert pictures | {"potential.safetensors", "potential.mtp", "errors.json", "worst.extxyz"} <= written
    assert json.loads((tmp_path / "errors.json").read_text()) == found.rows
    assert len(read(tmp_path / "worst.extxyz", ":")) == 5
    assert found.deviations is not None
    header, *lines = (tmp_path / "test.csv").read_text().splitlines()
    assert header.endswith(",energy_deviation,relative_deviation") and len(lines) == 6
    relative = [float(line.rsplit(",", 1)[1]) for line in lines]
    assert max(relative) == pytest.approx(summary["extrapolation"]["largest"], rel=1e-5)
    assert summary["extrapolation"]["structures"] == sum(one > 2.0 for one in relative)
    warned = [one for one in found.warnings if "lie outside of what was fitted to" in one]
    assert len(warned) == (summary["extrapolation"]["structures"] > 0)


def test_what_a_fit_leaves_is_a_potential_for_everything(tmp_path: Path) -> None:
    found = fit().run(Recorder(tmp_path))
    weights = str(tmp_path / "potential.safetensors")
    again, systems = Mtp(weights=weights), found.errors["test"].data.systems
    torch.testing.assert_close(
        again.evaluate(systems).force, found.errors["test"].predicted.force, rtol=0, atol=1e-12
    )
    as_mtp = Mtp(file=str(tmp_path / "potential.mtp"), elements=["Si"])
    torch.testing.assert_close(
        as_mtp.evaluate(systems).energy, again.evaluate(systems).energy, rtol=0, atol=1e-9
    )
    write(tmp_path / "start.extxyz", systems[0].to_atoms())
    config = {
        "experiment": "search",
        "system": str(tmp_path / "start.extxyz"),
        "potential": {"name": "mtp", "weights": weights},
        "optimizer": "lbfgs",
        "starts": 1,
        "budget": {"force_calls": 100},
    }
    relaxed = load_experiment(config).run()
    assert relaxed.best is not None and relaxed.best.energy < float(again.evaluate(systems[0]).energy)
    assert found.training()["results"]["test"]["structures"] == 6


def test_a_scan_takes_what_the_evidence_says(tmp_path: Path) -> None:
    scan = {"degrees": [[5, 4], [8, 7]], "cutoff": [3.0, 3.8]}
    recorder = Recorder(tmp_path)
    found = fit(scan=scan).run(recorder)
    evidence = [one.evidence for one in found.candidates]
    chosen = found.candidates[evidence.index(max(evidence))].settings
    assert len(evidence) == 4 and chosen == {"degrees": [8, 7], "cutoff": 3.8}
    assert isinstance(found.potential, Mtp) and found.potential.degrees == [8, 7]
    assert (tmp_path / "scan.svg").exists() and (tmp_path / "cost.svg").exists()
    assert all(one.error is not None and (one.seconds or 0.0) > 0.0 for one in found.candidates)
    assert found.chosen.error == min(one.error or 0.0 for one in found.candidates)
    assert [row["evidence"] for _, row in recorder.metrics] == evidence
    alone = fit(potential={**SMALL["potential"], **chosen}).run()
    assert torch.equal(alone.how.theta, found.how.theta)


def test_a_scan_takes_what_folds_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the errors given by hand, for the evidence would take the other candidate."""
    errors = iter([0.1, 0.2])
    monkeypatch.setattr(experiment, "left_out", lambda *_, **__: next(errors))
    found = fit(scan={"degrees": [[5, 4], [8, 7]]}, prior={"strength": "cross-validation"}).run(
        Recorder(tmp_path)
    )
    low, high = found.candidates
    assert high.evidence > low.evidence and found.chosen is low
    assert isinstance(found.potential, Mtp) and found.potential.degrees == [5, 4]
    told = str(found.summary().page()["tables"])
    assert "The error on left-out folds decides." in told


def outcome(found: FitResult) -> tuple[list[float], list[dict[str, Any]]]:
    return found.how.theta.tolist(), found.rows


@pytest.mark.parametrize("scan", [{}, {"cutoff": [3.8, 3.0]}], ids=["alone", "scan"])
def test_a_fit_that_is_stopped_ends_the_same(scan: dict[str, Any], tmp_path: Path) -> None:
    """Stopped after every part of the data, also when the best candidate had been forgotten."""
    whole = outcome(fit(scan=scan).run())
    found, sittings, _ = in_sittings(fit(scan=scan), tmp_path, pauses=1)
    assert sittings > 1 and outcome(found) == whole


RADIAL: dict[str, Any] = {
    "potential": {"name": "mtp", "degrees": [5, 4], "cutoff": 3.8, "pair_functions": 4, "chebyshev": 6},
    "radial": {"evaluations": 25},
}


def test_fitted_radial_functions_are_kept(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    plain, found = fit(potential=RADIAL["potential"]).run(), fit(**RADIAL).run(recorder)
    assert isinstance(found.how, Solution) and isinstance(plain.how, Solution)
    assert found.how.evidence > plain.how.evidence + 20.0
    assert found.errors["train"].row("")["force_rmse"] < 0.9 * plain.errors["train"].row("")["force_rmse"]
    losses = [row["loss"] for _, row in recorder.metrics if "loss" in row]
    assert [row["evaluations"] for _, row in recorder.metrics if "loss" in row] == [10, 20, 25]
    assert losses == sorted(losses, reverse=True)
    again, systems = Mtp(weights=str(tmp_path / "potential.safetensors")), found.errors["test"].data.systems
    assert again == found.potential.replace(weights=again.weights, theta=None)
    wanted = found.errors["test"].predicted.force
    torch.testing.assert_close(again.evaluate(systems).force, wanted, rtol=0, atol=1e-12)
    card = json.loads((tmp_path / "potential.json").read_text())
    assert card["training"]["estimator"]["radial"]["evaluations"] == 25


@pytest.mark.slow
def test_a_fit_of_radial_functions_that_is_stopped_ends_the_same(tmp_path: Path) -> None:
    """Stopped after every evaluation; its rows of metrics are those of the whole."""
    whole = Recorder()
    wanted = fit(**RADIAL, scan={"cutoff": [3.8, 3.0]}).run(whole)
    found, sittings, rows = in_sittings(fit(**RADIAL, scan={"cutoff": [3.8, 3.0]}), tmp_path, pauses=1)
    assert sittings > 10 and outcome(found) == outcome(wanted)
    assert rows == whole.metrics
    assert found.potential == wanted.potential


def test_radial_functions_of_other_potentials_are_refused() -> None:
    network = {"name": "behler-parrinello", "cutoff": 3.8}
    with pytest.raises(InputError, match="`radial`: BehlerParrinello has no radial coefficients"):
        fit(potential=network, radial={}, folds=10).check()
    with pytest.raises(
        InputError, match=r"`radial\.optimizer`: LevenbergMarquardt needs the residuals of the loss"
    ):
        fit(radial={"optimizer": "levenberg-marquardt"}, potential=RADIAL["potential"]).check()


def test_weights_of_groups_reach_the_rows(tmp_path: Path) -> None:
    labelled = fit().data.load(0)[0].to_atoms()
    for index, atoms in enumerate(labelled):
        atoms.info["config_type"] = ("a", "b")[index % 2]
    write(tmp_path / "train.extxyz", labelled)
    data = {"train": str(tmp_path / "train.extxyz"), "leave_out": 0.0}
    plain, only = fit(data=data).run(), fit(data=data, group_weights={"b": 0.0}).run()
    errors = {name: one.row("")["force_mae"] for name, one in only.errors["train"].groups()}
    before = {name: one.row("")["force_mae"] for name, one in plain.errors["train"].groups()}
    assert errors["a"] < before["a"] and errors["b"] > before["b"]
    assert {row["set"] for row in only.rows} == {"train", "train: a", "train: b"}
    with pytest.raises(InputError, match="no structure is of the group 'c'; there are: a, b"):
        fit(data=data, group_weights={"c": 1.0}).check()


def test_refusals_come_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"`scan`: \{'level': 7\} makes no potential: .*no 7"):
        fit(potential={"name": "mtp"}, scan={"level": [7]}).check()
    with pytest.raises(InputError, match=r"makes no potential: mtp\.level: unknown key 'mtp.level'"):
        fit(potential={"name": "mtp"}, scan={"mtp.level": [8]}).check()
    other = (
        Systems.cluster([14, 32])
        .with_pos(torch.tensor([[0.0, 0, 0], [0, 0, 2.4]], dtype=torch.float64))
        .to_atoms()[0]
    )
    other.info["energy"] = -1.0
    write(tmp_path / "test.extxyz", other)
    with pytest.raises(InputError, match=r"`data\.test` has Ge, of which no structure to fit to has any"):
        fit(data={**SILICON, "test": str(tmp_path / "test.extxyz")}).check()
    monkeypatch.setattr(experiment, "_memory", lambda: 1e5)
    with pytest.raises(InputError, match=r"37 parameters need about 0\.0 GB, and this machine has 0\.0 GB"):
        fit().check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"potential": "lennard-jones"},
            "is not a FittablePotential but a LennardJones",
        ),
        ({"scan": {"level": []}}, "`level` lists no values"),
        (
            {"training": {"seeds": 2}},
            "`training` plays no part, for Mtp is linear in its parameters: leave it out",
        ),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        fit(**settings)
