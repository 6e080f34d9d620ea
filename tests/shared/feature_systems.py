"""Systems, layers and graphs for the tests of features."""

from __future__ import annotations

import pytest
import torch
from ase.build import bulk

from mlopt.core import Systems
from mlopt.core.features.graph import Graph
from mlopt.core.features.messages import MessageFeatures
from mlopt.core.features.radial import RadialFeatures

F64 = torch.float64


# Features are sums of some ten terms of order one.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def clusters(*sizes: int, seed: int = 0, spread: float = 0.6) -> Systems:
    """Random free clusters of copper and gold, distances of order one; the densest pairs are close together."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    scale = torch.cat([torch.full((size, 1), spread * size ** (1 / 3), dtype=F64) for size in sizes])
    pos = torch.randn(n, 3, dtype=F64, generator=generator) * scale
    z = torch.where(torch.rand(n, generator=generator) < 0.5, 29, 79)
    return Systems(pos, z, torch.tensor([0, *sizes]).cumsum(0))


def widths(systems: Systems) -> torch.Tensor:
    return torch.where(systems.z == 29, 0.9, 1.1).to(F64)


def radial() -> RadialFeatures:
    return RadialFeatures(species=(29, 79))


def message(rounds: int = 2) -> MessageFeatures:
    torch.manual_seed(0)
    return MessageFeatures(4, hidden=6, rounds=rounds, gaussians=5, species=(29, 79)).double()


LAYERS = pytest.mark.parametrize("make", [radial, message])


def features(layer, systems: Systems, graph: Graph | None = None) -> torch.Tensor:
    graph = Graph.complete_of(systems.segments) if graph is None else graph
    return layer(systems.pos, graph, systems.z, widths(systems))


def crystals(n: int = 3) -> Systems:
    """Periodic copper in cells of several sizes, with a cluster in between."""
    atoms = [bulk("Cu", cubic=True) * (1, 1, 1 + i) for i in range(n)]
    return Systems.concatenate([Systems.from_atoms(atoms), clusters(6, spread=1.5)])
