"""The roughness of a potential: how well it repeats its energies, measured unless it is known to be exact."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Draws, problem_keys
from mlopt.core.kernels.kernel import NoKernelError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch

#: factor on the largest observed difference, which comes from few evaluations
_FACTOR = 10.0
#: displacement between evaluations, in diameters: single precision tells the points apart, and the curvature of an
#: energy does not show in double
_SHIFT = 1e-6


@dataclass(frozen=True)
class Roughness:
    """The scatter of one structure's energy, beyond what its force explains.

    relative: to 1 + |energy|. calls: force calls of the measurement.
    """

    relative: float = 0.0
    calls: int = 0

    @property
    def rise(self) -> float:
        """The largest rise in energy that may be noise, relative to 1 + |energy|."""
        return _FACTOR * self.relative

    def at(self, energy: float) -> float:
        """Return the scatter in units of energy."""
        return self.relative * (1.0 + abs(energy))


def is_exact(potential: Potential, systems: Systems) -> bool:
    """Return whether energies are known to repeat to rounding: a closed form in float64 on the CPU."""
    if systems.pos.device.type != "cpu" or systems.pos.dtype != torch.float64 or not potential.differentiable:
        return False
    try:
        potential.kernel(tuple(sorted(set(systems.z.tolist()))))
    except NoKernelError:
        return False
    return True


def measure(potential: Potential, systems: Systems) -> Roughness:
    """Evaluate one system, a batch of one, four times: alone, and together with slightly displaced copies.

    Repeats show the differences between calls. The displaced copies show the effect of single precision inside a
    potential.
    """
    shift = torch.where(systems.fixed[:, None], 0.0, _SHIFT * _direction(systems))
    shift = shift * potential.diameter(systems.z).to(systems.pos)[:, None]
    points = torch.cat([systems.pos, systems.pos + shift, systems.pos - shift])
    with torch.no_grad():
        alone = AtomsLandscape(systems, potential).evaluate(systems.pos).energy.tolist()[0]
        here, ahead, behind = AtomsLandscape(systems.repeat(3), potential).evaluate(points).energy.tolist()
    differences = [abs(alone - here), abs(0.5 * (ahead + behind) - here)]
    known = [one / (1.0 + abs(here)) for one in differences if math.isfinite(one)]
    return Roughness(max(known, default=0.0), 4)


def _direction(systems: Systems) -> torch.Tensor:
    """Return a fixed pseudo-random direction for every row: (n_atoms, 3), of length about 1."""
    key = problem_keys(0, torch.zeros(len(systems), dtype=torch.int64, device=systems.pos.device))
    drawn = Draws(key, torch.zeros_like(key), systems.segments).normal_rows(3)
    scaled: torch.Tensor = drawn.to(systems.pos) / 3.0**0.5
    return scaled
