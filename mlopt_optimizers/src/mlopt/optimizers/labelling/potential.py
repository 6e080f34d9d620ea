"""Labels from any potential of mlopt, those that wrap other programs included."""

from __future__ import annotations

from typing import Annotated

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.labeller import Labeller


class PotentialLabeller(Labeller):
    """Energies, forces and, for systems with a cell, stresses of a potential."""

    potential: Annotated[Potential, FromRegistry("potential")] = setting(
        ..., "potential that computes the labels"
    )

    def check(self) -> None:
        """See `Labeller.check`.

        Raises:
            InputError: a program or package that the potential needs is missing.
        """
        self.potential.present()

    def label(self, systems: Systems) -> Dataset:
        """See `Labeller.label`; a structure whose energy or force is not finite has none.

        Raises:
            InputError: the potential refuses the systems.
        """
        systems = systems.to(dtype=torch.float64)
        if not len(systems):
            return Dataset(systems)
        if not self.potential.tries:
            self.potential.check(systems)
        cells = systems.volume > 0
        with torch.no_grad():
            found = self.potential.evaluate(systems, stress=bool(cells.any()))
        energy, force = found.energy.detach().double(), found.force.detach().double()
        finite = torch.isfinite(energy) & (
            systems.segments.sum((~torch.isfinite(force).all(-1)).double()) == 0
        )
        stress = torch.full((len(systems), 3, 3), torch.nan, dtype=torch.float64, device=energy.device)
        if found.stress is not None:
            stress = torch.where((cells & finite)[:, None, None], found.stress.detach().double(), stress)
        said = f"{self.potential.giver} gives no finite energy and force"
        if int((~finite).sum()) == 1 and (why := self.potential.failure()):
            said = f"{said}: {why}"
        return Dataset(
            systems,
            torch.where(finite, energy, torch.nan),
            torch.where(systems.segments.rows_of(finite)[:, None], force, torch.nan),
            stress,
            source=tuple(self.potential.giver if one else said for one in finite.tolist()),
        )
