"""A checkpoint carries on the run that it belongs to, and no other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlopt.core.runs import checkpoint
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.identity import KEY, Identity

SEARCH = """
experiment: search
system: {cluster: Ar4}
potential: lennard-jones
optimizer: {name: basin-hopping, temperature: 0.8}
starts: 2
budget: {force_calls: 60}
engine: eager
"""
OTHER = {
    "seed": ("seed=1", "(seed: 1 there, 0 here)"),
    "temperature": ("optimizer.temperature=0.5", "(optimizer.temperature: 0.5 there, 0.8 here)"),
    "potential": ("potential={name: morse, rho0: 6.0}", "potential.name: morse there, lennard-jones here"),
    "shape": ("starts=3", "(starts: 3 there, 2 here)"),
}


def replace_checkpoints(source: Path, target: Path) -> None:
    shutil.rmtree(target / "checkpoints")
    shutil.copytree(source / "checkpoints", target / "checkpoints")


@pytest.mark.parametrize("kind", OTHER)
def test_a_checkpoint_of_another_run(mlopt, here, quick, kind):
    assignment, words = OTHER[kind]
    (here / "mine.yaml").write_text(SEARCH)
    assert mlopt("run", "mine.yaml", "--out", "x", "--max-minutes", "1e-9").code == 75
    other = mlopt("run", "mine.yaml", "--out", "y", "--max-minutes", "1e-9", "-s", assignment)
    assert other.code == 75, other.err
    replace_checkpoints(here / "y", here / "x")
    before = (here / "x" / "metrics.jsonl").read_bytes()
    told = mlopt("resume", "x")
    assert told.code == 2 and "written by a run with another configuration" in told.err
    assert words in told.err and "Only a checkpoint of this run can carry it on" in told.err, told.err
    assert (here / "x" / "metrics.jsonl").read_bytes() == before


def test_every_kind_of_run(mlopt, here, plugins, quick):
    """It is the surroundings of a run that write and compare: an experiment cannot forget it."""
    (here / "mine.yaml").write_text("experiment: sines\nsteps: 6\ntrouble: signal\n")
    mlopt("run", "mine.yaml", "--out", "x")
    mlopt("run", "mine.yaml", "--out", "y", "-s", "steps=7")
    (newest,) = (here / "x" / "checkpoints").iterdir()
    assert checkpoint.load(newest).meta[KEY]["config"] == (here / "x/config.resolved.yaml").read_text()
    replace_checkpoints(here / "y", here / "x")
    assert "(steps: 7 there, 6 here)" in mlopt("resume", "x").err


def test_the_same_configuration_is_no_other(mlopt, here, plugins, quick):
    (here / "mine.yaml").write_text("experiment: sines\nsteps: 6\ntrouble: signal\n")
    mlopt("run", "mine.yaml", "--out", "x")
    mlopt("run", "mine.yaml", "--out", "y")
    replace_checkpoints(here / "y", here / "x")
    assert mlopt("resume", "x", "--threads", "1", "--checkpoint-every", "1", "--max-minutes", "9").code == 0


def test_a_checkpoint_without_identity(mlopt, here, plugins, quick):
    """As an older version wrote it: refused where the run is new, for it cannot be of this run."""
    (here / "mine.yaml").write_text("experiment: sines\nsteps: 6\ntrouble: signal\n")
    mlopt("run", "mine.yaml", "--out", "x")
    (newest,) = (here / "x" / "checkpoints").iterdir()
    kept = checkpoint.load(newest)
    del kept.meta[KEY]
    newest.write_bytes(checkpoint.dumps(kept))
    told = mlopt("resume", "x")
    assert told.code == 2 and "does not say which run it belongs to" in told.err
    newest.unlink()
    assert mlopt("resume", "x").code == 0


def test_a_long_configuration_keeps_its_digest_alone():
    long, other = (f"experiment: x\nlist: {[seed] * 40_000}\n" for seed in (1, 2))
    sealed = Identity(long).seal(Checkpoint({}, {"step": 1}))
    assert "config" not in sealed.meta[KEY]
    assert Identity(long).unseal(sealed, "c").meta == {"step": 1}
    with pytest.raises(Exception, match=r"c: written by a run with another configuration\. Only"):
        Identity(other).unseal(sealed, "c")
