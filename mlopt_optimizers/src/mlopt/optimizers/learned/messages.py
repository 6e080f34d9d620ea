"""A layer of messages whose weights are part of theta."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlopt.core.batch.random import derive, normal
from mlopt.core.batch.segments import Segments
from mlopt.core.features.messages import MessageFeatures
from mlopt.core.lazy import torch


def layer_of(width: int, **settings: Any) -> MessageFeatures:
    """Return a layer, see `MessageFeatures`, whose own parameters are placeholders.

    It draws nothing from torch's global generator.
    """
    state = torch.random.get_rng_state()
    layer = MessageFeatures(width, **settings)
    torch.random.set_rng_state(state)
    return layer


def shapes_of(layer: MessageFeatures) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a layer's parameters by name, in the order of theta."""
    return {name: tuple(one.shape) for name, one in layer.named_parameters()}


def drawn(shape: tuple[int, ...], seed: int, index: int) -> torch.Tensor:
    """Return parameters where training starts, float64: normal after LeCun for matrices, else zero."""
    if len(shape) != 2:
        return torch.zeros(shape, dtype=torch.float64)
    key, zero = derive(seed, index)[None], torch.zeros(1, dtype=torch.int64)
    return normal(key, zero, math.prod(shape)).reshape(shape) / math.sqrt(shape[1])


def features(
    layer: MessageFeatures, weights: Mapping[str, torch.Tensor], segments: Segments, *given: Any
) -> torch.Tensor:
    """Return features (n_rows, width) of a layer with other parameters.

    weights: tensors by name, (1, ...) for all problems or (n_problems, ...) with one layer a problem.
    given: the arguments of the layer.
    """
    call = torch.func.functional_call
    if next(iter(weights.values())).shape[0] == 1:
        found: torch.Tensor = call(layer, {name: one[0] for name, one in weights.items()}, given)
        return found
    # every problem its own network: the rows of each from a pass of its own
    parts = [
        call(layer, {name: one[p] for name, one in weights.items()}, given)[segments.batch == p]
        for p in range(segments.n_problems)
    ]
    return torch.cat(parts)
