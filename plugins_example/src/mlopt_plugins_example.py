"""A potential, an optimizer and a query strategy that mlopt finds by their entry points."""

import math
from dataclasses import dataclass

import torch

from mlopt.core import Evaluation, Landscape, Optimizer, State, Systems, per_row, setting
from mlopt.core.kernels.kernel import PotentialKernel
from mlopt.core.protocols.query import QueryStrategy
from mlopt.potentials.kernels import pair_kernel
from mlopt.potentials.sums.pair import PairPotential


def buckingham(r2: float, a: float, rho: float, c: float) -> tuple[float, float]:
    """Energy and ``-(dE/dr) / r`` of one pair, for the fused engine: compiled from this text."""
    r, u = math.sqrt(r2), 1.0 / r2
    repulsion, share = a * math.exp(-r / rho), u * u / (1.0 + u * u * u)
    return repulsion - c * u * share, repulsion / (rho * r) - 6.0 * c * share * share


class Buckingham(PairPotential):
    """exp-6 pairs in free clusters: A exp(-r / rho) - C / (r^6 + 1), flattened below the barrier of plain exp-6."""

    a: float = setting(6000.0, "repulsion", unit="eV", gt=0)
    rho: float = setting(0.3, "range of the repulsion", unit="angstrom", gt=0)
    c: float = setting(60.0, "dispersion", unit="eV angstrom^6", ge=0)

    def pair(
        self, r2: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for tensors of any shape."""
        r, u = r2.sqrt(), 1.0 / r2
        repulsion, share = self.a * torch.exp(-r / self.rho), u * u / (1.0 + u * u * u)
        return repulsion - self.c * u * share, repulsion / (self.rho * r) - 6.0 * self.c * share * share

    def kernel(self, species: tuple[int, ...]) -> PotentialKernel:
        """What the fused engine needs."""
        return pair_kernel(buckingham, (self.a, self.rho, self.c))


@dataclass(frozen=True)
class HeavyBallState(State):
    """The last displacement."""

    last: torch.Tensor = per_row()


class HeavyBall(Optimizer):
    """Gradient descent with momentum (Polyak 1964)."""

    step_size: float = setting(1e-3, "per unit of force", gt=0)
    momentum: float = setting(0.9, "share of the last displacement", ge=0, lt=1)

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> HeavyBallState:
        """At rest."""
        return HeavyBallState(torch.zeros_like(x))

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: HeavyBallState
    ) -> tuple[torch.Tensor, HeavyBallState]:
        """Along the force and the last displacement."""
        move = self.step_size * evaluation.force + self.momentum * state.last
        new = landscape.manifold.retract(x, move)
        return new, HeavyBallState(landscape.manifold.transport(x, new, move))


class Farthest(QueryStrategy):
    """Candidates whose mean distance from their centre is farthest from any that is known: a stub."""

    def score(self, candidates: Systems, known: Systems) -> torch.Tensor:
        """Distance in that one number to the nearest known configuration."""
        size, sizes = _radius(candidates), _radius(known)
        return (size[:, None] - sizes[None, :]).abs().amin(-1) if len(known) else size


def _radius(systems: Systems) -> torch.Tensor:
    away = systems.pos - systems.segments.rows_of(systems.segments.mean_rows(systems.pos))
    return systems.segments.sum(away.norm(dim=-1)) / systems.segments.counts
