"""Run directories that older versions began, and stopped in the middle: they go on, and end as they would have."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from mlopt.core.runs.directory import RunDirectory

OLD = Path(__file__).with_name("old_runs")
#: what the version that began a run found where it was left alone
LEFT_ALONE = {
    "path": {"barrier_forward": 1.06065037, "barrier_reverse": 0.49030926, "gradient_evaluations": 147},
    "network": {"minima": 2, "transition_states": 3, "best_energy": -12.712062, "lowest_barrier": 0.633031},
    "training": {"loss": -0.44857492, "held_out": -0.36891083, "epoch_kept": 6, "epochs": 6},
}


def placed(kind: str, here: Path) -> Path:
    """The directory of an old run as it was, in ``here``."""
    shutil.copytree(OLD / kind, here / "x")
    (here / "x" / "marker.json").rename(here / "x" / ".mlopt-run")
    return here / "x"


@pytest.mark.parametrize("kind", LEFT_ALONE)
def test_a_run_ends_as_it_would_have(mlopt, here, quick, kind):
    folder = placed(kind, here)
    begun = (folder / "metrics.jsonl").read_text()
    told = mlopt("resume", "x", "--json", "--threads", "1")
    assert told.code == 0 and "resumed from step-" in told.err, told.err
    assert RunDirectory.open(folder).read_status().state == "finished"
    summary = json.loads(told.out)
    assert {name: summary[name] for name in LEFT_ALONE[kind]} == pytest.approx(LEFT_ALONE[kind], rel=1e-6)
    assert summary["wall_s"] > 0
    assert (folder / "metrics.jsonl").read_text().startswith(begun), "what was measured before stays"


@pytest.mark.parametrize("kind", ["search", "contest"])
def test_a_run_from_before_identities_goes_on(mlopt, here, quick, kind):
    """Begun before checkpoints had an identity and runs kept their files."""
    folder = placed(kind, here)
    shutil.copy(OLD / "start.extxyz", here)
    marker = json.loads((folder / ".mlopt-run").read_text())
    text = marker["config_resolved"].replace("{folder}", str(here))
    marker |= {"config_resolved": text, "config_sha256": hashlib.sha256(text.encode()).hexdigest()}
    (folder / ".mlopt-run").write_text(json.dumps(marker))
    begun = len((folder / "metrics.jsonl").read_text().splitlines())
    told = mlopt("resume", "x", "--max-minutes", "1e-9")
    assert told.code == 75 and "resumed from step-" in told.err, told.err
    assert ("no copy of" in told.err) == (kind == "search")
    told = mlopt("resume", "x", "--json")
    assert told.code == 0, told.err
    assert RunDirectory.open(folder).read_status().state == "finished"
    assert len((folder / "metrics.jsonl").read_text().splitlines()) >= begun
    summary = json.loads(told.out)
    lowest = summary["best_energy"] if kind == "search" else summary["rows"][1]["min"]
    assert lowest == pytest.approx(-16.505384, abs=1e-5)
