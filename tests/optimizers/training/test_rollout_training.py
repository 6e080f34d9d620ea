"""Training on the task `rollout`: that it pays, resumes, stops in time, and what it leaves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from rollout_tasks import MIXED, Hopper, LearnedAdam, member, task

from mlopt.core.driver.driver import minimize
from mlopt.core.errors import InputError
from mlopt.core.files.weights import read_card
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.protocols.learning import MetaState
from mlopt.core.runs.experiment import Preempted
from mlopt.core.testing.recorder import Recorder, Resumed
from mlopt.optimizers.experiments.meta_train.experiment import MetaTrain
from mlopt.optimizers.experiments.meta_train.theta import save_theta
from mlopt.optimizers.learned.step.optimizer import Learned, LearnedFamily
from mlopt.optimizers.training.es import ES, ESMC
from mlopt.optimizers.training.ga import GA
from mlopt.optimizers.training.outer_adam import OuterAdam
from mlopt.optimizers.training.pes import PES
from mlopt.optimizers.training.tasks.settings import Reference
from mlopt.potentials import LennardJones


def test_training_pays() -> None:
    """Adam's step on LJ7: what 30 steps reach from far too small a step, and from the one that ES finds."""
    one = task(starts=1)
    trainer = ES(population=32, outer=OuterAdam(step_size=0.1))
    state = MetaState(one.theta)
    for _ in range(25):
        state, _ = trainer.advance(one, state)
    fresh = torch.stack([one.theta, state.theta])
    before, after = task(starts=40).losses(fresh, 10_000).tolist()
    assert after < before - 0.15 and one.named(state.theta)["step_size"] > 0.01


@pytest.mark.parametrize("trainer", [ES(population=4), ESMC(population=4, common=True), GA(population=3),
                                     PES(population=4, segment=8, cohorts=2)],
                         ids=["es", "esmc", "ga", "pes"])  # fmt: skip
def test_training_resumed_after_each_epoch_ends_with_the_same_bits(trainer: Any, tmp_path: Any) -> None:
    from mlopt.optimizers.training import pes

    def experiment() -> MetaTrain:
        family = task(
            members=[member(reference=None), MIXED[1]], horizon=24, reference=Reference(starts=2, steps=60)
        )
        return MetaTrain(task=family, trainer=trainer, epochs=5, evaluate_every=2)

    whole = experiment().run(Recorder(tmp_path / "whole"))
    context, pieces = Recorder(tmp_path / "pieces", pauses=0), 0
    while True:
        pieces += 1
        pes._living.clear()
        try:
            found = experiment().run(context)
            break
        except Preempted:
            context = Resumed(context, pauses=0)
    assert pieces == 5
    assert torch.equal(found.theta, whole.theta) and found.history == whole.history
    assert found.summary() | {"wall_s": 0} == whole.summary() | {"wall_s": 0}
    for name in ("theta.safetensors", "history.json", "theta/epoch-000004.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes()
    assert max(len(one) for one in context.saved) < 10_000


def test_parameters_alone_can_be_read_by_anyone(tmp_path: Any) -> None:
    from safetensors import safe_open

    found = MetaTrain(task=task(), trainer=GA(population=2), epochs=1).run(Recorder(tmp_path))
    with safe_open(tmp_path / "theta.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("theta"), found.theta)
        made_by = json.loads(file.metadata()["made_by"])
    assert made_by == {"task": "RolloutTask", "trainer": "GA", "seed": 0, "epoch": 1}


def test_training_starts_from_parameters_of_another(tmp_path: Any) -> None:
    found = MetaTrain(task=task(), trainer=GA(population=2), epochs=2).run(Recorder(tmp_path))
    file = str(tmp_path / "theta.safetensors")
    again = MetaTrain(task=task(), trainer=GA(population=2), epochs=1, theta=file)
    assert torch.equal(again.first_theta(), found.theta)
    ahead = MetaTrain(
        task=task(), trainer=ES(population=2, outer=OuterAdam(step_size=1e-12)), epochs=1, theta=file
    )
    assert ahead.run().theta.tolist() == pytest.approx(found.theta.tolist(), abs=1e-10)
    with pytest.raises(
        InputError, match=r"theta.safetensors: 2 parameters, and this task has 1: it was trained with"
    ):
        MetaTrain(task=task(learnable=Hopper()), trainer=ES(), theta=file).check()
    with pytest.raises(InputError, match=r"nowhere: cannot be read \(No such file"):
        again.replace(theta="nowhere").check()
    (tmp_path / "bad").write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(InputError, match=r"bad: no file of parameters"):
        again.replace(theta=str(tmp_path / "bad")).check()
    save_theta(tmp_path / "nan", torch.tensor([0.0, math.nan]), again.made_by(1))
    with pytest.raises(InputError, match=r"nan: holds NaN or infinity"):
        again.replace(theta=str(tmp_path / "nan")).check()


def test_weights_are_written_as_their_optimizer_reads_them(tmp_path: Any) -> None:
    class Network(LearnedAdam):
        def write_weights(self, theta: torch.Tensor, path: Path, training: Mapping[str, Any]) -> None:
            path.with_suffix(".json").write_text(json.dumps([theta.tolist(), training]))

    found = MetaTrain(task=task(learnable=Network()), trainer=GA(population=2), epochs=1).run(
        Recorder(tmp_path)
    )
    theta, training = json.loads((tmp_path / "weights.json").read_text())
    assert (
        theta == found.theta.tolist() and training["horizon"] == 30 and training["results"] == found.held_out
    )
    assert training["estimator"] == {"name": "ga", "population": 2, "sigma": 0.1}


def test_a_network_is_trained_and_used(tmp_path: Any) -> None:
    """From nothing to a file of weights that the optimizer reads, and that does what was trained."""
    family = task(learnable=LearnedFamily(), horizon=20)
    found = MetaTrain(task=family, trainer=ESMC(population=4), epochs=2, evaluate_every=2).run(
        Recorder(tmp_path)
    )
    weights = str(tmp_path / "weights.safetensors")
    assert found.start.tolist() != found.theta.tolist()
    systems = family.members[0].loaded
    landscape = AtomsLandscape(systems, LennardJones())
    x = family.members[0].start.sample(systems, landscape.diameter, torch.tensor([5]))
    read = minimize(landscape, Learned(weights=weights), x, force_calls=21, engine="eager")
    kept = minimize(landscape, LearnedFamily().optimizer(found.theta), x, force_calls=21, engine="eager")
    still = minimize(landscape, LearnedFamily().optimizer(family.theta), x, force_calls=21, engine="eager")
    assert torch.equal(read.x, kept.x) and not torch.equal(still.x, kept.x)
    assert read_card(weights, "learned").training["results"] == found.held_out


def test_pieces_of_time_end_before_the_time_is_up() -> None:
    """An epoch takes longer than the limit: each piece does one, and stops with a checkpoint."""
    experiment = MetaTrain(task=task(), trainer=GA(population=2), epochs=3, max_minutes=1e-6)
    whole = experiment.replace(max_minutes=None).run()
    context, pieces = Recorder(), 0
    for _ in range(5):
        try:
            found = experiment.run(context)
            break
        except Preempted:
            pieces, context = pieces + 1, Resumed(context)
    assert pieces == 2 and torch.equal(found.theta, whole.theta)
