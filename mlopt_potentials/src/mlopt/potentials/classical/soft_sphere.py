"""Soft repulsive spheres, which remove overlaps from random starts."""

from __future__ import annotations

from mlopt.core.atoms.units import REDUCED
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.potentials.sums.pair import PairPotential


class SoftSphere(PairPotential):
    """Soft spheres: ``E = sum_{i<j} (epsilon / alpha) (1 - r/r0)^alpha`` where r < r0, else 0.

    The energy is finite at every distance. Two atoms at one point feel no force, because the force would have no
    direction.

    Source: A. Merchant et al., "Learn2Hop", ICML 2021, eq. 8. The paper prints "0 if d > 0.1", which would be
    discontinuous. The JAX-MD function that the paper used is zero from one diameter on, as here.
    """

    units = REDUCED

    epsilon: float = setting(1.0, "strength of the repulsion", unit="energy", gt=0)
    r0: float = setting(1.0, "diameter of a sphere, the distance at which two touch", unit="length", gt=0)
    alpha: float = setting(2.0, "exponent: 2 for a spring, 2.5 for a Hertzian contact", gt=1)

    def scales(self) -> tuple[float, float]:
        return self.epsilon, self.r0

    def reach(self) -> float | None:
        return self.r0

    def diameter(self, z: torch.Tensor) -> torch.Tensor:
        """Return the diameter r0 for every atom: (n_atoms,)."""
        return torch.full(z.shape, float(self.r0), dtype=torch.float64, device=z.device)

    def pair(
        self, r2: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``u^alpha / alpha`` and ``u^(alpha - 1) / r`` with ``u = 1 - r``, both of the shape of ``r2``."""
        tiny = torch.finfo(r2.dtype).tiny
        r = r2.clamp(min=tiny).sqrt()
        u = (1.0 - r).clamp(min=0.0)
        if self.alpha == 2.0:
            power = u
        else:  # exp and log, because the bits of a fractional `pow` depend on the place in the tensor
            power = torch.where(u > 0.0, torch.exp((self.alpha - 1.0) * u.clamp(min=tiny).log()), 0.0)
        return power * u / self.alpha, power / r
