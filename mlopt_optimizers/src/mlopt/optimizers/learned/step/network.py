"""The network of a learned optimizer, and the place of each of its numbers in theta."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mlopt.core.batch.random import derive, normal
from mlopt.core.batch.segments import Segments
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.optimizers.learned.messages import drawn, shapes_of
from mlopt.optimizers.learned.step.inputs import Group, Inputs

#: Learn2Hop, appendix D.3; theta holds alpha over this, so that noise on theta is small against it
ALPHA, BETA, GAMMA = 0.1, 1.0, -3.0


@dataclass(frozen=True)
class Parts:
    """The parts of theta, each a tensor (b, ...), where b is 1 or n_problems.

    first (b, inputs, h), first_bias (b, 1, h): the first hidden layer.
    second (b, h, h), second_bias (b, 1, h): the second hidden layer.
    last (b, h, outputs), last_bias (b, 1, outputs): the output layer.
    alpha, beta, gamma (b, 1, 1): the constants of the step, see `gated`.
    messages: parameters of the layer of messages, by name.
    """

    first: torch.Tensor
    first_bias: torch.Tensor
    second: torch.Tensor
    second_bias: torch.Tensor
    last: torch.Tensor
    last_bias: torch.Tensor
    alpha: torch.Tensor
    beta: torch.Tensor
    gamma: torch.Tensor
    messages: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Architecture:
    """The sizes of a network, and so of all parts of theta, in order.

    inputs, hidden, outputs: numbers of inputs, of units in each hidden layer, and of outputs.
    messages: shapes of the parameters of messages, by name.
    """

    inputs: int
    hidden: int
    outputs: int
    messages: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, settings: Inputs, inputs: int | None = None, outputs: int = 2) -> Architecture:
        """Return the architecture for these settings. inputs: their number, if it is not that of `Inputs.groups`."""
        shapes: dict[str, tuple[int, ...]] = {}
        if settings.messages:
            shapes = shapes_of(settings.message_layer(torch.zeros(())))
        return cls(settings.width if inputs is None else inputs, settings.hidden, outputs, shapes)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all parts, in the order of theta."""
        d, h, o = self.inputs, self.hidden, self.outputs
        return {
            "first": (d, h),
            "first_bias": (1, h),
            "second": (h, h),
            "second_bias": (1, h),
            "last": (h, o),
            "last_bias": (1, o),
            "alpha": (1, 1),
            "beta": (1, 1),
            "gamma": (1, 1),
            **{f"messages.{name}": shape for name, shape in self.messages.items()},
        }

    @property
    def size(self) -> int:
        """The length of theta."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def start(self, seed: int) -> torch.Tensor:
        """Return the theta (p,) float64 where training starts. The last layer is zero, so that nothing moves.

        The other weights are normal after LeCun (Learn2Hop, appendix D.3). Parameters of messages are drawn alike.
        """
        parts = []
        for index, (name, shape) in enumerate(self.shapes.items()):
            part = torch.zeros(shape, dtype=torch.float64)
            if name in ("first", "second"):
                key, zero = derive(seed, index)[None], torch.zeros(1, dtype=torch.int64)
                part = normal(key, zero, part.numel()).reshape(shape) / math.sqrt(shape[0])
            elif name.startswith("messages."):
                part = drawn(shape, seed, index)
            elif name in _OUTPUT:
                part = part + _OUTPUT[name]
            parts.append(part.flatten())
        return torch.cat(parts)

    def split(self, theta: torch.Tensor, like: torch.Tensor) -> Parts:
        """Return the parts of ``theta``, (p,) or (n_problems, p), with the dtype and device of ``like``."""
        rows = theta.to(like).reshape(-1, theta.shape[-1])
        parts: dict[str, Any] = {}
        at = 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            parts[name] = rows[:, at : at + size].reshape(-1, *shape)
            at += size
        messages = {name: parts.pop(f"messages.{name}") for name in self.messages}
        parts["alpha"] = parts["alpha"] * ALPHA
        return Parts(**parts, messages=messages)

    def check(self, theta: Any, what: str, n_problems: int | None = None) -> None:
        """Refuse a theta that does not fit. what: its name in messages.

        Raises:
            InputError: its length is not `size`, its rows are not one a problem, or it holds NaN or infinity.
        """
        if not isinstance(theta, torch.Tensor) or theta.ndim not in (1, 2):
            raise InputError(f"{what}: theta must be a tensor (p,) or (n_problems, p), got {theta!r:.80}")
        if theta.shape[-1] != self.size:
            raise InputError(
                f"{what}: theta has {theta.shape[-1]} numbers, but a network of {self.inputs} inputs, {self.hidden} "
                f"hidden units and {self.outputs} outputs has {self.size}; was it trained with other features?"
            )
        if theta.ndim == 2 and n_problems is not None and len(theta) != n_problems:
            raise InputError(
                f"{what}: theta has {len(theta)} rows for {n_problems} problems; one each, or (p,)"
            )
        bad = (~torch.isfinite(theta)).nonzero()
        if len(bad):
            raise InputError(
                f"{what}: theta is not finite at {tuple(bad[0].tolist())} (and {len(bad) - 1} other places); the "
                f"training has failed"
            )


_OUTPUT = {"alpha": 1.0, "beta": BETA, "gamma": GAMMA}


def activated(value: torch.Tensor, activation: str) -> torch.Tensor:
    """Apply the activation of a hidden layer."""
    return torch.tanh(value) if activation == "tanh" else torch.relu(value)


def rest(parts: Parts, first: torch.Tensor, activation: str) -> torch.Tensor:
    """Return outputs (b, m, outputs) from the first hidden layer (b, m, h) before its activation."""
    b = len(first)
    hidden = activated(first, activation)
    hidden = torch.bmm(hidden, repeated(parts.second, b)) + parts.second_bias
    hidden = activated(hidden, activation)
    return torch.bmm(hidden, repeated(parts.last, b)) + parts.last_bias


def gated(parts: Parts, outputs: torch.Tensor) -> torch.Tensor:
    """Return the step alpha d sigmoid(beta m + gamma), Learn2Hop eq. 2, (b, m, k).

    outputs: (b, m, k + 1), k values of d, and m.
    """
    gate = torch.sigmoid(parts.beta * outputs[..., -1:] + parts.gamma)
    return parts.alpha * outputs[..., :-1] * gate


def by_component(
    settings: Inputs,
    parts: Parts,
    groups: list[Group],
    columns: list[torch.Tensor],
    segments: Segments,
    like: torch.Tensor,
) -> torch.Tensor:
    """Return the moves (n_rows, d), as ``like``, of a network that sees one component at a time.

    groups, columns: the present groups, and their inputs from `Inputs.inputs`. Inputs that components share are
    multiplied once.
    """
    take, at = dict[str, slice](), 0
    for group in settings.groups:
        take[group.name] = slice(at, at + group.width)
        at += group.width
    found = {level: _level(level, parts, take, groups, columns) for level in ("component", "row", "problem")}
    d, moved = like.shape[1], torch.zeros_like(like)
    for size, problems, rows in buckets(segments):
        b, mine = len(problems), own(parts, problems)
        part = mine.first_bias
        for level, (inputs, matrix) in found.items():
            if not inputs.shape[-1]:
                continue
            index, shape = (problems, (b, 1, -1)) if level == "problem" else (rows, (b, size, -1))
            if level == "component":
                shape = (b, size * d, -1)
            given = inputs[index].reshape(*shape[:2], inputs.shape[-1])
            own_matrix = matrix if len(matrix) == 1 else matrix[problems]
            made = torch.bmm(given, repeated(own_matrix, b))
            if level == "row":
                made = made[:, :, None].expand(b, size, d, -1).reshape(b, size * d, -1)
            part = part + made
        part = part.expand(b, size * d, -1)
        moved = moved.index_copy(
            0, rows, gated(mine, rest(mine, part, settings.activation)).reshape(b * size, d)
        )
    return moved


def _level(
    level: str,
    parts: Parts,
    take: dict[str, slice],
    groups: list[Group],
    columns: list[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs of one level side by side, and their part of the first layer (b, w, h)."""
    chosen = [(g, c) for g, c in zip(groups, columns, strict=True) if g.level == level]
    if not chosen:
        return columns[0].new_zeros(0), parts.first[:, :0]
    inputs = torch.cat([column for _, column in chosen], -1)
    return inputs, torch.cat([parts.first[:, take[group.name]] for group, _ in chosen], 1)


def buckets(segments: Segments) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
    """Return problems by their size, without empty ones: size, problems (b,), rows (b * size,)."""
    return [one for one in segments.buckets if one[0]]


def own(parts: Parts, problems: torch.Tensor) -> Parts:
    """Return the parts of some problems (b,)."""
    if len(parts.first) == 1:
        return parts
    return Parts(
        **{name: one[problems] for name, one in vars(parts).items() if name != "messages"},
        messages={},
    )


def repeated(matrix: torch.Tensor, b: int) -> torch.Tensor:
    """Return ``matrix``, (1, ...) or (b, ...), as (b, ...): repeated if problems have none of their own."""
    return matrix.expand(b, -1, -1)
