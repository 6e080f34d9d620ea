"""The Lennard-Jones potential."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from mlopt.core.atoms.units import REDUCED
from mlopt.core.kernels.kernel import PotentialKernel
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.potentials.kernels import pair_kernel
from mlopt.potentials.kernels.lennard_jones import lennard_jones
from mlopt.potentials.sums.pair import CutPairPotential

_MINIMUM_OF_SIGMA = 2.0 ** (1.0 / 6.0)


class LennardJones(CutPairPotential):
    """Lennard-Jones: ``E = sum_{i<j} epsilon [(r0/r)^12 - 2 (r0/r)^6]``, one species.

    It equals ``4 epsilon [(sigma/r)^12 - (sigma/r)^6]`` with ``r0 = 2^(1/6) sigma``. Tables of cluster energies hold
    for either, with epsilon = 1 and no cutoff.

    Source: J. E. Lennard-Jones, Proc. Phys. Soc. 43, 461 (1931); minima: Cambridge Cluster Database.
    """

    units = REDUCED
    abbreviation = "LJ"

    epsilon: float = setting(1.0, "depth of the pair's minimum", unit="energy", gt=0)
    r0: float | None = setting(
        None, "distance of the pair's minimum; 1 if neither it nor sigma is given", gt=0
    )
    sigma: float | None = setting(None, "distance where the pair's energy is 0, in place of r0", gt=0)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.r0 is not None and self.sigma is not None:
            raise ValueError("give r0 (distance of the minimum) or sigma (r0 / 2^(1/6)), not both")
        return self

    @property
    def length(self) -> float:
        """The distance of the pair's minimum, r0, computed from sigma if that was given."""
        if self.sigma is not None:
            return _MINIMUM_OF_SIGMA * self.sigma
        return 1.0 if self.r0 is None else self.r0

    def scales(self) -> tuple[float, float]:
        return self.epsilon, self.length

    def diameter(self, z: torch.Tensor) -> torch.Tensor:
        """Return r0 for every atom: (n_atoms,)."""
        return torch.full(z.shape, float(self.length), dtype=torch.float64, device=z.device)

    def uncut(
        self, r2: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``s^2 - 2 s`` with ``s = r^-6``, and ``12 (s^2 - s) / r^2``, both of the shape of ``r2``."""
        inverse = r2.reciprocal()
        if inverse.requires_grad:
            s = inverse * inverse * inverse
            bound = s * (s - 1.0)
            return bound - s, bound * inverse * 12.0
        s = (inverse * inverse).mul_(inverse)  # the same in place, because memory access limits the speed
        bound = (s - 1.0).mul_(s)
        return bound - s, inverse.mul_(bound).mul_(12.0)

    def kernel(self, species: tuple[int, ...]) -> PotentialKernel:
        """Return this potential for the fused engine."""
        numbers = self.epsilon, self.length**2, 12.0 * self.epsilon / self.length**2
        return pair_kernel(lennard_jones, numbers, self.cutoff, self.shift, self.length)
