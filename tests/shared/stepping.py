"""Steps of an optimizer one by one, for tests that compare them with the book."""

from __future__ import annotations

from typing import Any

import torch

from mlopt.core.batch.random import problem_keys
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.protocols.optimizer import Optimizer


def steps(
    optimizer: Optimizer, landscape: Landscape, x: torch.Tensor, count: int
) -> list[tuple[torch.Tensor, Evaluation, Any]]:
    """Each point, its evaluation, and the state after the step from it."""
    state = optimizer.init(landscape, x, problem_keys(0, torch.arange(landscape.segments.n_problems)))
    seen: list[tuple[torch.Tensor, Evaluation, Any]] = []
    for _ in range(count):
        found = landscape.evaluate(x)
        new_x, state = optimizer.step(landscape, x, found, state)
        seen.append((x, found, state))
        x = new_x
    return seen
