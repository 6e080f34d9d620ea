"""A potential, an optimizer and a query strategy that mlopt finds by their entry points."""

from dataclasses import dataclass

import torch

from mlopt.core import Evaluation, Landscape, Optimizer, Potential, State, Systems, per_row, setting
from mlopt.core.query import QueryStrategy


class Buckingham(Potential):
    """exp-6 pairs in free clusters: A exp(-r / rho) - C / r^6, flattened below the barrier where exp-6 turns over."""

    a: float = setting(6000.0, "repulsion", unit="eV", gt=0)
    rho: float = setting(0.3, "range of the repulsion", unit="angstrom", gt=0)
    c: float = setting(60.0, "dispersion", unit="eV angstrom^6", ge=0)

    def energy(self, systems: Systems) -> torch.Tensor:
        """Forces and stress come from autograd."""
        energies = []
        for pos in systems.pos.split(systems.segments.counts.tolist()):
            i, j = torch.triu_indices(len(pos), len(pos), 1)
            r = (pos[i] - pos[j]).norm(dim=-1)
            energies.append((self.a * torch.exp(-r / self.rho) - self.c / (r**6 + 1.0)).sum())
        return torch.stack(energies)


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
