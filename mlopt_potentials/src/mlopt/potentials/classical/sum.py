"""The sum of several potentials."""

from __future__ import annotations

from typing import Annotated, ClassVar

from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import REDUCED, Units
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.potentials.compound import CompoundPotential


class SumPotential(CompoundPotential):
    """The sum of its terms: ``SumPotential(terms=[LennardJones(), Morse()])``.

    It knows the species that all its terms know, and is differentiable if all terms are. Reduced terms take the units
    of the others; give their lengths and energies in those units.
    """

    listed: ClassVar[str] = "terms"

    terms: list[Annotated[Potential, FromRegistry("potential")]] = setting(
        doc="the potentials that are added; the first one sets the diameter of atoms", min_length=1
    )

    @property
    def units(self) -> Units:  # type: ignore[override]
        """The units of the terms that have any, else reduced.

        Raises:
            InputError: the terms have different units.
        """
        named = dict.fromkeys(Units.of(term.units) for term in self.terms)
        named.pop(REDUCED, None)
        if len(named) > 1:
            told = " | ".join(str(one) for one in named)
            raise InputError(f"sum: the terms have different units ({told}); they cannot be added.")
        return next(iter(named), REDUCED)

    def energy(self, systems: Systems) -> torch.Tensor:
        """Return the sum of the energies: (n_systems,)."""
        total = self.terms[0].energy(systems)
        for term in self.terms[1:]:
            total = total + term.energy(systems)
        return total

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        """Return the sum of the terms' evaluations, field by field."""
        parts = [term.evaluate(systems, stress=stress) for term in self.terms]
        energy, force = parts[0].energy, parts[0].force
        row_energy, tensor = parts[0].row_energy, parts[0].stress
        smeared = any(part.zero_width is not None for part in parts)
        widths = [part.energy if part.zero_width is None else part.zero_width for part in parts]
        for part in parts[1:]:
            energy, force = energy + part.energy, force + part.force
            row_energy = _added(row_energy, part.row_energy)
            tensor = _added(tensor, part.stress)
        return Evaluation(energy, force, row_energy, tensor, torch.stack(widths).sum(0) if smeared else None)


def _added(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    return None if a is None or b is None else a + b
