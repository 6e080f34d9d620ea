"""The common base of potentials that are made of others, such as sums and committees."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import Units
from mlopt.core.landscapes.potential import Potential, Trial
from mlopt.core.lazy import torch


class CompoundPotential(Potential):
    """A potential whose energy is computed from those of other potentials, its parts.

    It knows the species that all parts know, and is differentiable if all parts are.
    """

    #: the setting that lists the parts
    listed: ClassVar[str]

    @property
    def parts(self) -> Sequence[Potential]:
        """The potentials that it combines; the first one sets the diameter of atoms."""
        found: Sequence[Potential] = getattr(self, self.listed)
        return found

    @property
    @abstractmethod
    def units(self) -> Units:  # type: ignore[override]
        """The units of the parts.

        Raises:
            InputError: they have different units.
        """

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        """True if all parts are differentiable."""
        return all(part.differentiable for part in self.parts)

    def select(self, problems: torch.Tensor) -> Self:
        """Return this potential with its parts for some systems of a batch; see `Potential.select`."""
        selected = [part.select(problems) for part in self.parts]
        same = all(new is part for new, part in zip(selected, self.parts, strict=True))
        return self if same else self.replace(**{self.listed: selected})

    def species(self) -> set[int] | None:
        """Return the atomic numbers that all parts know."""
        known = [numbers for numbers in (part.species() for part in self.parts) if numbers is not None]
        return set.intersection(*known) if known else None

    def diameter(self, z: torch.Tensor) -> torch.Tensor:
        """Return the diameter (n_atoms,) of the first part."""
        return self.parts[0].diameter(z)

    def present(self) -> None:
        """See `Potential.present`; of every part.

        Raises:
            InputError: something that a part needs is missing.
        """
        for part in self.parts:
            part.present()

    def check(self, systems: Systems) -> None:
        """Let every part check.

        Raises:
            InputError: the parts have different units, or one cannot treat the systems.
        """
        _ = self.units  # raises where they differ
        for part in self.parts:
            part.check(systems)

    def trial(self, systems: Systems) -> Trial:
        """Return the cost of all parts together, and all their warnings."""
        trials = [part.trial(systems) for part in self.parts]
        warnings = tuple(line for trial in trials for line in trial.warnings)
        return Trial(sum(trial.calls for trial in trials), warnings)

    def remarks(self) -> list[str]:
        """Return the remarks of all parts."""
        return [line for part in self.parts for line in part.remarks()]
