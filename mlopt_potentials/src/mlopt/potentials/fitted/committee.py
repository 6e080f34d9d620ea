"""Committees: the mean of several potentials, and how far they disagree."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import Units
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation, spread
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.potentials.compound import CompoundPotential


@dataclass(frozen=True)
class Spread:
    """Standard deviations over the k members of a committee, ``sqrt(<|x_k - <x>|^2>)``.

    energy: (n_systems,). force: (n_atoms,), of the force on each atom as a vector.
    """

    energy: torch.Tensor
    force: torch.Tensor


class Committee(CompoundPotential):
    """The mean of several potentials, most often one that was fitted from several starts or to several parts of data.

    Members that differ only in their parameters are evaluated as one batch. Where members disagree, the mean cannot be
    trusted. `spread` measures the disagreement (Seung, Opper & Sompolinsky, COLT 1992, on queries by committee).
    """

    listed: ClassVar[str] = "members"

    members: list[Annotated[Potential, FromRegistry("potential")]] = setting(
        doc="the potentials; the first one sets the diameter of atoms", min_length=2
    )

    @classmethod
    def of(cls, potential: FittablePotential, theta: torch.Tensor) -> Self:
        """Make a committee of one potential under several sets of parameters, ``theta (k, p)``.

        Raises:
            InputError: fewer than two sets.
        """
        if theta.ndim != 2 or len(theta) < 2:
            raise InputError(
                f"Committee.of: `theta` must have shape (k, p) with k of at least 2, got {tuple(theta.shape)}"
            )
        return cls(members=[potential.with_theta(one) for one in theta])

    @property
    def units(self) -> Units:  # type: ignore[override]
        """The units of the members.

        Raises:
            InputError: they have different units.
        """
        found = dict.fromkeys(Units.of(member.units) for member in self.members)
        if len(found) > 1:
            told = " | ".join(str(one) for one in found)
            raise InputError(f"committee: the members have different units ({told}); they have no mean.")
        return next(iter(found))

    def energy(self, systems: Systems) -> torch.Tensor:
        """Return the mean of the energies: (n_systems,)."""
        return torch.stack([member.energy(systems) for member in self.members]).mean(0)

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        """Return the means of all that every member gives, and the spread of energies and forces."""
        return Evaluation.mean(self.each(systems, stress=stress))

    def spread(self, systems: Systems) -> Spread:
        """Return the standard deviations of energies and forces of ``systems`` over the members."""
        with torch.no_grad():
            return Spread(*spread(self.each(systems)))

    def each(self, systems: Systems, *, stress: bool = False) -> list[Evaluation]:
        """Return the evaluation of every member, in their order."""
        found: list[Evaluation | None] = [None] * len(self.members)
        for group in self._groups:
            k = len(group)
            if k == 1:
                found[group[0]] = self.members[group[0]].evaluate(systems, stress=stress)
                continue
            whole = self._together(group, len(systems)).evaluate(systems.repeat(k), stress=stress)
            for member, part in zip(group, whole.split(k), strict=True):
                found[member] = part
        return [one for one in found if one is not None]

    @functools.cached_property
    def _groups(self) -> list[list[int]]:
        """Places of the members that are one potential under several parameters."""
        alike: list[tuple[Any, list[int]]] = []
        for place, member in enumerate(self.members):
            form = None
            if isinstance(member, FittablePotential):
                bare = {"theta": None} | ({"weights": None} if "weights" in type(member).model_fields else {})
                form = member.replace(**bare)
            group = next((one for known, one in alike if form is not None and known == form), None)
            if group is None:
                alike.append((form, [place]))
            else:
                group.append(place)
        return [group for _, group in alike]

    def _together(self, group: list[int], n: int) -> FittablePotential:
        """Return the members of a group as one potential, for ``n`` systems for each member."""
        members = [one for place in group if isinstance(one := self.members[place], FittablePotential)]
        theta = [one.parameters for one in members]
        kept = self._kept.get(group[0])
        if kept is not None and kept[0] == n:
            return kept[1]
        rows = torch.cat([one if one.ndim == 2 else one.expand(n, -1) for one in theta])
        made = members[0].with_theta(rows)
        if not rows.requires_grad:
            self._kept[group[0]] = n, made
        return made

    @functools.cached_property
    def _kept(self) -> dict[int, tuple[int, FittablePotential]]:
        """What `_together` made last of each group: what follows from the settings is then worked out once."""
        return {}
