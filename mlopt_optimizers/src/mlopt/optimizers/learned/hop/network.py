"""The network of `LearnedHopping`: a dozen tanh units that look at each atom and at the state of the search.

theta (p,) holds, one after the other:

- weights (12, 8) and biases (12,) of the units
- weights (2, 12) and biases (2,) of the outputs for an atom: its step, and its odds of going to the surface
- weights (1 + m, 12) and biases (1 + m,) of the outputs for the system: the temperature, and the odds of m moves. Their
  inputs are the means of the units over the atoms.
- two numbers about the quench
- the parameters of messages, if there are any (`MessagePart`)

Outputs are logarithms or logits, so that theta has no constraints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlopt.core.batch.segments import Segments
from mlopt.core.features.messages import MessageFeatures
from mlopt.core.lazy import torch
from mlopt.optimizers.learned.kernels.hop import ATOM_HEAD, ATOM_INPUTS, HEAD, HIDDEN, INPUTS
from mlopt.optimizers.learned.messages import drawn, features, shapes_of

#: logarithm of how much the tolerance of a quench widens with height, where training starts: hardly
_WIDENING = -6.0
#: standard deviation of the first weights
_SPREAD = 0.5


def size_of(moves: int) -> int:
    """Return the length of theta for a choice among ``moves`` moves, without messages."""
    return HEAD + (1 + moves) * (HIDDEN + 1) + 2


def first_theta(shares: Sequence[float], seed: int = 0) -> torch.Tensor:
    """Return the theta (p,) float64 where training starts. Units are random, and no output depends on them yet.

    shares: the share of the hops that each move has. Steps, temperature and tolerance are those of basin hopping.
    """
    theta = torch.zeros(size_of(len(shares)), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    theta[:ATOM_HEAD] = _SPREAD * torch.randn(ATOM_HEAD, generator=generator, dtype=torch.float64)
    theta[-2 - len(shares) : -2] = torch.tensor([math.log(one) for one in shares], dtype=torch.float64)
    theta[-1] = _WIDENING
    return theta


def quench_of(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factor on the tolerance of a quench, and how it widens with height: 0-d or (n_problems,) float64."""
    return theta[..., -2].clamp(-5.0, 7.0).exp(), theta[..., -1].clamp(-30.0, 3.0).exp()


@dataclass(frozen=True)
class Said:
    """The outputs, as logarithms and logits: step, away (n_rows,), heat (n_problems,), odds (n_problems, m)."""

    step: torch.Tensor
    away: torch.Tensor
    heat: torch.Tensor
    odds: torch.Tensor


def say(
    theta: torch.Tensor,
    atoms: torch.Tensor,
    system: torch.Tensor,
    segments: Segments,
    moves: int,
    messages: torch.Tensor | None = None,
) -> Said:
    """Return the outputs of the network of ``theta (p,)``, or ``(n_problems, p)`` with one network a problem.

    atoms (n_rows, 2): binding and distance. system (n_problems, 5): the state of the search.
    messages (n_rows, 12): input of each unit from messages.
    Sums go number by number, so that the outputs of a problem do not depend on its batch.
    """
    own = theta.ndim == 2

    def over_rows(part: torch.Tensor) -> torch.Tensor:
        return segments.rows_of(part) if own else part

    weights = theta[..., : HIDDEN * INPUTS].reshape(*theta.shape[:-1], HIDDEN, INPUTS)
    base = theta[..., HIDDEN * INPUTS : ATOM_HEAD]
    for j in range(ATOM_INPUTS, INPUTS):
        base = base + system[:, j - ATOM_INPUTS, None] * weights[..., j]
    units, product = segments.rows_of(base), atoms[:, 0] * atoms[:, 1]
    for j, one in enumerate((atoms[:, 0], atoms[:, 1], product)):
        units = units + one[:, None] * over_rows(weights[..., j])
    units = torch.tanh(units if messages is None else units + messages)
    about_atom = _head(theta[..., ATOM_HEAD:HEAD], units, 2, over_rows)
    about_system = _head(theta[..., HEAD:-2], segments.mean_rows(units), 1 + moves, lambda part: part)
    return Said(about_atom[:, 0], about_atom[:, 1], about_system[:, 0], about_system[:, 1:])


def _head(
    theta: torch.Tensor, units: torch.Tensor, outputs: int, over: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """Apply a linear layer to ``units (n, 12)``, and return (n, outputs)."""
    weights, said = theta[..., : outputs * HIDDEN], theta[..., outputs * HIDDEN :]
    weights = weights.reshape(*theta.shape[:-1], outputs, HIDDEN)
    total = over(said).expand(len(units), outputs)
    for k in range(HIDDEN):
        total = total + units[:, k, None] * over(weights[..., k])
    return total


@dataclass(frozen=True)
class MessagePart:
    """The end of theta that messages add: a layer of ``width`` features, and weights (12, width) of the units."""

    layer: MessageFeatures
    width: int

    @property
    def size(self) -> int:
        """The length of this part of theta."""
        return HIDDEN * self.width + sum(math.prod(shape) for shape in shapes_of(self.layer).values())

    def start(self, seed: int) -> torch.Tensor:
        """Return the part (size,) float64 where training starts. Units do not see messages yet."""
        shapes = enumerate(shapes_of(self.layer).values(), 1000)
        parts = [drawn(shape, seed, index).flatten() for index, shape in shapes]
        return torch.cat([torch.zeros(HIDDEN * self.width, dtype=torch.float64), *parts])

    def heard(self, theta: torch.Tensor, segments: Segments, *given: Any) -> torch.Tensor:
        """Return the input (n_rows, 12) of each unit from messages.

        theta: this part, (size,) or (n_problems, size). given: the arguments of the layer.
        """
        rows = theta.reshape(-1, theta.shape[-1])
        first, at = rows[:, : HIDDEN * self.width].reshape(-1, HIDDEN, self.width), HIDDEN * self.width
        weights = {}
        for name, shape in shapes_of(self.layer).items():
            weights[name] = rows[:, at : at + math.prod(shape)].reshape(-1, *shape)
            at += math.prod(shape)
        found = features(self.layer, weights, segments, *given)
        total = found.new_zeros(len(found), HIDDEN)
        for j in range(self.width):
            column = first[..., j]
            total = total + found[:, j, None] * (column if len(column) == 1 else segments.rows_of(column))
        return total
