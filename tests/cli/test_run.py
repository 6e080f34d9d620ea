"""``mlopt run``: what it writes, what it prints, and every way in which a run can end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlopt.core.runs.config import read_yaml
from mlopt.core.runs.directory import RunDirectory

CONFIG = "# mine\nexperiment: sines\nsteps: 6\n"


@pytest.fixture
def config(here: Path, plugins: Path, quick: list[Path]) -> str:
    (here / "mine.yaml").write_text(CONFIG)
    return "mine.yaml"


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def status(folder: Path) -> str:
    return RunDirectory.open(folder).read_status().state


def test_run_writes_everything(mlopt, config, here, quick):
    result = mlopt("run", config)
    assert result.code == 0, result.err
    folder = here / "runs" / "mine-0001"
    assert quick == [folder]
    assert (folder / "config.input.yaml").read_text() == CONFIG
    resolved = read_yaml((folder / "config.resolved.yaml").read_text())
    assert resolved["experiment"] == "sines" and resolved["sub"] == {"depth": 1} and resolved["steps"] == 6
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4, 5, 6]
    assert status(folder) == "finished"
    summary = json.loads((folder / "results" / "summary.json").read_text())
    assert summary["experiment"] == "sines" and summary["not_json"] == "depth=1"
    assert json.loads((folder / "env.json").read_text())["torch_threads"] >= 1
    assert "finished after" in (folder / "log.txt").read_text()
    assert str(folder) in result.out and "total" in result.out


def test_runs_are_numbered(mlopt, config, here):
    for _ in range(2):
        assert mlopt("run", config, "--quiet").code == 0
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["mine-0001", "mine-0002"]


def test_json_is_one_object(mlopt, config, here):
    result = mlopt("run", config, "--json", "--out", "there/it is")
    told = json.loads(result.out)
    assert told["run_dir"] == str(here / "there" / "it is")
    assert told["report"] == str(here / "there" / "it is" / "report.html")
    assert told["status"] == "finished" and told["not_json"] == "depth=1"
    assert "total" in result.err, "progress belongs on stderr"


def test_quiet(mlopt, config):
    assert mlopt("run", config, "--quiet").err == ""


def test_progress_lines(mlopt, config):
    lines = [line for line in mlopt("run", config).err.splitlines() if "[markup]" in line]
    assert len(lines) == 2, "the first and the last"
    assert "100 %" in lines[-1]


def test_overrides_are_kept(mlopt, config, here):
    mlopt("run", config, "-s", "steps=3", "-s", "sub.depth=4", "--device", "cuda")
    folder = here / "runs" / "mine-0001"
    resolved = read_yaml((folder / "config.resolved.yaml").read_text())
    assert (resolved["steps"], resolved["sub"], resolved["device"]) == (3, {"depth": 4}, "cuda")
    given = (folder / "config.input.yaml").read_text()
    assert given == CONFIG + "# -s steps=3\n# -s sub.depth=4\n# -s device=cuda\n"


def test_threads(mlopt, config, here):
    import torch

    before = torch.get_num_threads()
    try:
        assert mlopt("run", config, "--threads", "2", "--out", "x").code == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert json.loads((here / "x" / "env.json").read_text())["torch_threads"] == 2


@pytest.mark.parametrize(
    ("target", "strict", "code"), [(-9, True, 3), (-9, False, 0), (99, True, 0), (None, True, 0)]
)
def test_strict(mlopt, config, here, target, strict, code):
    extra = ["--strict"] if strict else []
    result = mlopt(
        "run", config, "--out", "x", "-s", f"target={'null' if target is None else float(target)}", *extra
    )
    assert result.code == code
    assert status(here / "x") == ("not-converged" if code else "finished")
    assert ("the target was not reached" in result.err) == bool(code)


def test_all_starts_failed(mlopt, config, here):
    result = mlopt("run", config, "--out", "x", "-s", "trouble=all-failed", "--json")
    assert result.code == 1 and json.loads(result.out)["status"] == "failed"
    assert status(here / "x") == "failed"


@pytest.mark.parametrize(
    ("trouble", "code", "state"),
    [
        ("signal", 75, "preempted"),
        ("usr2", 75, "preempted"),
        ("ctrl-c", 130, "interrupted"),
        ("interrupt", 130, "interrupted"),
    ],
)
def test_signals_leave_a_checkpoint(mlopt, config, here, trouble, code, state):
    result = mlopt("run", config, "--out", "x", "-s", f"trouble={trouble}", "--json")
    assert result.code == code, result.err
    told = json.loads(result.out)
    assert told["status"] == state and told["run_dir"] == str(here / "x")
    assert f"mlopt resume {here / 'x'}" in result.err
    assert status(here / "x") == state
    kept = [path.name for path in (here / "x" / "checkpoints").iterdir()]
    assert kept == ([] if trouble == "interrupt" else ["step-000000000003.ckpt"])
    assert mlopt("resume", "x").code == 0
    assert [row["step"] for row in rows(here / "x")] == [1, 2, 3, 4, 5, 6]


def test_failure_keeps_the_directory(mlopt, config, here):
    result = mlopt("run", config, "--out", "x", "-s", "trouble=disk")
    assert result.code == 1 and "mlopt: the disk is full: free some space" in result.err
    assert status(here / "x") == "failed"
    assert "the disk is full" in (here / "x" / "log.txt").read_text()


def test_unexpected_exception(mlopt, config, here):
    result = mlopt("run", config, "--out", "x", "-s", "trouble=bug", "--json")
    message = json.loads(result.out)["message"]
    assert (
        result.code == 1
        and "ZeroDivisionError: a [bug]" in message
        and str(here / "x" / "log.txt") in message
    )
    assert "Traceback" not in result.err
    log = (here / "x" / "log.txt").read_text()
    assert "Traceback" in log and "in suffer" in log
    assert status(here / "x") == "failed"


def test_failing_report_is_a_warning(mlopt, config, here, monkeypatch):
    from mlopt.cli.report import page as report

    def fail(folder: Path) -> Path:
        raise RuntimeError("no ink")

    monkeypatch.setattr(report, "write_report", fail)
    result = mlopt("run", config, "--out", "x", "--json")
    assert result.code == 0 and json.loads(result.out)["report"] is None
    assert "no ink" in result.err and f"mlopt report {here / 'x'}" in result.err
    assert status(here / "x") == "finished"


def test_idle_directory_is_taken_back(mlopt, config, here, monkeypatch):
    import mlopt_test_plugins as module

    from mlopt.core.errors import InputError

    def run(self, context=None):
        raise InputError("wrong after all: do better")

    monkeypatch.setattr(module.Sines, "run", run)
    result = mlopt("run", config, "--out", "a/b/c")
    assert result.code == 2 and "do better" in result.err
    assert [path.name for path in here.iterdir()] == ["mine.yaml"]


def test_busy_directory_stays(mlopt, config, here):
    result = mlopt("run", config, "--out", "x", "-s", "trouble=input")
    assert result.code == 2 and "do better" in result.err
    assert status(here / "x") == "failed" and len(rows(here / "x")) == 3


def test_foreign_files_stay(mlopt, config, here, monkeypatch):
    import mlopt_test_plugins as module

    from mlopt.core.errors import InputError

    def run(self, context=None):
        (here / "x" / "notes.txt").write_text("precious")
        raise InputError("wrong after all")

    monkeypatch.setattr(module.Sines, "run", run)
    assert mlopt("run", config, "--out", "x").code == 2
    assert (here / "x" / "notes.txt").read_text() == "precious"


def test_full_disk_while_the_directory_is_made(mlopt, config, here, monkeypatch):
    from mlopt.core.errors import MloptError
    from mlopt.core.files import atomic

    def refuse(path, value):
        raise MloptError(f"{path}: the disk is full")

    monkeypatch.setattr(atomic, "write_json", refuse)
    result = mlopt("run", config)
    assert result.code == 1 and "the disk is full" in result.err
    assert [path.name for path in here.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(("trouble", "code"), [("signal", 75), ("disk", 1)])
def test_status_that_cannot_be_written(mlopt, config, here, monkeypatch, trouble, code):
    """What became of the run and its checkpoint counts, even where the disk takes no more."""
    from mlopt.cli.run.context import RunContext
    from mlopt.core.errors import MloptError

    write = RunContext.status

    def refuse(self, state, message=""):
        if (here / "x" / "results" / "suffered").exists():
            raise MloptError("no room for STATUS.json")
        write(self, state, message)

    monkeypatch.setattr(RunContext, "status", refuse)
    monkeypatch.setattr("mlopt.cli.run.context._STATUS_EVERY", 0.0)
    result = mlopt("run", config, "--out", "x", "-s", f"trouble={trouble}")
    assert result.code == code and "no room" not in result.err
    assert "no room for STATUS.json" in (here / "x" / "log.txt").read_text()


def test_file_wins_over_recipe(mlopt, config, here):
    (here / "lj13").write_text(CONFIG)
    result = mlopt("run", "lj13", "--json")
    assert json.loads(result.out)["experiment"] == "sines"


def test_a_folder_named_like_a_recipe_is_in_nobodys_way(mlopt, here):
    (here / "muller-brown").mkdir()
    assert mlopt("validate", "muller-brown").code == 0
    assert mlopt("run", "muller-brown", "--out", "x").code == 0


def test_recipe_runs(mlopt, search, here, quick):
    args = ["-s", "starts=2", "-s", "budget.force_calls=300", "-s", "target=null", "--quiet", "--json"]
    told = json.loads(mlopt("run", "lj13", *args).out)
    assert told["experiment"] == "search" and told["starts"] == 2 and told["best_energy"] < -30
