"""The learnable `LearnedHop`: a function from theta to `LearnedHopping`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import model_validator

from mlopt.core.files.weights import save_weights
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.learning import Learnable
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers.learned.hop.network import quench_of, size_of
from mlopt.optimizers.learned.hop.optimizer import LearnedHopping


class LearnedHop(Learnable):
    """Basin hopping whose hop is learned. `LearnedHopping` explains theta.

    Training starts with basin hopping whose moves are made in given shares, and does not depend on inputs yet.
    """

    search: Annotated[LearnedHopping, FromRegistry("optimizer")] = setting(
        LearnedHopping(), "everything that is not learned: the quench, the moves, the horizon"
    )
    shares: list[float] = setting(
        [0.9, 0.02, 0.02, 0.02, 0.02, 0.001],
        "initial shares of the hops, for the displacement and each move; their sum does not matter",
        min_length=1,
    )
    widening: float = setting(
        0.0025,
        "initial widening of a quench's tolerance with height, because high minima are rejected and "
        "need not be relaxed to the end",
        gt=0,
    )

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        wanted = 1 + len(self.search.moves)
        if len(self.shares) != wanted or not all(0 < one < float("inf") for one in self.shares):
            raise ValueError(
                f"`shares` must be {wanted} positive numbers, for the displacement and {wanted - 1} moves, "
                f"got {self.shares}"
            )
        return self

    def start(self, seed: int = 0) -> torch.Tensor:
        """See `Learnable.start`."""
        if self.search.theta is not None or self.search.weights is not None:
            return self.search.parameters.clone()
        whole = sum(self.shares)
        theta = self.search.first_theta([one / whole for one in self.shares], seed)
        theta[size_of(len(self.shares)) - 1] = math.log(self.widening)
        return theta

    def optimizer(self, theta: torch.Tensor) -> Optimizer:
        """See `Learnable.optimizer`."""
        return self.search.replace(theta=theta)

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        """Return the two numbers about the quench: its tolerance, and how it widens with height."""
        factor, widening = quench_of(theta.detach()[..., : size_of(len(self.shares))])
        return {
            "quench_tolerance": self.search.quench_tolerance * float(factor),
            "quench_widening": float(widening),
        }

    def write_weights(self, theta: torch.Tensor, path: Path, training: Mapping[str, Any]) -> None:
        """Write a file for the setting `weights` of `LearnedHopping`, with its card."""
        save_weights(path, theta, "learned-hopping", self.search.settings(), training)
