"""The Morse potential."""

from __future__ import annotations

from mlopt.core.atoms.units import REDUCED
from mlopt.core.kernels.kernel import PotentialKernel
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.potentials.kernels import pair_kernel
from mlopt.potentials.kernels.morse import morse
from mlopt.potentials.sums.pair import CutPairPotential


class Morse(CutPairPotential):
    """Morse: ``E = sum_{i<j} epsilon u (u - 2)`` with ``u = exp(rho0 (1 - r/r0))``, one species.

    A larger rho0 means a shorter range. The usual values are 3, 6, 10 and 14, and 6 is close to Lennard-Jones.

    Source: P. M. Morse, Phys. Rev. 34, 57 (1929); J. P. K. Doye & D. J. Wales, J. Chem. Soc. Faraday Trans. 93, 4233
    (1997), eq. 1.
    """

    units = REDUCED
    abbreviation = "M"

    epsilon: float = setting(1.0, "depth of the pair's minimum", unit="energy", gt=0)
    rho0: float = setting(6.0, "steepness: decay of the energy with distance, in units of 1/r0", gt=0)
    r0: float = setting(1.0, "distance of the pair's minimum", unit="length", gt=0)

    def scales(self) -> tuple[float, float]:
        return self.epsilon, self.r0

    def diameter(self, z: torch.Tensor) -> torch.Tensor:
        """Return r0 for every atom: (n_atoms,)."""
        return torch.full(z.shape, float(self.r0), dtype=torch.float64, device=z.device)

    def uncut(
        self, r2: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``u (u - 2)``, and ``2 rho0 u (u - 1) / r``, both of the shape of ``r2``."""
        r = r2.sqrt()
        u = torch.exp(self.rho0 * (1.0 - r))
        pull = u * (u - 1.0)
        return pull - u, (2.0 * self.rho0) * pull / r

    def kernel(self, species: tuple[int, ...]) -> PotentialKernel:
        """Return this potential for the fused engine."""
        numbers = self.epsilon, self.rho0, self.r0
        return pair_kernel(morse, numbers, self.cutoff, self.shift, self.r0)
