"""Symmetry functions of a batch of atoms: compiled with their slopes, or by torch, differentiable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlopt.core.atoms.systems import Systems
from mlopt.core.lazy import torch
from mlopt.potentials.fitted.neighbourhoods import Neighbourhoods
from mlopt.potentials.fitted.species import places


@dataclass(frozen=True, eq=False)
class SymmetryFunctions:
    """Radial and angular functions of Behler (J. Chem. Phys. 134, 074106 (2011)), of all choices of neighbours.

    species: atomic numbers, in order.
    power: exponent of the polynomial cutoff function of Amp (its gamma); 0 for the cosine.
    narrow: True if the angular functions are G4, which ask that the neighbours are near each other too; False for G5.
    radial (m, 2): eta, 1/angstrom^2, and shift, angstrom, of each G2.
    angular (m, 3): eta, 1/angstrom^2, zeta and lambda of each angular function.
    """

    species: tuple[int, ...]
    cutoff: float
    power: float
    narrow: bool
    radial: NDArray[np.float64]
    angular: NDArray[np.float64]

    @property
    def count(self) -> int:
        """Number of functions of an atom: radial ones of each species, then angular ones of each pair of species."""
        n = len(self.species)
        return n * len(self.radial) + n * (n + 1) // 2 * len(self.angular)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments of the compiled functions from ``cutoff`` to ``angular``."""
        return self.cutoff, self.power, self.narrow, len(self.species), self.radial, self.angular

    def kinds(self, systems: Systems) -> torch.Tensor:
        """Return the place of each atom's species: (n_atoms,) int64."""
        return places(self.species, systems)

    def values(self, systems: Systems) -> torch.Tensor:
        """Return the functions of each atom, (n_atoms, count), differentiable in positions and cells."""
        near = Neighbourhoods.of(systems, self.cutoff)
        like, n_atoms, n = systems.pos, len(systems.pos), len(self.species)
        kind = self.kinds(systems)[near.other]
        r = torch.linalg.vector_norm(near.vector, dim=-1)
        f = self._cut(r)
        radial, angular = (torch.as_tensor(one).to(like) for one in (self.radial, self.angular))
        bells = torch.exp(-radial[:, 0] * (r[:, None] - radial[:, 1]) ** 2) * f[:, None]
        found = like.new_zeros(n_atoms * n, len(radial)).index_add(0, near.centre * n + kind, bells)
        parts = [found.reshape(n_atoms, -1)]
        if len(angular):
            one, two = _pairs_of_pairs(near.begin)
            a, b = near.vector[one], near.vector[two]
            ra, rb, product = r[one], r[two], (a * b).sum(-1)
            square, cut = ra**2 + rb**2, f[one] * f[two]
            if self.narrow:
                apart = ((b - a) ** 2).sum(-1)
                cut = cut * self._cut(apart.clamp(min=1e-24).sqrt())
                square = square + apart
            base = 1.0 + angular[:, 2] * (product / (ra * rb))[:, None]
            # at zeta = 1 the power would have no derivative at zero
            base = torch.where(angular[:, 1] == 1.0, base, base.clamp(min=1e-30) ** angular[:, 1])
            shape = 2.0 ** (1.0 - angular[:, 1]) * base * torch.exp(-angular[:, 0] * square[:, None])
            low, high = torch.minimum(kind[one], kind[two]), torch.maximum(kind[one], kind[two])
            pair = low * n - low * (low - 1) // 2 + high - low
            n_pairs = n * (n + 1) // 2
            summed = like.new_zeros(n_atoms * n_pairs, len(angular))
            place = near.centre[one] * n_pairs + pair
            parts.append(summed.index_add(0, place, shape * cut[:, None]).reshape(n_atoms, -1))
        found = torch.cat(parts, 1)
        lost = systems.segments.rows_of(near.lost)
        return found.masked_fill(lost[:, None], torch.nan) if bool(lost.any()) else found

    def _cut(self, r: torch.Tensor) -> torch.Tensor:
        """Return the cutoff function."""
        share = r / self.cutoff
        if self.power > 0:
            inside = 1.0 + self.power * share ** (self.power + 1.0) - (self.power + 1.0) * share**self.power
        else:
            inside = 0.5 * (torch.cos(torch.pi * share) + 1.0)
        return torch.where(share < 1.0, inside, torch.zeros_like(inside))


def _pairs_of_pairs(begin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every two pairs of each centre, once: their places, from ``begin (n_atoms + 1,)``, where its pairs begin."""
    counts = begin.diff()
    behind = (
        torch.repeat_interleave(begin[1:], counts) - torch.arange(int(begin[-1]), device=begin.device) - 1
    )
    one = torch.repeat_interleave(torch.arange(int(begin[-1]), device=begin.device), behind)
    first = torch.repeat_interleave(behind.cumsum(0) - behind, behind)
    two = one + 1 + torch.arange(len(one), device=begin.device) - first
    return one, two
