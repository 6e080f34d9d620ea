"""A run directory: made, opened or refused; its status, its configuration and its metrics."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from held_directories import CONFIG, ENVIRONMENT, tell

from mlopt.core.errors import RunDirectoryError
from mlopt.core.runs import directory as rundir
from mlopt.core.runs.directory import RunDirectory


def test_create_makes_parents_and_the_layout(run: RunDirectory) -> None:
    assert sorted(os.listdir(run.root)) == [
        ".mlopt-run", "checkpoints", "config.input.yaml", "config.resolved.yaml", "env.json", "lock", "results",
    ]  # fmt: skip
    assert (run.root / "config.resolved.yaml").read_text() == CONFIG
    assert (run.root / "config.input.yaml").read_text() == "# mine\n"
    again = RunDirectory.open(run.root)
    assert (again.run_id, again.config_digest) == (run.run_id, run.config_digest)
    assert again.config_resolved == CONFIG


def test_create_takes_an_empty_folder_and_odd_names(tmp_path: Path) -> None:
    odd = tmp_path / "ü ñ $(x) 'q'"
    odd.mkdir()
    assert RunDirectory.open(RunDirectory.create(odd, config_resolved=CONFIG).root).root == odd.resolve()


def test_create_refuses_a_folder_that_is_not_ours_and_leaves_it_alone(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"thesis{number}.tex").write_text("words")
    before = sorted(os.listdir(tmp_path))
    message = r"not empty.*thesis0\.tex, .*and 2 more\. Choose another --out, or remove it"
    with pytest.raises(RunDirectoryError, match=message):
        RunDirectory.create(tmp_path, config_resolved=CONFIG)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("content", ["another program's lock", '{"pid": 1}'])
def test_create_leaves_a_foreign_lock_file_alone(content: str, tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(content)
    with pytest.raises(RunDirectoryError, match="it holds lock"):
        RunDirectory.create(tmp_path, config_resolved=CONFIG)
    assert (tmp_path / "lock").read_text() == content


def test_create_refuses_a_run_and_a_file(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(
        RunDirectoryError, match=f"already holds a run.*mlopt resume {run.root}.*another --out"
    ):
        RunDirectory.create(run.root, config_resolved=CONFIG)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunDirectoryError, match="Choose another --out"):
            RunDirectory.create(path, config_resolved=CONFIG)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_impossible_names_are_refused_clearly(name: str, tmp_path: Path) -> None:
    for attempt in (lambda p: RunDirectory.create(p, config_resolved=CONFIG), RunDirectory.open):
        with pytest.raises(RunDirectoryError, match="not a usable path"):
            attempt(tmp_path / name)


@pytest.mark.parametrize("last_written", ["lock", ".mlopt-run", "checkpoints", "config.resolved.yaml"])
def test_a_kill_during_create_leaves_nothing_stuck(last_written: str, tmp_path: Path) -> None:
    root = tmp_path / "run"
    RunDirectory.create(root, config_resolved=CONFIG)
    order = [
        "lock",
        ".mlopt-run",
        "checkpoints",
        "results",
        "config.input.yaml",
        "config.resolved.yaml",
        "env.json",
    ]
    for name in order[order.index(last_written) + 1 :]:
        path = root / name
        path.rmdir() if path.is_dir() else path.unlink()
    if last_written == "lock":
        RunDirectory.create(root, config_resolved=CONFIG)
    with RunDirectory.open(root).lock():
        assert sorted(os.listdir(root)) == sorted(order)
        assert (root / "config.resolved.yaml").read_text() == CONFIG


def test_open_refuses_what_is_not_a_run(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("")
    for path, message in (
        (tmp_path / "none", "no such run directory"),
        (tmp_path / "note.txt", "is a file"),
        (tmp_path, r"not a run directory of mlopt \(no \.mlopt-run in it; it holds note\.txt, runs\)"),
        (run.root / "results", "it holds nothing"),
    ):
        with pytest.raises(RunDirectoryError, match=message):
            RunDirectory.open(path)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        (b"", r"\.mlopt-run: cannot be read"),
        (b"\xff\xfe", r"\.mlopt-run: cannot be read"),
        (b"[]", r"\.mlopt-run: cannot be read"),
        (b'{"format": 1, "run_id": 3}', r"\.mlopt-run: cannot be read"),
        (b"[" * 100_000, r"\.mlopt-run: cannot be read"),
    ],
)
def test_open_refuses_a_damaged_marker(marker: bytes, message: str, run: RunDirectory) -> None:
    (run.root / ".mlopt-run").write_bytes(marker)
    with pytest.raises(RunDirectoryError, match=message):
        RunDirectory.open(run.root)


def test_open_refuses_a_newer_format(run: RunDirectory) -> None:
    marker = json.loads((run.root / ".mlopt-run").read_text())
    (run.root / ".mlopt-run").write_text(json.dumps({**marker, "format": rundir.FORMAT_VERSION + 1}))
    with pytest.raises(RunDirectoryError, match="newer mlopt"):
        RunDirectory.open(run.root)


def test_open_writes_nothing(run: RunDirectory) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}
    RunDirectory.open(run.root).read_status()
    assert {path: path.stat().st_mtime_ns for path in run.root.rglob("*")} == before


def test_default_path_counts_up_and_survives_a_race(tmp_path: Path) -> None:
    base = tmp_path / "runs"
    assert rundir.default_path("lj38", base) == base / "lj38-0001"
    assert rundir.default_path("lj38", base) == base / "lj38-0002"
    assert rundir.default_path("lj3", base) == base / "lj3-0001"
    (base / "lj38-9999").mkdir()
    assert rundir.default_path("lj38", base).name == "lj38-10000"
    assert rundir.default_path("../Ar 38?", base).name == "Ar-38-0001"
    code = (
        "import sys; from mlopt.core.runs import directory as rundir\nsys.stdin.readline()\n"
        "print(*[rundir.default_path('race', sys.argv[1]) for _ in range(50)], sep='\\n')"
    )
    command = [sys.executable, "-c", code, str(base)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    racers = [subprocess.Popen(command, text=True, env=ENVIRONMENT, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    for racer in racers:
        tell(racer)
    paths = [path for racer in racers for path in racer.communicate()[0].split()]
    assert len(paths) == len(set(paths)) == 100


def test_paths_stay_inside(run: RunDirectory, tmp_path: Path) -> None:
    assert run.path("results", "minima-1.extxyz") == run.root / "results" / "minima-1.extxyz"
    for bad in ("..", ".", "", "a/b", "/etc", "a\0", "a\n", "ü", "a b", "~", "x" * 300, "..\\a"):
        with pytest.raises(RunDirectoryError, match="cannot name a file of a run"):
            run.path("results", bad)
    (run.root / "results" / "out").symlink_to(tmp_path)
    (run.root / "results" / "gone").symlink_to(tmp_path / "not-there")
    (run.root / "results" / "loop").symlink_to(run.root / "results" / "loop")
    (run.root / "results" / "in").symlink_to(run.root / "checkpoints")
    for parts in (("results", "out"), ("results", "out", "x"), ("results", "gone"), ("results", "loop", "x")):
        with pytest.raises(RunDirectoryError, match="symbolic link leads out"):
            run.path(*parts)
    assert run.path("results", "in", "x").parent.resolve() == run.root / "checkpoints"


@pytest.mark.parametrize("state", ["finished", "failed", "preempted", "interrupted", "not-converged"])
def test_a_final_status_comes_back(state: str, run: RunDirectory) -> None:
    with run.lock():
        run.write_status("running")
        started = run.read_status().started
        run.write_status(state, "Å", {"step": 9})
    status = RunDirectory.open(run.root).read_status()
    assert (status.state, status.message, status.progress) == (state, "Å", {"step": 9})
    assert (status.pid, status.started) == (os.getpid(), started)
    assert status.started <= status.updated


def test_a_running_status_without_the_lock_is_killed_though_its_pid_lives(run: RunDirectory) -> None:
    with run.lock():
        run.write_status("running")
        assert run.read_status().state == "running"
    assert run.read_status().state == "killed"  # the number may have gone to another process


def test_a_running_status_from_another_machine_is_judged_by_the_lock(run: RunDirectory) -> None:
    with run.lock():
        run.write_status("running")
        path = run.root / "STATUS.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere", "pid": 2**22 + 1}))
        assert run.read_status().state == "running"
    assert run.read_status().state == "killed"


def test_a_status_that_is_missing_unknown_or_damaged(run: RunDirectory) -> None:
    assert run.read_status().state == "killed"
    with run.lock():
        assert run.read_status().state == "running"
    for state in ("killed", "done"):
        with pytest.raises(RunDirectoryError, match="must be one of running, finished"):
            run.write_status(state)
    for text in ("", "[]", '{"state": "running"}', "\0"):
        (run.root / "STATUS.json").write_text(text)
        with pytest.raises(RunDirectoryError, match=r"STATUS\.json: cannot be read .*Delete it"):
            run.read_status()


def test_a_changed_configuration_is_shown_and_refused(run: RunDirectory) -> None:
    run = RunDirectory.open(run.root)
    run.check_config(CONFIG)
    with pytest.raises(RunDirectoryError) as caught:
        run.check_config(CONFIG.replace("seed: 0", "seed: 1"))
    message = str(caught.value)
    assert "\n  -seed: 0\n  +seed: 1\n" in message
    assert "force_calls" not in message
    assert "mlopt run CONFIG --out OTHER" in message
    with pytest.raises(RunDirectoryError, match="only white space"):
        run.check_config(CONFIG.rstrip("\n"))


def test_metrics_of_a_resumed_run_equal_those_of_an_uninterrupted_one(run: RunDirectory) -> None:
    path = run.root / "metrics.jsonl"
    rows = [{"step": step, "energy": -step / 3} for step in range(20)]
    for row in rows:
        run.append_metrics(row)
    whole = path.read_bytes()
    after_checkpoint = whole.index(b'{"step": 12')
    for cut in range(after_checkpoint, len(whole) + 1, 5):  # killed at any byte; the checkpoint is of step 11
        path.write_bytes(whole[:cut])
        run.truncate_metrics("step", 11)
        for row in rows[12:]:
            run.append_metrics(row)
        assert path.read_bytes() == whole, cut


def test_truncation_says_how_much_went_and_leaves_a_good_file_alone(run: RunDirectory) -> None:
    path = run.root / "metrics.jsonl"
    assert run.truncate_metrics("step", 3) == 0
    assert not path.exists()
    path.write_bytes(b'{"note": 1}\n{"step": 3}\n\0\0\0\n[4]\n{"step": 3.5}\n{"note": 2}\n{"st')
    assert run.truncate_metrics("step", 3.5) == 3
    assert path.read_bytes() == b'{"note": 1}\n{"step": 3}\n{"step": 3.5}\n{"note": 2}\n'
    inode = path.stat().st_ino
    assert run.truncate_metrics("step", 3.5) == 0
    assert path.stat().st_ino == inode
    assert run.truncate_metrics("step", 3) == 2
    path.write_bytes(b'{"step": 1}\n{"step": 2}')  # a whole row that lost its end of line only
    assert run.truncate_metrics("step", 2) == 0
    run.append_metrics({"step": 3})
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_metrics_are_json_whatever_the_numbers(run: RunDirectory) -> None:
    run.append_metrics({"step": 1, "energy": math.nan, "all": [math.inf, 1.0, (-math.inf,)], "who": "Å\n"})
    lines = (run.root / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "energy": None, "all": [None, 1.0, [None]], "who": "Å\n"}
    ]
    with pytest.raises(RunDirectoryError, match="metrics row is not JSON"):
        run.append_metrics({"step": object()})
