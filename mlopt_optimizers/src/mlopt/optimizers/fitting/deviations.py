"""Standard deviations of energies under the coefficients of a fit, which tell interpolation from extrapolation."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.fitting.least_squares import atom_bytes

#: a structure lies outside of what was fitted to if its deviation is this many times the largest of these; of a test
#: set that is drawn like the training set, some structures are always a little beyond the largest
OUTSIDE = 2.0


@dataclass(frozen=True)
class Deviations:
    """Standard deviations of predicted energies, of the structures that were fitted to and of others.

    They say how well the data determine an energy if the form of the potential is right. True errors are larger, but
    deviations serve to compare structures.

    train, test: (n,) eV an atom, from the posterior of the coefficients; see `energy_deviation`.
    """

    train: torch.Tensor
    test: torch.Tensor

    @property
    def largest(self) -> float:
        """The largest deviation of a structure that was fitted to, eV an atom."""
        return float(self.train.max()) if len(self.train) else 0.0

    def relative(self, deviation: torch.Tensor) -> torch.Tensor:
        """Return ``deviation`` (n,) in units of `largest`; 0 where that is 0."""
        return deviation / self.largest if self.largest > 0 else torch.zeros_like(deviation)

    @property
    def outside(self) -> torch.Tensor:
        """The structures of ``test`` that are extrapolated to, above twice the largest deviation: (n,) bool."""
        return self.relative(self.test) > OUTSIDE

    def doubts(self, test: Dataset) -> list[str]:
        """Return a sentence on the number of test structures that are extrapolated to; nothing where there is none."""
        outside = int(self.outside.sum())
        if not outside:
            return []
        relative = self.relative(self.test)
        place = int(relative.argmax())
        return [
            f"{outside} of {len(self.test)} structures to test on lie outside of what was fitted to: the deviation of "
            f"their energies is more than twice the largest of the structures to fit to, and "
            f"{float(relative[place]):.3g} times for {test.source[place] or f'structure {place}'}. Their errors are "
            f"those of extrapolation"
        ]


def energy_deviation(
    potential: FittablePotential, data: Dataset, root: torch.Tensor, memory: float = 1.0
) -> torch.Tensor:
    """Return the standard deviation of the energy of each structure, eV an atom: (n,).

    The deviation follows from the covariance ``root @ root.T`` of the coefficients, see `covariance_root`. It does not
    include the noise of labels.

    memory: GB that a block of rows may take.
    """
    most = max(1, int(memory * 1e9 / atom_bytes(len(root))))
    found = [torch.zeros(0, dtype=torch.float64)]
    for first, stop in data.systems.segments.blocks(most):
        design = potential.design(data.systems.select(list(range(first, stop))), force=False)
        assert design is not None  # the potential is linear: its coefficients have a covariance
        found.append((design.energy @ root).norm(dim=1))
    return torch.cat(found) / data.systems.segments.counts.clamp(min=1)
