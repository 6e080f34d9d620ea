"""Files of weights and of parameters that an older version wrote: they are read, and mean what they meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.driver.driver import minimize
from mlopt.core.files.weights import load_weights, read_card
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.optimizers.experiments.meta_train.experiment import MetaTrain
from mlopt.optimizers.learned.step.optimizer import Learned, LearnedFamily
from mlopt.optimizers.training.es import ESMC
from mlopt.optimizers.training.tasks.rollout import RolloutTask
from mlopt.optimizers.training.tasks.settings import RolloutCase
from mlopt.potentials import LennardJones

OLD = Path(__file__).with_name("old_weights")


def test_an_optimizer_takes_the_same_steps() -> None:
    pos = torch.tensor([[0.0, 0.0, 0.0], [1.2, 0.0, 0.0], [0.5, 1.1, 0.1]], dtype=torch.float64)
    landscape = AtomsLandscape(Systems.cluster([18] * 3).with_pos(pos), LennardJones())
    learned = Learned(weights=str(OLD / "weights.safetensors"))
    found = minimize(landscape, learned, pos, force_calls=20)
    assert float(found.energy) == pytest.approx(-1.4854814925, abs=1e-8)
    assert read_card(str(OLD / "weights.safetensors"), "learned").training["seeds"] == [0]


def test_a_training_begins_with_the_parameters() -> None:
    member = RolloutCase(system={"cluster": "Ar3"}, potential=LennardJones(), target=-3.0, reference=-3.0)
    family = LearnedFamily(species=["Ar"], hidden=4, decays=[0.9])
    task = RolloutTask(members=[member], learnable=family, horizon=5)
    training = MetaTrain(
        task=task, trainer=ESMC(population=4), epochs=1, theta=str(OLD / "theta.safetensors")
    )
    theta = training.first_theta()
    assert torch.equal(theta, load_weights(str(OLD / "weights.safetensors"), "learned"))
