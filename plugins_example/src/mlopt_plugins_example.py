"""A potential, one that is fitted, an optimizer, a query strategy and a labeller, found by their entry points."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch

from mlopt.core import (
    Dataset,
    Evaluation,
    FromRegistry,
    InputError,
    Landscape,
    Optimizer,
    Potential,
    State,
    Systems,
    per_row,
    setting,
)
from mlopt.core.kernels import PotentialKernel
from mlopt.core.protocols import Design, FittablePotential, Labeller, QueryStrategy, Selection
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


class GaussianPairs(FittablePotential):
    """A sum of Gaussians of the distance of each pair, in free clusters; their heights are fitted."""

    centres: tuple[float, ...] = setting((2.0, 2.5, 3.0, 3.5, 4.0), "of the Gaussians", unit="angstrom")
    width: float = setting(0.6, "of each", unit="angstrom", gt=0)

    @property
    def parameters(self) -> torch.Tensor:
        """The heights, eV: zero until they are fitted."""
        return torch.zeros(len(self.centres), dtype=torch.float64) if self.theta is None else self.theta

    def check(self, systems: Systems) -> None:
        """Refuse periodic systems."""
        super().check(systems)
        if systems.periodic:
            raise InputError("GaussianPairs takes free clusters only; set pbc to false")

    def _rows(self, systems: Systems) -> torch.Tensor:
        """What the heights are multiplied with: (n_systems, p)."""
        rows = []
        for start, stop in zip(systems.ptr[:-1].tolist(), systems.ptr[1:].tolist(), strict=True):
            i, j = torch.triu_indices(stop - start, stop - start, 1, device=systems.pos.device)
            r = (systems.pos[start + i] - systems.pos[start + j]).norm(dim=-1)
            away = (r[:, None] - r.new_tensor(self.centres)) / self.width
            rows.append(torch.exp(-away * away).sum(0))
        return torch.stack(rows) if rows else systems.pos.new_zeros(0, len(self.centres))

    def energy(self, systems: Systems) -> torch.Tensor:
        """(n_systems,) eV; mlopt differentiates it with respect to positions and heights."""
        return (self._rows(systems) * self.parameters.to(systems.pos)).sum(-1)

    def design(
        self, systems: Systems, *, force: bool = True, stress: bool = False, row_energy: bool = False
    ) -> Design:
        """The rows, and where forces are asked for minus their gradients."""
        with torch.enable_grad():
            pos = systems.pos.detach().requires_grad_(force)
            rows = self._rows(systems.with_pos(pos))
            columns = (
                [-torch.autograd.grad(one.sum(), pos, retain_graph=True)[0] for one in rows.T]
                if force
                else []
            )
        return Design(rows.detach(), torch.stack(columns, -1) if force else None)


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
    """Candidates whose mean distance from their centre is farthest from any that is known or chosen already."""

    def select(
        self,
        candidates: Systems,
        known: Dataset,
        fitted: Potential | None,
        count: int,
        key: torch.Tensor,
    ) -> Selection:
        """One by one, each the farthest in that one number from all before."""
        size = _radius(candidates)
        near = size.clone()
        if len(known):
            near = (size[:, None] - _radius(known.systems)[None, :]).abs().amin(-1)
        scores, chosen = near.clone(), []
        for _ in range(min(count, len(candidates))):
            chosen.append(int(near.argmax()))
            near = torch.minimum(near, (size - size[chosen[-1]]).abs())
            near[chosen] = -1.0
        return Selection(torch.tensor(chosen, dtype=torch.int64), scores, "farthest in their mean radius")


class Diluted(Labeller):
    """Labels of a potential, but only of structures that are not crowded: an expensive program may fail there, too."""

    potential: Annotated[Potential, FromRegistry("potential")] = setting(..., "what computes the labels")
    least: float = setting(0.7, "shortest distance between two atoms that it still converges at", gt=0)

    def label(self, systems: Systems) -> Dataset:
        """Energies and forces, NaN where two atoms are too near."""
        if not len(systems):
            return Dataset(systems)
        found = self.potential.evaluate(systems)
        near = [torch.pdist(one.pos).min() < self.least if len(one.pos) > 1 else False for one in systems]
        fails = torch.tensor([bool(one) for one in near], device=systems.pos.device)
        return Dataset(
            systems,
            torch.where(fails, torch.nan, found.energy),
            torch.where(systems.segments.rows_of(fails)[:, None], torch.nan, found.force),
            source=tuple("two atoms are too near" if one else "" for one in fails.tolist()),
        )


def _radius(systems: Systems) -> torch.Tensor:
    away = systems.pos - systems.segments.rows_of(systems.segments.mean_rows(systems.pos))
    return systems.segments.sum(away.norm(dim=-1)) / systems.segments.counts
