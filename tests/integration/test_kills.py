"""A real run, killed at random instants and resumed, ends byte for byte as one that was left alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mlopt.cli.testing.runs import KINDS, results, small_run
from mlopt.core.plugins import registry
from mlopt.core.runs.config import read_yaml
from mlopt.core.testing.kills import check_kills
from mlopt.optimizers.fused.cache import kernels_in

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=[] if one == "search" else [pytest.mark.slow]) for one in KINDS]
)
def test_random_kills(kind: str, tmp_path: Path) -> None:
    """Six of a search by default; the benchmark `kills.py` asks for hundreds."""
    kills = 6 if kind == "search" else 20
    told = check_kills(small_run(kind, tmp_path), results(kind), tmp_path, kills=kills)
    assert told["killed"] == kills
    assert told["different"] == 0
    assert len(results(kind)(tmp_path / "whole")) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["compiled", "training"])
def test_kills_while_kernels_are_compiled(kind: str, tmp_path: Path) -> None:
    told = check_kills(small_run(kind, tmp_path, cold_cache=True), results(kind), tmp_path, kills=4)
    assert (told["killed"], told["different"]) == (4, 0)
    for one in tmp_path.glob("*-cache"):
        assert kernels_in(one / "kernels") >= 1


def test_every_kind_of_run_is_killed() -> None:
    named = {read_yaml(text)["experiment"] for text, _ in KINDS.values()}
    ours = {one.name for one in registry.entries("experiment") if one.distribution == "mlopt-optimizers"}
    assert named == ours
    assert all("metrics.jsonl" in files for _, files in KINDS.values())


def small_work(path: Path) -> int:
    """Writes what follows from the name of its folder."""
    path.mkdir(exist_ok=True)
    time.sleep(0.02)
    if "lost" not in path.parent.name or not path.name.startswith("killed"):
        (path / "result").write_text("odd" if path.parent.name == "odd" and path.name == "whole" else "x" * 9)
    return int(path.parent.name == "failing")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("failing", "left alone ended with exit status 1"), ("odd", "two runs that were left alone have other")],
)
def test_runs_that_nothing_can_be_compared_with(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(AssertionError, match=complaint):
        check_kills(small_work, lambda path: (path / "result").read_bytes(), tmp_path / name, kills=1)


@pytest.mark.parametrize(("name", "different"), [("sound", 0), ("lost", 3)])
def test_a_result_that_is_missing_is_another(tmp_path: Path, name: str, different: int) -> None:
    (tmp_path / name).mkdir()
    told = check_kills(small_work, lambda path: (path / "result").read_bytes(), tmp_path / name, kills=3)
    assert told["killed"] == 3 and told["different"] >= different and (different or not told["different"])
    (tmp_path / "late" / name).mkdir(parents=True)
    told = check_kills(
        small_work,
        lambda path: (path / "result").read_bytes(),
        tmp_path / "late" / name,
        kills=3,
        minutes=0.0,
    )
    assert told == {"runs": 0, "killed": 0, "different": 0}


def slow_once(path: Path) -> int:
    """Takes long where nothing kills it, as on a machine that does other work meanwhile."""
    path.mkdir(exist_ok=True)
    time.sleep(1.0 if path.name == "whole" else 0.03)
    (path / "result").write_text("x")
    return 0


def test_an_undisturbed_run_that_something_slowed_down(tmp_path: Path) -> None:
    """Most instants of its life are after the end of the others, which says how long these live."""
    told = check_kills(slow_once, lambda path: (path / "result").read_bytes(), tmp_path, kills=3)
    assert told["killed"] == 3 and told["different"] == 0 and told["runs"] < 20
