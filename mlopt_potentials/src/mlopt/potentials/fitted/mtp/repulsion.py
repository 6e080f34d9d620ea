"""Repulsion of nuclei, which keeps atoms apart at distances that no data cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlopt.core.lazy import torch

#: e^2 / (4 pi epsilon_0), eV angstrom
_COULOMB = 14.399645
#: of the universal screening function: factors and rates
SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))


@dataclass(frozen=True)
class Repulsion:
    """The screened repulsion of Ziegler, Biersack and Littmark, up to a distance at which it has been switched off.

    ``v = w(r) e^2 Z Z' / r sum_k c_k exp(-d_k r / a)`` with ``a = 0.4685 / (Z^0.23 + Z'^0.23)`` angstrom. The factor w
    falls from 1 at ``inner`` to 0 at ``outer`` as a polynomial of degree 5, with two continuous derivatives.

    Source: Ziegler, Biersack & Littmark, The Stopping and Range of Ions in Solids, 1985. Constants are those of LAMMPS'
    ``pair_style zbl``.

    species: atomic numbers.
    """

    inner: float
    outer: float
    species: tuple[int, ...]

    def pairs(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return ``e^2 Z Z'`` and ``1 / a`` of all pairs of species, (k, k) each."""
        z = np.array(self.species, dtype=np.float64)
        power = z**0.23
        return _COULOMB * z[:, None] * z, (power[:, None] + power) / 0.46850

    def energies(self, r: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return the energy of each pair (n,), differentiable in ``r (n,)``; places of species (n,) int64."""
        charge, rate = (torch.from_numpy(one).to(r)[first, second] for one in self.pairs())
        screened = sum(c * torch.exp(-d * rate * r) for c, d in SCREENING)
        t = ((r - self.inner) / (self.outer - self.inner)).clamp(0.0, 1.0)
        switch = 1.0 - t * t * t * (10.0 + t * (6.0 * t - 15.0))
        found: torch.Tensor = charge / r * screened * switch
        return found

    def of_pairs(
        self, r: NDArray[np.float64], first: NDArray[np.int64], second: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return energy and slope of each pair (n,)."""
        charge, rate = (one[first, second] for one in self.pairs())
        screened, falling = np.zeros_like(r), np.zeros_like(r)
        for c, d in SCREENING:
            part = c * np.exp(-d * rate * r)
            screened += part
            falling += d * rate * part
        width = self.outer - self.inner
        t = np.clip((r - self.inner) / width, 0.0, 1.0)
        switch = 1.0 - t * t * t * (10.0 + t * (6.0 * t - 15.0))
        closing = -30.0 * t * t * (1.0 - t) * (1.0 - t) / width
        bare = charge / r
        return bare * screened * switch, bare * (screened * closing - (screened / r + falling) * switch)
