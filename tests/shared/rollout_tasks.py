"""Small tasks of the kind `rollout`, for the tests of training."""

from __future__ import annotations

import math
from typing import Any

import torch

from mlopt.core.protocols.learning import Learnable
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.local.adam import Adam
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.optimizers.starts.starts import BoxStart
from mlopt.optimizers.training.tasks.rollout import RolloutTask
from mlopt.optimizers.training.tasks.settings import HeldOut, Reference, RolloutCase
from mlopt.potentials import LennardJones, Morse

LJ7 = -16.505384


class LearnedAdam(Learnable):
    """Adam's step and the share of the mean that it keeps: a logarithm and a logit."""

    step: float = 0.003

    def start(self, seed: int = 0) -> torch.Tensor:
        return torch.tensor([math.log(self.step), 2.2], dtype=torch.float64)

    def optimizer(self, theta: torch.Tensor) -> Optimizer:
        return Adam().replace(step_size=theta[..., 0].exp(), beta1=theta[..., 1].sigmoid())

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        return {"step_size": math.exp(float(theta[0])), "beta1": float(theta[1].sigmoid())}


class Hopper(Learnable):
    """Basin hopping's temperature."""

    def start(self, seed: int = 0) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.float64)

    def optimizer(self, theta: torch.Tensor) -> Optimizer:
        return BasinHopping().replace(temperature=theta[..., 0].exp())


def member(formula: str = "Ar7", potential: Any = None, **settings: Any) -> RolloutCase:
    given = {
        "system": SystemSpec(cluster=formula),
        "potential": potential or LennardJones(),
        "reference": LJ7,
    }
    return RolloutCase(**(given | settings))


def task(**settings: Any) -> RolloutTask:
    given: dict[str, Any] = {
        "members": [member()], "learnable": LearnedAdam(), "horizon": 30, "starts": 2,
        "held_out": HeldOut(starts=4, descent=10), "reference": Reference(starts=6), "engine": "eager",
    }  # fmt: skip
    return RolloutTask(**(given | settings))


MIXED = [
    member("Ar7"),
    member("Ar5", weight=2.0),
    member("Ar7", Morse()),
    member("Ar4Kr2", LennardJones(), start=BoxStart(edge=2.5)),
]


def population(b: int = 5) -> torch.Tensor:
    return (
        LearnedAdam().start() + 0.3 * torch.randn(b, 2, generator=torch.Generator().manual_seed(1)).double()
    )
