"""The network of SchNet as a function of its parameters: energies of atoms from a graph of neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from mlopt.core.batch.random import problem_keys, uniform
from mlopt.core.features.base import CutoffLayer
from mlopt.core.features.graph import Graph
from mlopt.core.lazy import torch

#: neighbours that an atom has, about: sums over them are begun with weights that are smaller by its root
_NEIGHBOURS = 16.0


@dataclass(frozen=True)
class Sizes:
    """Sizes of the network: kinds of atoms, numbers in a state, filters, Gaussians, and rounds of messages."""

    species: int
    hidden: int
    filters: int
    gaussians: int
    rounds: int

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each part of theta, in order; matrices are (outputs, inputs), as in torch."""
        h, f, half = self.hidden, self.filters, max(1, self.hidden // 2)
        found: dict[str, tuple[int, ...]] = {"embedding": (self.species, h)}
        for index in range(self.rounds):
            found |= {
                f"{index}.filter0": (f, self.gaussians),
                f"{index}.filter0.bias": (f,),
                f"{index}.filter1": (f, f),
                f"{index}.filter1.bias": (f,),
                f"{index}.inner": (f, h),
                f"{index}.outer": (h, f),
                f"{index}.outer.bias": (h,),
                f"{index}.last": (h, h),
                f"{index}.last.bias": (h,),
            }
        return found | {"first": (half, h), "first.bias": (half,), "energy": (1, half), "energy.bias": (1,)}

    @cached_property
    def n_parameters(self) -> int:
        """Length of theta."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def parts(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the parts of ``theta (m, p)`` by name, each with m in front of its shape."""
        lengths = [math.prod(shape) for shape in self.shapes.values()]
        pieces = torch.split(theta, lengths, dim=1)
        return {
            name: piece.reshape(len(theta), *shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def drawn(self, seed: int) -> torch.Tensor:
        """Return (p,) parameters to begin with: uniform weights (Glorot & Bengio, AISTATS 2010), no biases."""
        key = problem_keys(seed, torch.tensor([0]))
        numbers = 2.0 * uniform(key, torch.zeros_like(key), self.n_parameters)[0] - 1.0
        found = []
        for name, part in self.parts(numbers[None]).items():
            if name == "embedding":
                size = 3.0**0.5
            elif name.endswith("bias"):
                size = 0.0
            else:
                size = (6.0 / sum(part.shape[1:])) ** 0.5
            found.append(part.flatten() * (size / _NEIGHBOURS**0.5 if name.endswith("outer") else size))
        return torch.cat(found)


@dataclass(frozen=True)
class Runs:
    """Consecutive systems under one set of parameters, and what they own.

    theta (m, p): the different sets of parameters.
    rows, edges: where the rows and the edges of each set begin, and the end; m + 1 numbers each.
    """

    theta: torch.Tensor
    rows: list[int]
    edges: list[int]

    @classmethod
    def of(cls, theta: torch.Tensor, graph: Graph) -> Runs:
        """Cut the rows and edges of ``graph`` up by ``theta``: (p,), or (k, p), each for n_systems / k systems."""
        if theta.ndim == 1:
            return cls(theta[None], [0, graph.n_rows], [0, graph.n_edges])
        n = graph.segments.n_problems
        begins = torch.ones(len(theta), dtype=torch.bool, device=theta.device)
        if not theta.requires_grad:  # else each row has a gradient of its own
            begins[1:] = (theta[1:] != theta[:-1]).any(1)
        first = begins.nonzero().flatten()
        each = n // len(theta) if len(theta) else 0
        rows = torch.cat([graph.segments.ptr[first * each], graph.segments.ptr[-1:]])
        edges = torch.searchsorted(graph.edge_index[1].contiguous(), rows)
        return cls(theta[first], rows.tolist(), edges.tolist())

    def dense(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, begins: list[int]
    ) -> torch.Tensor:
        """Return ``weight (m, o, i)`` times the columns ``x (i, n)`` of each run, plus ``bias (m, o)``: (o, n)."""
        if len(weight) == 1:
            out = weight[0] @ x
            return out if bias is None else out + bias[0][:, None]
        counts = [stop - start for start, stop in pairwise(begins)]
        if min(counts) == max(counts):
            blocks = x.reshape(len(x), len(weight), -1).transpose(0, 1)
            out = torch.bmm(weight, blocks).transpose(0, 1).flatten(1)
        else:
            pairs = zip(weight, torch.split(x, counts, dim=1), strict=True)
            out = torch.cat([matrix @ part for matrix, part in pairs], 1)
        if bias is None:
            return out
        return out + bias.T.repeat_interleave(torch.tensor(counts, device=x.device), dim=1)


class SchNetLayers(CutoffLayer):
    """Continuous-filter convolutions (Schütt et al., NeurIPS 2017; J. Chem. Phys. 148, 241722 (2018)).

    The layers are those of `torch_geometric.nn.SchNet`, with theta as an argument. Two layers make filters from
    Gaussians of the distance. A cosine cutoff multiplies the filters, so that they and their slopes vanish at the
    cutoff.
    """

    def __init__(self, sizes: Sizes, cutoff: float, species: Sequence[int]) -> None:
        """Set the sizes; the layers hold no parameters, because theta is an argument. See `CutoffLayer`."""
        super().__init__(cutoff, species)
        self.sizes = sizes

    def forward(
        self, x: torch.Tensor, graph: Graph, species: torch.Tensor, theta: torch.Tensor
    ) -> torch.Tensor:
        """Return the energy of each row: (n_rows,).

        theta: (p,), or (k, p) where n_systems is a multiple of k. Each row then serves n_systems / k systems.
        """
        sizes, runs = self.sizes, Runs.of(theta, graph)
        weights = sizes.parts(runs.theta)
        _, r, smooth = self.edges(x, graph, None)
        width = self.cutoff / (sizes.gaussians - 1)
        centres = torch.arange(sizes.gaussians, dtype=x.dtype, device=x.device) * width
        basis = torch.exp(-0.5 * ((r - centres[:, None]) / width).square())
        kinds = self.kinds(species, graph.n_rows, x.device)
        counts = torch.tensor([stop - start for start, stop in pairwise(runs.rows)], device=x.device)
        run = torch.arange(len(counts), device=x.device).repeat_interleave(counts)
        state = weights["embedding"][run, kinds].T
        for index in range(sizes.rounds):
            own = {name.removeprefix(f"{index}."): one for name, one in weights.items()}
            filters = runs.dense(basis, own["filter0"], own["filter0.bias"], runs.edges)
            filters = (
                runs.dense(_activated(filters), own["filter1"], own["filter1.bias"], runs.edges) * smooth
            )
            inner = runs.dense(state, own["inner"], None, runs.rows)
            heard = self.propagate(graph.edge_index, state=inner, filters=filters, graph=graph)
            outer = runs.dense(heard, own["outer"], own["outer.bias"], runs.rows)
            state = state + runs.dense(_activated(outer), own["last"], own["last.bias"], runs.rows)
        first = runs.dense(state, weights["first"], weights["first.bias"], runs.rows)
        energy = runs.dense(_activated(first), weights["energy"], weights["energy.bias"], runs.rows)
        return self.rows(energy, graph)[:, 0]

    def message(self, state_j: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
        """Return the message of each neighbour: (filters, n_edges)."""
        return state_j * filters


def _activated(x: torch.Tensor) -> torch.Tensor:
    """Return softplus, shifted so that 0 stays 0. Beyond torch's threshold x itself is taken, which is equal there."""
    return torch.nn.functional.softplus(x, threshold=40.0) - math.log(2.0)
