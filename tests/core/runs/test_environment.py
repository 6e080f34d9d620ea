"""What is recorded of the program and the machine: enough to explain a result, and no secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlopt.core.runs.directory import RunDirectory
from mlopt.core.runs.environment import environment, without_secrets


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", config_resolved="experiment: x\n")


def test_the_environment_is_described_without_secrets(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "planted-secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    described = environment()
    assert "planted-secret" not in json.dumps(described)
    assert described["environment"]["OMP_NUM_THREADS"] == "3"
    assert set(described["environment"]) <= {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"}
    stored = json.loads((run.root / "env.json").read_text())
    assert stored["python"] == ".".join(map(str, sys.version_info[:3]))
    assert stored["versions"]["torch"] and stored["versions"]["numpy"]


def test_the_environment_asks_torch_only_if_it_is_there() -> None:
    code = (
        "import sys; from mlopt.core.runs.environment import environment\n"
        "print(environment()['torch_threads'], 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stdout == "None False False\n", done.stderr
    import torch

    assert environment()["torch_threads"] == torch.get_num_threads()


@pytest.mark.parametrize(
    ("given", "masked"),
    [
        (["-s", "model.api_key=planted"], ["-s", "model.api_key=***"]),
        (["-s", "a.password='planted'"], ["-s", "a.password=***"]),
        (["--set=x.Token=planted"], ["--set=***"]),
        (["-s", "model={name: x, secret: planted}"], ["-s", "model=***"]),
        (["--token", "planted"], ["--token", "***"]),
        (["-s", "seed=3", "--out", "runs/x"], ["-s", "seed=3", "--out", "runs/x"]),
    ],
)
def test_values_named_like_secrets_are_masked(given: list[str], masked: list[str]) -> None:
    assert without_secrets(given) == masked


def test_the_file_is_for_the_user_alone(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.root / "env.json").unlink()
    monkeypatch.setattr(sys, "argv", ["mlopt", "run", "x.yaml", "-s", "model.token=planted"])
    with run.lock():
        pass
    assert (run.root / "env.json").stat().st_mode & 0o777 == 0o600
    assert "planted" not in (run.root / "env.json").read_text()
