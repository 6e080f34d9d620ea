"""Checkpoints on a disk that fills up, in a folder that may not be written to, and of a process that is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mlopt.core.errors import InputError
from mlopt.core.runs import checkpoint
from mlopt.core.runs.checkpoint import Checkpoint


def small() -> Checkpoint:
    return Checkpoint({"x": torch.arange(6, dtype=torch.float64).reshape(2, 3)}, {"step": 7, "energy": -0.1})


def run_python(code: str, *args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


FILL = """
import resource, sys, torch
from mlopt.core.runs import checkpoint
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.errors import MloptError
folder, limit = sys.argv[1], int(sys.argv[2])
checkpoint.save(folder, 1, Checkpoint({"x": torch.zeros(10)}, {"step": 1}), keep=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for step, name in ((2, "step 2"), (1, "step 1 again")):
    try:
        checkpoint.save(folder, step, Checkpoint({"x": torch.zeros(10000)}, {"step": step}), keep=1)
    except MloptError as error:
        print(name, type(error).__name__, error)
"""


def test_a_full_disk_leaves_the_old_checkpoint_and_a_clear_message(tmp_path: Path) -> None:
    done = run_python(FILL, tmp_path, 4096)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith(f"step 2 MloptError {tmp_path}/step-000000000002.ckpt: could not write ")
    assert "size limit" in first
    assert "ulimit -f" in first
    assert second.startswith("step 1 again MloptError")
    assert "The former content is intact" in second
    assert os.listdir(tmp_path) == ["step-000000000001.ckpt"]
    found = checkpoint.newest_sound(tmp_path)
    assert found is not None
    assert found[1].meta == {"step": 1}
    assert found[1].tensors["x"].shape == (10,)


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="file: cannot make the folder"):
        checkpoint.save(tmp_path / "file", 1, small())


SAVE_FOR_EVER = """
import itertools, sys, torch
from mlopt.core.runs import checkpoint
from mlopt.core.runs.checkpoint import Checkpoint
print("ready", flush=True)
for step in itertools.count(int(sys.argv[2])):
    checkpoint.save(sys.argv[1], step, Checkpoint({"x": torch.full((50000,), float(step))}, {"step": step}))
    print(step, flush=True)
"""


def test_after_a_kill_at_any_instant_the_last_acknowledged_checkpoint_is_there(tmp_path: Path) -> None:
    rng = random.Random(2)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    start = 0
    for _ in range(3):
        command = [sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path), str(start)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            lines = [process.stdout.readline()]
            time.sleep(rng.uniform(0.01, 0.1))
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        acknowledged = max(int(line) for line in lines if line.endswith("\n"))
        found = checkpoint.newest_sound(tmp_path)
        assert found is not None
        _, loaded, skipped = found
        assert skipped == []
        assert loaded.meta["step"] in (acknowledged, acknowledged + 1)
        assert bool((loaded.tensors["x"] == loaded.meta["step"]).all())
        start = loaded.meta["step"] + 1
