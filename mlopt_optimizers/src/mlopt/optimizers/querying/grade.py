"""The extrapolation grade: how far a potential is from the structures that determine its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeAlias

import numpy as np

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.querying.active_set import OUTSIDE, ActiveSet, Block
from mlopt.optimizers.querying.compiled import compiled

By: TypeAlias = Literal["neighbourhoods", "configurations"]

#: atoms whose rows are computed at a time, and the bytes that these may take
_ATOMS, _BYTES = 8192, 1e9


@dataclass(frozen=True, eq=False)
class Grades:
    """Extrapolation grades, never NaN.

    A grade of at most 1 means interpolation. Infinity means that the active set does not determine the energy at all.
    The set is then empty, has too few rows so far, or has never met such a neighbourhood.

    row (n_atoms,), system (n_systems,) float64: grades of atoms and of systems. By neighbourhoods, a system has the
    largest grade of its atoms. By configurations, an atom has the grade of its system.
    """

    row: torch.Tensor
    system: torch.Tensor

    @property
    def initialised(self) -> bool:
        """True if all grades are finite."""
        return bool(torch.isfinite(self.system).all())


@dataclass(frozen=True, eq=False)
class Grader:
    """The extrapolation grade under one active set (Podryabinkin & Shapeev, Comput. Mater. Sci. 140, 171 (2017)).

    Rows are derivatives of the energy with respect to the parameters. They are those of each atom (``by``
    neighbourhoods), or those of each system, divided by its number of atoms, as in MLIP (``by`` configurations). With
    ``c = row @ inv(active rows)`` the grade is the largest ``|c|``. By this factor the determinant would grow if the
    row replaced an active one.

    nonlinear: True if rows have columns for the `nonlinear` parameters of the potential as well, such as radial
    coefficients, as MLIP does. If False, grades of a potential that is linear in theta do not depend on its fit.
    """

    potential: FittablePotential
    active_set: ActiveSet
    by: By = "neighbourhoods"
    nonlinear: bool = False

    @classmethod
    def of(
        cls,
        potential: FittablePotential,
        systems: Systems,
        by: By = "neighbourhoods",
        *,
        nonlinear: bool = False,
        tolerance: float = 1e-3,
        among: torch.Tensor | None = None,
    ) -> Self:
        """Return a grader whose active set is chosen from all rows of ``systems``, owned by their numbers.

        Rows are computed in blocks, and again in each pass over them. among: as for `blocks`.
        """
        found = cls(potential, ActiveSet.empty(0), by, nonlinear)
        if not len(systems):
            return found
        return replace(
            found, active_set=ActiveSet.of_blocks(lambda: found.blocks(systems, among), tolerance=tolerance)
        )

    def rows(self, systems: Systems) -> torch.Tensor:
        """Return the row of each atom (n_atoms, m), or of each system (n_systems, m)."""
        if self.by == "configurations" and not (self.potential.linear or self.nonlinear):
            rows = self.potential.energy_gradients(systems)
            return rows / systems.segments.counts.to(rows)[:, None]
        return self._own(self.potential.row_gradients(systems, nonlinear=self.nonlinear), systems)

    def _own(self, of_atoms: torch.Tensor, systems: Systems) -> torch.Tensor:
        """Return the rows to grade, from those of atoms."""
        if self.by == "neighbourhoods":
            return of_atoms
        parts = torch.split(of_atoms, systems.segments.counts.tolist())
        return torch.stack([part.sum(0) / max(len(part), 1) for part in parts])

    def blocks(self, systems: Systems, among: torch.Tensor | None = None) -> Iterator[Block]:
        """Yield rows of some thousand atoms at a time, with the number of the structure of each.

        among: (n_atoms,) bool, atoms whose rows are taken, by neighbourhoods; None for all.
        """
        for first, stop in self._blocks(systems):
            part = systems.select(torch.arange(first, stop))
            owners = part.batch if self.by == "neighbourhoods" else torch.arange(len(part))
            rows = self.rows(part)
            if among is not None and self.by == "neighbourhoods":
                taken = among[systems.ptr[first] : systems.ptr[stop]]
                rows, owners = rows[taken], owners[taken]
            yield rows.detach().cpu().numpy(), owners.cpu().numpy() + first

    def _blocks(self, systems: Systems) -> list[tuple[int, int]]:
        """Structures whose rows are computed together; networks have many parameters."""
        of_row = 8 * max(1, self.potential.parameters.shape[-1])
        return systems.segments.blocks(max(1, min(_ATOMS, int(_BYTES / of_row))))

    def extended(
        self, systems: Systems, first: int, tolerance: float = 1e-3, among: torch.Tensor | None = None
    ) -> tuple[Self, list[int], list[int]]:
        """Return a grader whose active set has met ``systems`` too, and which structures entered it and left it.

        Structures of ``systems`` are numbered from ``first``. among: as for `blocks`.
        """
        if not len(systems):
            return self, [], []
        rows, owners = (np.concatenate(parts) for parts in zip(*self.blocks(systems, among), strict=True))
        known = self.active_set if self.active_set.rank else ActiveSet.empty(rows.shape[1])
        found, entered, left = known.extended(rows, owners + first, tolerance=tolerance)
        return replace(self, active_set=found), entered, left

    def grade(self, systems: Systems) -> Grades:
        """Return the grades of ``systems``. Those of a system do not depend on the others of its batch."""
        if not len(systems):
            return Grades(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
        parts = [systems.select(torch.arange(first, stop)) for first, stop in self._blocks(systems)]
        found = [self._graded(self.rows(part), part) for part in parts]
        return Grades(torch.cat([one.row for one in found]), torch.cat([one.system for one in found]))

    def evaluate(self, systems: Systems, *, stress: bool = False) -> tuple[Evaluation, Grades]:
        """Return energies and forces with the grades, which then cost little more than the forces."""
        if self.nonlinear or not self.potential.linear:
            return self.potential.evaluate(systems, stress=stress), self.grade(systems)
        evaluation, rows = self.potential.evaluate_rows(systems, stress=stress)
        return evaluation, self._graded(self._own(rows, systems), systems)

    def _graded(self, rows: torch.Tensor, systems: Systems) -> Grades:
        known, matrix = self.active_set, np.ascontiguousarray(rows.detach().cpu().numpy(), dtype=np.float64)
        if not known.rank:
            known = ActiveSet.empty(matrix.shape[1])
        if matrix.shape[1] != known.rows.shape[1]:
            raise InputError(
                f"grade: the rows of the potential have {matrix.shape[1]} columns, and the active set has "
                f"{known.rows.shape[1]}; it is of another potential"
            )
        top = np.empty(len(matrix))
        surplus, own = known.surplus
        compiled()(matrix, known.columns, known.scale, known.lu, surplus, own, OUTSIDE, top)
        found = torch.from_numpy(top).to(systems.pos.device)
        if self.by == "configurations":
            return Grades(systems.segments.rows_of(found), found)
        most = found.new_zeros(len(systems)).scatter_reduce(0, systems.batch, found, "amax")
        return Grades(found, most)
