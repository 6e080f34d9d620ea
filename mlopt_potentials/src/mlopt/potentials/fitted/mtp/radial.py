"""Radial functions: Chebyshev polynomials with a smooth end, each the same for all ranks of a moment.

``Q_b(r) = T_b(xi) (rc - r)^2`` with xi linear in r, -1 at the shortest distance and 1 at the cutoff, as ``RBChebyshev``
of MLIP. Below the shortest distance polynomials grow like powers. Functions that were fitted by mlopt are therefore
nearly constant below it: there r stands for ``rho(r)``, which never falls below the shortest distance by more than a
hundredth of the cutoff.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlopt.core.errors import InputError
from mlopt.core.lazy import torch

#: how far rho goes on falling below the floor, in units of the cutoff
_SOFT = 0.01


@dataclass(frozen=True, eq=False)
class RadialSet:
    """Radial functions with one cutoff: combinations of the first Chebyshev functions.

    shortest, cutoff: where xi is -1 and 1, in the length of the positions.
    coefficients: (n_species, n_species, n_functions, n_chebyshev) float64: of the function, for a centre of the first
        species and a neighbour of the second.
    floor: below it functions are nearly constant; 0 for functions of MLIP, which are polynomials everywhere.
    """

    shortest: float
    cutoff: float
    coefficients: NDArray[np.float64]
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.shortest < self.cutoff:
            raise InputError(
                f"radial functions: the shortest distance {self.shortest:g} must be below the cutoff {self.cutoff:g}"
            )

    @property
    def n_functions(self) -> int:
        """Number of functions."""
        return int(self.coefficients.shape[2])

    @property
    def n_chebyshev(self) -> int:
        """Number of Chebyshev functions of which each is made."""
        return int(self.coefficients.shape[3])

    @property
    def soft(self) -> float:
        """How far rho goes on falling below the floor."""
        return _SOFT * self.cutoff

    def values(self, r: torch.Tensor, centre: torch.Tensor, neighbour: torch.Tensor) -> torch.Tensor:
        """Return (n_pairs, n_functions), differentiable in ``r (n_pairs,)``; species (n_pairs,) int64 from 0."""
        below = (self.floor - r).clamp(min=0.0)
        rho = r + below - below * self.soft / (self.soft + below)
        raw = chebyshev(rho, self.shortest, self.cutoff, self.n_chebyshev)
        rows = torch.as_tensor(self.coefficients, dtype=r.dtype, device=r.device)[centre, neighbour]
        return (rows @ raw[..., None])[..., 0]


def chebyshev(r: torch.Tensor, shortest: float, cutoff: float, count: int) -> torch.Tensor:
    """Return ``T_b(xi) (rc - r)^2`` of each distance: (n_pairs, count), zero beyond the cutoff."""
    xi = (2.0 * r - (shortest + cutoff)) / (cutoff - shortest)
    end = (cutoff - r).clamp(min=0.0) ** 2
    found = [torch.ones_like(xi), xi]
    while len(found) < count:
        found.append(2.0 * xi * found[-1] - found[-2])
    return torch.stack(found[:count], -1) * end[..., None]


def orthonormal(
    shortest: float, cutoff: float, functions: int, species: int = 1, points: int = 400
) -> RadialSet:
    """Return functions that are orthonormal on a grid between the shortest distance and the cutoff.

    The first has degree 0, each one more. With several species there is a set for each species of the neighbour:
    function ``n * species + s`` is the n-th for neighbours of species s, and zero for others.
    """
    grid = torch.linspace(shortest, cutoff, points, dtype=torch.float64)
    raw = chebyshev(grid, shortest, cutoff, functions).numpy()
    _, upper = np.linalg.qr(raw)
    own = np.linalg.solve(upper, np.eye(functions)).T * np.sqrt(points)
    own *= np.sign(np.diag(own))[:, None]
    found = np.zeros((species, species, functions * species, functions))
    for s in range(species):
        found[:, s, s::species] = own
    return RadialSet(shortest, cutoff, found, shortest)
