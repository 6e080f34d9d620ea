"""How a run ends that cannot end well: with numbers that are none, or with a plugin that leaves the program."""

from __future__ import annotations

import json

import pytest

from mlopt.cli.terminal.output import not_numbers
from mlopt.core.runs.directory import RunDirectory

SEARCH = """
experiment: search
system: {cluster: Ar3}
potential: {name: broken}
optimizer: fire
starts: 2
budget: {force_calls: 5}
engine: eager
"""


def state(folder):
    return RunDirectory.open(folder).read_status()


@pytest.fixture
def config(here, plugins, quick):
    (here / "mine.yaml").write_text("experiment: sines\nsteps: 6\n")
    return "mine.yaml"


def test_no_run_finishes_with_a_nan(mlopt, config, here, quick):
    result = mlopt("run", config, "--out", "x", "-s", "trouble=nan")
    named = "barrier is nan, rows.1.mean is inf, array.1 is -inf"
    assert result.code == 1 and f"results that are no numbers: {named}; " in result.err
    assert "barrier" in result.out, "what was found is shown all the same"
    summary = json.loads((here / "x" / "results" / "summary.json").read_text())
    assert summary["status"] == "failed" and named in summary["failure"]
    assert summary["barrier"] is None and summary["none"] is None and summary["array"] == [1.0, None]
    assert (here / "x" / "results" / "final.json").exists() and quick == [here / "x"]
    assert state(here / "x").state == "failed" and named in state(here / "x").message
    assert mlopt("resume", "x").code == 1


def test_none_is_no_fault():
    assert not_numbers({"a": None, "b": [1, "nan", True], "c": {"d": 1e308}}) == []
    assert [name for name, _ in not_numbers({"a": {"b": [0.0, float("nan")]}, "c": float("inf")})] == [
        "a.b.1",
        "c",
    ]


def test_a_long_list_is_cut(mlopt, config, monkeypatch):
    from mlopt.cli.run.runner import _judged
    from mlopt.core.runs.config import load_experiment

    sines = load_experiment({"experiment": "sines"})
    told = _judged(sines, {f"n{i}": float("nan") for i in range(50)}).failure
    assert told.endswith("n7 is nan and 42 more")


def test_a_potential_without_a_sound_energy(mlopt, config, here):
    (here / "search.yaml").write_text(SEARCH)
    result = mlopt("run", "search.yaml", "--out", "x", "--json")
    assert result.code == 1 and "the run failed: every start did; " in result.err, result.err
    told = json.loads(result.out)
    assert told["status"] == "failed" and told["best_energy"] is None
    assert state(here / "x").state == "failed" and (here / "x" / "results" / "starts.json").exists()


def test_sys_exit_in_a_run(mlopt, config, here):
    result = mlopt("run", config, "--out", "x", "-s", "trouble=leave", "--checkpoint-every", "0", "--json")
    assert result.code == 1 and "the run failed: something in it called sys.exit(0)" in result.err
    assert json.loads(result.out)["status"] == "error"
    assert state(here / "x").state == "failed" and "sys.exit(0)" in state(here / "x").message
    assert "raise SystemExit(0)" in (here / "x" / "log.txt").read_text()
    assert mlopt("resume", "x").code == 0


@pytest.mark.parametrize(("when", "words"), [("leave", "something in it"), ("check_leaves", "a plugin")])
def test_sys_exit_in_a_potential(mlopt, config, here, when, words):
    (here / "search.yaml").write_text(SEARCH.replace("broken", f"broken, {when}: true"))
    result = mlopt("run", "search.yaml", "--out", "x")
    assert result.code == 1 and words in result.err and "called sys.exit(0)" in result.err
    assert (here / "x").exists() == (when == "leave")


def test_what_a_plugin_prints_leaves_the_json_alone(mlopt, config):
    result = mlopt("run", config, "-s", "trouble=print", "--json", "--quiet")
    assert json.loads(result.out)["status"] == "finished" and result.err == "printed by a plugin\n"
