"""The network of an element: from symmetry functions to the energy of an atom, with its slope, for many thetas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from mlopt.core.batch.random import problem_keys, uniform
from mlopt.core.lazy import torch

#: what nodes do to their sums; the compiled functions know them by their place
ACTIVATIONS = ("tanh", "sigmoid", "softplus")


def n_parameters(layers: Sequence[int]) -> int:
    """Return the number of weights and biases of a network with ``layers`` nodes, inputs and output included."""
    return sum((inner + 1) * outer for inner, outer in _steps(layers))


def _steps(layers: Sequence[int]) -> Iterator[tuple[int, int]]:
    return pairwise(layers)


def _layers(theta: torch.Tensor, layers: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights (k, outer, inner) and biases (k, 1, outer) of each layer, from ``theta (k, p)``."""
    found, at = [], 0
    for inner, outer in _steps(layers):
        weight = theta[:, at : at + inner * outer].reshape(-1, outer, inner)
        at += inner * outer
        found.append((weight, theta[:, None, at : at + outer]))
        at += outer
    return found


def energies(
    theta: torch.Tensor, x: torch.Tensor, layers: Sequence[int], activation: str, slopes: bool = True
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return energies (k, n) and their derivatives with respect to the inputs (k, n, g), or None for these.

    theta (k, p): parameters of k networks.
    x: inputs, (n, g) or (k, n, g).

    The result is differentiable in both, any number of times.
    """
    parts, node, kept = _layers(theta, layers), x, []
    for weight, bias in parts[:-1]:
        node = _activated(node @ weight.mT + bias, activation)
        kept.append(node)
    weight, bias = parts[-1]
    energy = (node @ weight.mT + bias)[..., 0]
    if not slopes:
        return energy, None
    back = weight.expand(-1, energy.shape[-1], -1)
    for (weight, _), node in zip(reversed(parts[:-1]), reversed(kept), strict=True):
        back = (back * _steepness(node, activation)) @ weight
    return energy, back


def _activated(total: torch.Tensor, activation: str) -> torch.Tensor:
    if activation == "tanh":
        return torch.tanh(total)
    return torch.sigmoid(total) if activation == "sigmoid" else torch.nn.functional.softplus(total)


def _steepness(node: torch.Tensor, activation: str) -> torch.Tensor:
    """Derivative of the activation where it gave ``node``."""
    if activation == "tanh":
        return 1.0 - node * node
    return node * (1.0 - node) if activation == "sigmoid" else 1.0 - torch.exp(-node)


def drawn(seed: int, layers: Sequence[int], networks: int) -> torch.Tensor:
    """Return parameters (networks * p,) to begin with: uniform weights (Glorot & Bengio, AISTATS 2010), no biases."""
    found = []
    for network in range(networks):
        key = problem_keys(seed, torch.tensor([network]))
        counter = torch.zeros_like(key)
        for inner, outer in _steps(layers):
            most = (6.0 / (inner + outer)) ** 0.5
            found.append(most * (2.0 * uniform(key, counter, inner * outer)[0] - 1.0))
            found.append(torch.zeros(outer, dtype=torch.float64))
            counter = counter + inner * outer
    return torch.cat(found)
