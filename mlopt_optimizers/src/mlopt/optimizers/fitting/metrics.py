"""Errors of a potential on labelled energies, forces and stresses, by set and group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch

#: eV/angstrom^3 in GPa
GPA = 160.21766208
#: atoms that are evaluated at a time
_ATOMS = 20_000


@dataclass(frozen=True)
class Errors:
    """Predictions beside labels. Errors are predicted minus labelled, and NaN where there is no label.

    data: the labels.
    energy (n,): errors of energies, eV an atom.
    force (n_atoms, 3): errors of forces, eV/angstrom.
    stress (n, 3, 3): errors of stresses, GPa.
    predicted: the predictions of the potential.
    """

    data: Dataset
    energy: torch.Tensor
    force: torch.Tensor
    stress: torch.Tensor
    predicted: Evaluation

    @classmethod
    def of(cls, potential: Potential, data: Dataset) -> Errors:
        """Evaluate ``potential`` on all structures, in parts, so that memory is bounded."""
        with_stress = bool(data.with_stress.any())
        with torch.no_grad():
            parts = [
                potential.evaluate(data.systems.select(list(range(first, stop))), stress=with_stress)
                for first, stop in data.systems.segments.blocks(_ATOMS)
            ]
        energy = torch.cat([one.energy for one in parts])
        force = torch.cat([one.force for one in parts])
        stress = torch.cat([one.stress for one in parts if one.stress is not None]) if with_stress else None
        predicted = Evaluation(energy, force, stress=stress)
        atoms_of = data.systems.segments.counts.to(torch.float64)
        off = data.stress * torch.nan if stress is None else GPA * (stress - data.stress)
        return cls(data, (energy - data.energy) / atoms_of, force - data.force, off, predicted)

    def select(self, structures: torch.Tensor) -> Errors:
        """Return the errors of some structures (int64 indices)."""
        _, rows = self.data.systems.segments.select(structures)
        return Errors(
            self.data.select(structures),
            self.energy[structures],
            self.force[rows],
            self.stress[structures],
            self.predicted.select(structures, rows),
        )

    def row(self, name: str) -> dict[str, Any]:
        """Return one row of a table: mean absolute, root mean square and largest errors, None where no label is.

        Energies in eV an atom, components of forces in eV/angstrom, components of stresses in GPa. ``energy_error``,
        ``force_error`` and ``stress_error`` are standard errors of the mean absolute errors, over structures.
        ``force_vector_max`` is the largest length of a force's error.
        """
        energy, force, stress = (_known(one) for one in (self.energy, self.force, self.stress))
        vectors = self.force[torch.isfinite(self.force).all(-1)].norm(dim=-1)
        return {
            "set": name,
            "structures": len(self.data),
            "energy_mae": _mean(energy.abs()),
            "energy_error": _error(self.energy[:, None]),
            "energy_rmse": _root(energy),
            "energy_max": _most(energy),
            "force_mae": _mean(force.abs()),
            "force_error": _error(self._of_structures(self.force)),
            "force_rmse": _root(force),
            "force_max": _most(force),
            "force_vector_max": _most(vectors),
            "stress_mae": _mean(stress.abs()),
            "stress_error": _error(self.stress.flatten(1)),
            "stress_rmse": _root(stress),
            "stress_max": _most(stress),
        }

    def _of_structures(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean absolute value of each structure's known rows, (n, 1)."""
        each = values.abs().mean(-1, keepdim=True)
        known = torch.isfinite(each)
        sums = self.data.systems.segments.sum(torch.where(known, each, 0.0))
        return (sums / self.data.systems.segments.sum(known.to(each.dtype)))[:, None]

    def groups(self) -> list[tuple[str, Errors]]:
        """Return the errors of each group of structures, where there are several."""
        names = sorted(set(self.data.group))
        if len(names) < 2:
            return []
        found = []
        for name in names:
            places = [index for index, one in enumerate(self.data.group) if one == name]
            found.append((name or "without a group", self.select(torch.tensor(places))))
        return found

    def elements(self) -> list[tuple[str, Errors]]:
        """Return the errors of forces on the atoms of each element, where there are several elements.

        Each covers the structures that have the element. Energies and stresses belong to no element, and are NaN.
        """
        systems = self.data.systems
        numbers = sorted(set(systems.z.tolist()))
        if len(numbers) < 2:
            return []
        found = []
        for z in numbers:
            own = systems.z == z
            there = torch.nonzero(systems.segments.sum(own.double()[:, None])).flatten()
            hidden = replace(
                self,
                energy=self.energy * torch.nan,
                force=torch.where(own[:, None], self.force, torch.nan),
                stress=self.stress * torch.nan,
            )
            found.append((SYMBOLS[z], hidden.select(there)))
        return found

    def worst(self, count: int) -> list[int]:
        """Return the structures with the largest errors, the worst first.

        The error is that of a force, or of the energy where no force is known.
        """
        n = len(self.data)
        size = self.force.nan_to_num().norm(dim=-1)
        largest = size.new_zeros(n).scatter_reduce(0, self.data.systems.batch, size, "amax")
        if not bool(torch.isfinite(self.force).any()):
            largest = self.energy.nan_to_num().abs()
        return largest.argsort(descending=True)[:count].tolist()  # type: ignore[no-any-return]


def _known(values: torch.Tensor) -> torch.Tensor:
    return values[torch.isfinite(values)]


def _mean(values: torch.Tensor) -> float | None:
    return float(values.mean()) if values.numel() else None


def _error(values: torch.Tensor) -> float | None:
    """Return the standard error of the mean absolute value over structures (n, k), from the known values."""
    each = values.abs().nanmean(-1)
    known = each[torch.isfinite(each)]
    return float(known.std()) / len(known) ** 0.5 if len(known) > 1 else None


def _root(values: torch.Tensor) -> float | None:
    return float((values * values).mean().sqrt()) if values.numel() else None


def _most(values: torch.Tensor) -> float | None:
    return float(values.abs().max()) if values.numel() else None
