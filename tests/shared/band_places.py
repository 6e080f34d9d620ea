"""Landscapes with ends of paths, and bands between them, for the tests of bands."""

from __future__ import annotations

from typing import Any

import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape, Landscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.initial import geodesic, perturb
from mlopt.optimizers.bands.springs import EnergyWeightedSpring
from mlopt.optimizers.bands.tangents import (
    CentralTangent,
    SigmoidTangent,
)
from mlopt.potentials.classical.lennard_jones import LennardJones
from mlopt.potentials.models.formulas import muller_brown

IMAGES = [3, 6, 4]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def spin_energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
    """Open chains with exchange, an easy axis x and a hard axis z."""
    total = segments.sum(2.0 * x[:, 2] ** 2 - x[:, 0] ** 2)
    for size, problems, rows in segments.buckets:
        chain = x[rows].reshape(-1, size, 3)
        pairs = (chain[:, 1:] * chain[:, :-1]).reshape(len(problems), -1).contiguous()
        total = total.index_add(0, problems, -0.5 * pairs.sum(-1))
    return total


def spins() -> tuple[Landscape, torch.Tensor, torch.Tensor]:
    segments = Segments(torch.tensor([0, 1, 5, 7]))
    ends = unit(normal(7, 3)), unit(normal(7, 3, seed=1))
    return FunctionLandscape(spin_energy, segments, UnitSphere()), *ends


def clusters() -> tuple[Landscape, torch.Tensor, torch.Tensor]:
    sizes = [4, 7, 5]
    systems = Systems.concatenate([Systems.cluster([18] * size) for size in sizes])
    index = torch.arange(16)
    grid = torch.stack([index % 3, index // 3 % 3, index // 9], -1).to(torch.float64)
    start = 1.1 * grid + 0.05 * normal(16, 3)
    return AtomsLandscape(systems, LennardJones()), start, start + 0.2 * normal(16, 3, seed=1)


def surface() -> tuple[Landscape, torch.Tensor, torch.Tensor]:
    ends = [[-0.558, 1.442], [-0.05, 0.467], [0.623, 0.028], [-0.05, 0.467]]
    points = torch.tensor(ends, dtype=torch.float64)
    return FunctionLandscape(muller_brown, Segments.uniform(3, 1)), points[:3], points[1:]


PLACES = {"spins": spins, "clusters": clusters, "surface": surface}


SETTINGS: dict[str, dict[str, Any]] = {
    "improved": {},
    "sigmoid": {"tangent": SigmoidTangent(beta=0.7)},
    "central": {"tangent": CentralTangent(), "spring": None},
    "climbing": {"climb": 2, "spring": EnergyWeightedSpring(k_low=0.5, k_high=2.0)},
    "double": {"nudge": "double"},
    "switched": {"nudge": "switched", "climb": 1},
}


def made(place: str, **settings: Any) -> tuple[Band, torch.Tensor]:
    """A band of unlike bands, and a crooked path."""
    landscape, start, end = PLACES[place]()
    band = Band(landscape, start, end, IMAGES, **settings)
    return band, perturb(band, geodesic(band), problem_keys(0, torch.arange(3)), 0.08)
