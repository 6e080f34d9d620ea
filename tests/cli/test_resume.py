"""``mlopt resume``: after any kind of end the run ends as if it had never been stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlopt.cli.testing.damaged import Command
from mlopt.core.runs.directory import RunDirectory

CONFIG = "experiment: sines\nsteps: 40\n"


@pytest.fixture
def config(here: Path, plugins: Path, quick: list[Path]) -> str:
    (here / "mine.yaml").write_text(CONFIG)
    return "mine.yaml"


def outcome(folder: Path) -> tuple[bytes, bytes, str]:
    """What must not depend on kills: metrics, results, and that the run is finished."""
    state = RunDirectory.open(folder).read_status().state
    return (folder / "metrics.jsonl").read_bytes(), (folder / "results" / "final.json").read_bytes(), state


def test_finished_run_is_left_alone(mlopt, config, here):
    first = json.loads(mlopt("run", config, "--out", "x", "--json").out)
    before = outcome(here / "x")
    result = mlopt("resume", "x", "--json")
    assert result.code == 0 and json.loads(result.out) == first
    assert "is finished already" in result.err
    assert outcome(here / "x") == before


def test_finished_run_under_strict(mlopt, config):
    mlopt("run", config, "--out", "x", "-s", "target=-99.0")
    assert mlopt("resume", "x", "--strict").code == 3
    assert mlopt("resume", "x").code == 0


def test_same_result_as_without_a_stop(mlopt, config, here):
    mlopt("run", config, "--out", "whole")
    assert mlopt("run", config, "--out", "x", "-s", "trouble=signal").code == 75
    result = mlopt("resume", "x")
    assert result.code == 0 and "resumed from step-000000000020.ckpt" in result.err
    assert outcome(here / "x") == outcome(here / "whole")


def test_pieces_of_time(mlopt, config, here):
    """A piece that is over at once takes one step; so many pieces make a run."""
    mlopt("run", config, "--out", "whole", "-s", "steps=4")
    first = mlopt("run", config, "--out", "x", "-s", "steps=4", "--max-minutes", "1e-9")
    assert first.code == 75 and "stopped by --max-minutes; the checkpoint is safe" in first.err
    assert mlopt("resume", "x", "--max-minutes", "1").code == 0
    assert outcome(here / "x") == outcome(here / "whole")
    assert mlopt("run", config, "--max-minutes", "0").code == 2


def test_failed_run_is_taken_up(mlopt, config, here):
    mlopt("run", config, "--out", "whole")
    assert mlopt("run", config, "--out", "x", "-s", "trouble=disk", "--checkpoint-every", "0").code == 1
    assert mlopt("resume", "x").code == 0
    assert outcome(here / "x") == outcome(here / "whole")


def test_damaged_checkpoint_is_skipped(mlopt, config, here):
    mlopt("run", config, "--out", "whole")
    mlopt("run", config, "--out", "x", "-s", "trouble=signal", "--checkpoint-every", "0")
    newest = max((here / "x" / "checkpoints").iterdir())
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(data)
    result = mlopt("resume", "x")
    assert result.code == 0 and "skipped a checkpoint" in result.err and newest.name in result.err
    assert outcome(here / "x") == outcome(here / "whole")


def test_no_sound_checkpoint(mlopt, config, here):
    mlopt("run", config, "--out", "x", "-s", "trouble=signal")
    for path in (here / "x" / "checkpoints").iterdir():
        path.write_bytes(b"mlopt checkpoint\n")
    result = mlopt("resume", "x")
    assert result.code == 1 and "none of the 1 checkpoints can be used" in result.err
    for path in (here / "x" / "checkpoints").iterdir():  # as the message says
        path.rename(here / path.name)
    result = mlopt("resume", "x")
    assert result.code == 0 and "started from the beginning" in result.err


def test_killed_before_the_first_checkpoint(mlopt, config, here):
    mlopt("run", config, "--out", "whole")
    mlopt("run", config, "--out", "x", "-s", "trouble=disk", "--checkpoint-every", "inf")
    result = mlopt("resume", "x")
    assert result.code == 0 and "started from the beginning" in result.err
    assert outcome(here / "x") == outcome(here / "whole")


@pytest.mark.parametrize(
    "lost", [["STATUS.json"], ["results/summary.json"], ["env.json", "log.txt"], ["config.input.yaml"]]
)
def test_killed_before_the_last_file(mlopt, config, here, lost):
    mlopt("run", config, "--out", "whole", "--checkpoint-every", "0")
    mlopt("run", config, "--out", "x", "--checkpoint-every", "0")
    for name in lost:
        (here / "x" / name).unlink()
    assert mlopt("resume", "x").code == 0
    assert outcome(here / "x") == outcome(here / "whole")


def test_torn_status(mlopt, config, here):
    mlopt("run", config, "--out", "x")
    (here / "x" / "STATUS.json").write_text('{"state": "fin')
    assert mlopt("resume", "x").code == 0
    assert RunDirectory.open(here / "x").read_status().state == "finished"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "held"),
    [
        (".mlopt-run", False),
        ("config.resolved.yaml", False),
        ("metrics.jsonl", False),
        ("STATUS.json", True),
        ("env.json", True),
        ("log.txt", True),
        ("lock", True),
    ],
)
def test_a_pipe_in_place_of_a_file_is_not_waited_for(mlopt, config, here, name, held):
    mlopt("run", config, "--out", "whole")
    mlopt("run", config, "--out", "x", "-s", "trouble=signal")
    (here / "x" / name).unlink()
    os.mkfifo(here / "x" / name)
    ended = Command(["resume", "x", "--quiet"], here).wait(limit=30)
    assert ended.code == int(not held) or (not held and ended.code == 2), ended
    if held:
        assert outcome(here / "x") == outcome(here / "whole")
    else:
        assert ended.messages == 1 and name in ended.err and "pipe" in ended.err
    for command in ("status", "report"):
        assert Command([command, "x"], here).wait(limit=30).code is not None


def test_changed_configuration(mlopt, config, here, refuse):
    mlopt("run", config, "--out", "x", "-s", "trouble=signal")
    path = here / "x" / "config.resolved.yaml"
    path.write_text(path.read_text().replace("steps: 40", "steps: 50"))
    refuse(
        ["resume", "x"],
        "not the one this run began with",
        "-steps: 40",
        "+steps: 50",
        "mlopt run CONFIG --out",
    )


def test_no_overrides(config, refuse):
    refuse(["resume", "x", "-s", "steps=3"], "-s")


@pytest.mark.parametrize("kind", ["nothing", "file", "folder"])
def test_not_a_run_directory(here, refuse, kind):
    if kind == "file":
        (here / "x").write_text("")
    if kind == "folder":
        (here / "x").mkdir()
        (here / "x" / "precious.txt").write_text("")
    for command in ("resume", "status", "report"):
        refuse([command, "x"], str(here / "x"), "run directory")


def test_held_by_another_process(mlopt, config, here, refuse):
    mlopt("run", config, "--out", "x", "-s", "trouble=signal")
    code = (
        "import sys\nfrom pathlib import Path\nfrom mlopt.core.runs.lock import hold\n"
        "with hold(Path('x')):\n    print(flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin and other.stdout
        other.stdout.readline()
        result = mlopt("resume", "x")
        other.stdin.close()
    assert result.code == 2 and f"in use by process {other.pid}" in result.err


def test_changed_versions_are_told(mlopt, config, here):
    mlopt("run", config, "--out", "x", "-s", "trouble=signal")
    path = here / "x" / "env.json"
    recorded = json.loads(path.read_text())
    recorded["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(recorded))
    result = mlopt("resume", "x")
    assert result.code == 0 and "warning: torch was 1.0 when the run began" in result.err


@pytest.fixture
def threads(monkeypatch):
    """Lets a test change the number of threads, on a machine with three cores."""
    import torch

    before = torch.get_num_threads()
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    yield
    torch.set_num_threads(before)


def test_another_kind_of_cpu_is_told(mlopt, config, here):
    mlopt("run", config, "--out", "x", "-s", "trouble=signal")
    path = here / "x" / "env.json"
    recorded = json.loads(path.read_text())
    assert recorded["cpu"]["name"] and {"numba", "llvmlite"} <= set(recorded["versions"])
    features = recorded["cpu"]["features"]
    recorded["cpu"] = {"name": "abacus", "features": [*features, "beads"]}
    path.write_text(json.dumps(recorded))
    said = "warning: the kind of CPU was abacus when the run began and is "
    result = mlopt("resume", "x")
    assert result.code == 0 and said in result.err and "now (beads): the result may differ" in result.err


@pytest.mark.parametrize("kind", [None, 7, {"features": 3}, {"name": ["x"], "features": [[]]}])
def test_a_kind_of_cpu_that_is_none(mlopt, config, here, kind):
    mlopt("run", config, "--out", "x", "-s", "trouble=signal")
    path = here / "x" / "env.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cpu": kind}))
    assert mlopt("resume", "x").code == 0


def test_no_more_threads_than_cores(mlopt, config, here, threads):
    import torch

    said = "100000 threads were asked for, and there are 3 cores: computing with 3 threads"
    result = mlopt("run", config, "--out", "x", "--threads", "100000", "-s", "trouble=signal")
    assert result.code == 75 and said in result.err and torch.get_num_threads() == 3
    path = here / "x" / "env.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"torch_threads": 100_000}))
    result = mlopt("resume", "x")
    assert result.code == 0 and said in result.err and torch.get_num_threads() == 3
    assert "the number of threads was 100000 when the run began and is 3 now" in result.err


def test_threads_are_those_of_the_start(mlopt, config, here, threads):
    import torch

    mlopt("run", config, "--out", "x", "--threads", "3", "-s", "trouble=signal")
    torch.set_num_threads(1)
    assert "threads" not in mlopt("resume", "x").err
    assert torch.get_num_threads() == 3
    mlopt("run", config, "--out", "y", "--threads", "3", "-s", "trouble=signal")
    assert "the number of threads was 3" in mlopt("resume", "y", "--threads", "1").err


def fork(args: list[str]) -> int:
    """Run the command in a fork of this process, which has torch loaded already; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        from mlopt.cli.main import cli

        cli.main(args)
    except SystemExit as end:
        os._exit(int(end.code or 0))
    finally:
        os._exit(99)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_at_random_instants(config, here, kills):
    import torch

    torch.zeros(())
    chance = random.Random(kills)
    run = ["run", config, "-s", "sleep=0.002", "--checkpoint-every", "0.01", "--quiet", "--out"]
    began = time.monotonic()
    assert wait(fork([*run, "whole"])) == 0
    length = time.monotonic() - began
    done = number = 0
    while done < kills:
        folder = here / f"x{number}"
        number += 1
        code = 1
        while code != 0:
            # A kill before the marker is written leaves no run to resume: then the run is started again.
            started = (folder / ".mlopt-run").exists()
            pid = fork(
                ["resume", str(folder), "--quiet", "--checkpoint-every", "0.01"]
                if started
                else [*run, str(folder)]
            )
            if done < kills:
                time.sleep(chance.uniform(0.0, 1.2 * length))
                os.kill(pid, signal.SIGKILL)
                done += 1
            code = wait(pid)
            assert code in (0, -signal.SIGKILL), (folder / "log.txt").read_text()
        assert outcome(folder) == outcome(here / "whole"), f"kills of {folder}"


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), pytest.param(signal.SIGUSR2, 75, marks=pytest.mark.slow), (signal.SIGINT, 130)],
)
def test_signal_from_outside(plugin_folder, here, number, code):
    (here / "mine.yaml").write_text("experiment: sines\nsteps: 100000\nsleep: 0.01\n")
    path = os.pathsep.join([str(plugin_folder), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, "-m", "mlopt.cli", "run", "mine.yaml", "--out", "x", "--json"]
    with subprocess.Popen(
        line,
        cwd=here,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts what it sends to the background with SIGINT ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not (here / "x" / "metrics.jsonl").exists():
                assert time.monotonic() < deadline and process.poll() is None, process.communicate()
                time.sleep(0.02)
            process.send_signal(number)
            asked = time.monotonic()
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code, err
    assert time.monotonic() - asked < 10
    assert json.loads(out)["exit_code"] == code
    assert len(list((here / "x" / "checkpoints").iterdir())) == 1
