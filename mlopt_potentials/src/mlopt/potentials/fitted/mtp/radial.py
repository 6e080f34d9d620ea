"""Radial functions: Chebyshev polynomials with a smooth end, each the same for all ranks of a moment.

``Q_b(r) = T_b(xi) (rc - r)^2`` with xi linear in r, -1 at the shortest distance and 1 at the cutoff, as ``RBChebyshev``
of MLIP. Below the shortest distance polynomials grow like powers. Functions that were fitted by mlopt are therefore
nearly constant below it. There ``rho(r)`` takes the place of r. It falls below the shortest distance by no more than a
hundredth of the cutoff.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlopt.core.errors import InputError
from mlopt.core.lazy import torch

#: how far rho goes on falling below the floor, in units of the cutoff
_SOFT = 0.01
#: of the grid on which functions are orthonormal
_POINTS = 400


@dataclass(frozen=True, eq=False)
class RadialSet:
    """Radial functions with one cutoff: combinations of the first Chebyshev functions.

    shortest, cutoff: where xi is -1 and 1, in the length of the positions.
    coefficients: (n_species, n_species, n_functions, n_chebyshev) float64, for a centre of the first species and a
        neighbour of the second. A tensor where gradients with respect to coefficients are wanted, else an array.
    floor: distance below which functions are nearly constant; 0 for those of MLIP, which are polynomials everywhere.
    """

    shortest: float
    cutoff: float
    coefficients: NDArray[np.float64] | torch.Tensor
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
    def array(self) -> NDArray[np.float64]:
        """The coefficients as an array, without gradients."""
        if isinstance(self.coefficients, np.ndarray):
            return self.coefficients
        return np.asarray(self.coefficients.detach().cpu().numpy())

    @property
    def soft(self) -> float:
        """The limit, in the length of the positions, of how far rho falls below the floor."""
        return _SOFT * self.cutoff

    def values(self, r: torch.Tensor, centre: torch.Tensor, neighbour: torch.Tensor) -> torch.Tensor:
        """Return (n_pairs, n_functions), differentiable in ``r (n_pairs,)``; species (n_pairs,) int64 from 0."""
        raw = self.raw(r)
        rows = torch.as_tensor(self.coefficients, dtype=r.dtype, device=r.device)[centre, neighbour]
        return (rows @ raw[..., None])[..., 0]

    def raw(self, r: torch.Tensor) -> torch.Tensor:
        """Return the Chebyshev functions that all are made of, at ``r (n_pairs,)``: (n_pairs, n_chebyshev)."""
        below = (self.floor - r).clamp(min=0.0)
        rho = r + below - below * self.soft / (self.soft + below)
        return chebyshev(rho, self.shortest, self.cutoff, self.n_chebyshev)


def chebyshev(r: torch.Tensor, shortest: float, cutoff: float, count: int) -> torch.Tensor:
    """Return ``T_b(xi) (rc - r)^2`` of each distance: (n_pairs, count), zero beyond the cutoff."""
    xi = (2.0 * r - (shortest + cutoff)) / (cutoff - shortest)
    end = (cutoff - r).clamp(min=0.0) ** 2
    found = [torch.ones_like(xi), xi]
    while len(found) < count:
        found.append(2.0 * xi * found[-1] - found[-2])
    return torch.stack(found[:count], -1) * end[..., None]


def combined(shortest: float, cutoff: float, shares: torch.Tensor) -> RadialSet:
    """Return combinations of functions that are orthonormal on a grid between the shortest distance and the cutoff.

    Function ``n * species + s`` of the set is the n-th for neighbours of species s, and zero for others.

    shares: (n_species, n_species, n_functions, n_chebyshev), weights of the orthonormal functions of degree 0, 1, ...
        The first index is the species of the centre, the second that of the neighbour. Each combination is scaled to
        the norm 1. The result is differentiable in ``shares``.
    """
    species, _, functions, degrees = shares.shape
    own = torch.from_numpy(_orthonormal(shortest, cutoff, degrees)).to(shares)
    rows = shares / torch.linalg.vector_norm(shares, dim=-1, keepdim=True) @ own
    found = rows.new_zeros(species, species, functions * species, degrees)
    for s in range(species):
        found[:, s, s::species] = rows[:, s]
    return RadialSet(shortest, cutoff, found if found.requires_grad else found.numpy(), shortest)


def plain_shares(functions: int, species: int, degrees: int | None = None) -> torch.Tensor:
    """Return the shares of `combined` by which function mu has the degree mu alone.

    degrees: length of the last dimension; None for one degree per function.

    Raises:
        InputError: fewer degrees than functions.
    """
    if degrees is not None and degrees < functions:
        raise InputError(
            f"mtp: {functions} radial functions cannot be made of {degrees} degrees; raise `chebyshev`"
        )
    return torch.eye(functions, degrees or functions, dtype=torch.float64).repeat(species, species, 1, 1)


def check_shares(shares: torch.Tensor, functions: int, species: int, degrees: int | None) -> torch.Tensor:
    """Return ``shares`` if their shape fits these numbers of functions, species and degrees (None for any).

    Raises:
        InputError: the shape does not fit.
    """
    wanted = (species, species, functions, degrees or max(shares.shape[3], functions))
    if tuple(shares.shape) != wanted:
        raise InputError(
            f"mtp: `radial` has the shape {tuple(shares.shape)}, and {species} species with {functions} radial "
            f"functions of {wanted[3]} degrees need {wanted}"
        )
    return shares


def beyond(functions: int, chebyshev: int) -> torch.Tensor:
    """Return which shares of `combined` are free to be fitted: (functions, chebyshev) bool.

    Function mu takes those of degrees beyond mu. Lower degrees would not change the span of all products. For each
    product the basis also has those in which lower radial functions take the place of higher ones.
    """
    return torch.ones(functions, chebyshev, dtype=torch.bool).triu(1)


@functools.lru_cache(maxsize=32)
def _orthonormal(shortest: float, cutoff: float, count: int) -> NDArray[np.float64]:
    """Chebyshev coefficients of orthonormal functions, one a row: (count, count)."""
    grid = torch.linspace(shortest, cutoff, _POINTS, dtype=torch.float64)
    raw = chebyshev(grid, shortest, cutoff, count).numpy()
    _, upper = np.linalg.qr(raw)
    own = np.linalg.solve(upper, np.eye(count)).T * np.sqrt(_POINTS)
    own *= np.sign(np.diag(own))[:, None]
    return np.asarray(own)
