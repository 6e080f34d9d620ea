"""The grade by a committee: how far its members disagree about forces, relative to structures that they know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import spread
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.querying.grade import Grades

#: atoms that are evaluated at a time, over all members
_ATOMS = 8192
#: force to which disagreement is relative, together with the size of the force (eV/angstrom)
_FORCE = 1.0


@dataclass(frozen=True, eq=False)
class Disagreement:
    """The grade of structures by a committee of one potential under several parameters.

    Members disagree about the force on an atom by ``sqrt(<|F_k - <F>|^2>)``, relative to ``1 eV/angstrom + |<F>|``, as
    in DP-GEN (Zhang et al., Comput. Phys. Commun. 253, 107206 (2020)). The grade is this number divided by a unit. The
    unit is its largest value on structures that members were fitted to, but not less than ``least`` of `of`. *A grade
    of at most 1 is therefore as good as on known structures*, as with an active set. Atoms that are fixed have the
    grade 0.

    potential: the potential of one member.
    theta (k, p): the parameters of all members.
    unit: relative disagreement that has the grade 1.

    Raises:
        InputError: fewer than two members.
    """

    potential: FittablePotential
    theta: torch.Tensor
    unit: float

    def __post_init__(self) -> None:
        if self.theta.ndim != 2 or len(self.theta) < 2:
            raise InputError(
                f"disagreement: `theta` must have shape (k, p) with k of at least 2, got {tuple(self.theta.shape)}"
            )

    @classmethod
    def of(
        cls,
        potential: FittablePotential,
        theta: torch.Tensor,
        systems: Systems,
        *,
        least: float,
        among: torch.Tensor | None = None,
    ) -> Self:
        """Return the grade whose unit is the largest disagreement on ``systems``, or ``least`` where that is larger.

        among: (n_atoms,) bool, atoms that count; None for all.
        """
        found = cls(potential, theta, 1.0).relative(systems)
        if among is not None:
            found = found[among]
        known = found[torch.isfinite(found)]
        return cls(potential, theta, max(least, float(known.max()) if known.numel() else 0.0))

    def relative(self, systems: Systems) -> torch.Tensor:
        """Return the relative disagreement about the force on each atom (n_atoms,), 0 where it is fixed."""
        k, found = len(self.theta), [torch.zeros(0, dtype=torch.float64)]
        for first, stop in systems.segments.blocks(max(1, _ATOMS // k)):
            part = systems.select(torch.arange(first, stop))
            members = self.potential.with_theta(self.theta.repeat_interleave(len(part), 0))
            with torch.no_grad():
                told = members.evaluate(part.repeat(k))
            _, off = spread(told.split(k))
            size = told.force.reshape(k, -1, 3).mean(0).norm(dim=-1)
            found.append(torch.where(part.fixed, 0.0, off / (_FORCE + size)))
        return torch.cat(found)

    def grade(self, systems: Systems) -> Grades:
        """Return the grades of ``systems``: of each atom, and the largest of each system; infinite for no number."""
        row = self.relative(systems) / self.unit
        row = torch.where(torch.isfinite(row), row, torch.inf)
        return Grades(row, row.new_zeros(len(systems)).scatter_reduce(0, systems.batch, row, "amax"))
