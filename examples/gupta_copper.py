"""A potential of one's own: copper in the second-moment approximation (Gupta potential), energy only.

Source: F. Cleri and V. Rosato, Phys. Rev. B 48, 22 (1993), table II.

python examples/gupta_copper.py
"""

import torch

from mlopt.core import Potential, Systems, setting
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing import check_potential
from mlopt.optimizers import BasinHopping, Budget, Search


class Gupta(Potential):
    """E = sum_i [ sum_j A exp(-p (r/r0 - 1)) - sqrt( sum_j xi^2 exp(-2 q (r/r0 - 1)) ) ], free clusters."""

    a: float = setting(0.0855, "repulsion", unit="eV", gt=0)
    xi: float = setting(1.224, "hopping integral", unit="eV", gt=0)
    p: float = setting(10.96, "decay of the repulsion", gt=0)
    q: float = setting(2.278, "decay of the hopping", gt=0)
    r0: float = setting(2.556, "nearest neighbours in the crystal", unit="angstrom", gt=0)

    def energy(self, systems: Systems) -> torch.Tensor:
        """Forces come from autograd."""
        return torch.stack([self._one(pos) for pos in systems.pos.split(systems.segments.counts.tolist())])

    def _one(self, pos: torch.Tensor) -> torch.Tensor:
        if len(pos) < 2:
            return pos.sum() * 0.0
        own = torch.eye(len(pos), dtype=torch.bool)
        square = ((pos[:, None] - pos[None, :]) ** 2).sum(-1)
        beyond = square.masked_fill(own, self.r0**2).sqrt() / self.r0 - 1.0  # the diagonal is masked below
        repulsion = (self.a * torch.exp(-self.p * beyond)).masked_fill(own, 0.0).sum(-1)
        density = (self.xi**2 * torch.exp(-2.0 * self.q * beyond)).masked_fill(own, 0.0).sum(-1)
        return (repulsion - density.sqrt()).sum()

    def diameter(self, z: torch.Tensor) -> torch.Tensor:
        """Starts and moves are scaled by it."""
        return torch.full(z.shape, self.r0, dtype=torch.float64, device=z.device)


torch.manual_seed(0)
grid = 2.4 * torch.cartesian_prod(*[torch.arange(3.0, dtype=torch.float64)] * 3)
sizes = [2, 13, 7]
pos = torch.cat([grid[:n] + 0.2 * torch.rand(n, 3, dtype=torch.float64) for n in sizes])
check_potential(Gupta(), Systems(pos, torch.full((22,), 29), torch.tensor([0, *sizes]).cumsum(0)))
print("the contract holds")

found = Search(
    system=SystemSpec(cluster="Cu13"),
    potential=Gupta(),
    optimizer=BasinHopping(temperature=0.2),
    starts=4,
    budget=Budget(force_calls=300),
).run()
print(f"{found.best.energy:.4f} eV, {found.best.point_group.symbol}")
