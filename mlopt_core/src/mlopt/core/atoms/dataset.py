"""Labelled structures: the data of fits, and the results of labellers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from mlopt.core.atoms.digest import structure_digest
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch

if TYPE_CHECKING:
    from ase import Atoms

#: tensors of a dataset besides the systems, each with one entry a structure or an atom
_LABELS = ("energy", "force", "stress")
#: rows and columns of Voigt's six numbers
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled structures; NaN stands for a missing label.

    systems: the n structures, positions in float64.
    energy: (n,) float64, eV or the reduced unit.
    force: (n_atoms, 3) float64, eV/angstrom or reduced, minus the gradient of the energy.
    stress: (n, 3, 3) float64, eV/angstrom^3 or reduced, dE/dstrain / volume: positive under tension, as in ASE.
    weight: (n,) float64, factor on all residuals of a structure in a fit.
    group: n words; errors are listed by group, and folds of a cross-validation are made of groups.
    source: n words, the origin of each structure, such as ``train.xyz: frame 12``.
    """

    systems: Systems
    energy: torch.Tensor = field(default=None)  # type: ignore[assignment]
    force: torch.Tensor = field(default=None)  # type: ignore[assignment]
    stress: torch.Tensor = field(default=None)  # type: ignore[assignment]
    weight: torch.Tensor = field(default=None)  # type: ignore[assignment]
    group: tuple[str, ...] = ()
    source: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n, n_atoms, like = len(self.systems), len(self.systems.pos), self.systems.pos
        shapes = {"energy": (n,), "force": (n_atoms, 3), "stress": (n, 3, 3), "weight": (n,)}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                fill = 1.0 if name == "weight" else float("nan")
                value = torch.full(shape, fill, dtype=torch.float64, device=like.device)
                object.__setattr__(self, name, value)
            if tuple(value.shape) != shape:
                raise InputError(
                    f"Dataset: `{name}` must have shape {shape} to fit its {n} structures, got {tuple(value.shape)}"
                )
        for name in ("group", "source"):
            words = tuple(getattr(self, name)) or ("",) * n
            if len(words) != n:
                raise InputError(
                    f"Dataset: `{name}` must have one word for each of {n} structures, got {len(words)}"
                )
            object.__setattr__(self, name, words)
        if bool((~torch.isfinite(self.weight) | (self.weight < 0)).any()):
            raise InputError("Dataset: weights must be finite and not negative")

    def __len__(self) -> int:
        return len(self.systems)

    @property
    def with_energy(self) -> torch.Tensor:
        """(n,) bool, true for structures with an energy."""
        return torch.isfinite(self.energy)

    @property
    def with_force(self) -> torch.Tensor:
        """(n,) bool, true for structures with a force on every atom."""
        known = torch.isfinite(self.force).all(-1)
        missing: torch.Tensor = self.systems.segments.sum((~known).to(self.force.dtype))
        return missing == 0

    @property
    def with_stress(self) -> torch.Tensor:
        """(n,) bool, true for structures with a stress."""
        return torch.isfinite(self.stress).flatten(1).all(-1)

    def select(self, structures: torch.Tensor | Sequence[int]) -> Self:
        """Return the given structures (int64 indices, in that order)."""
        index = torch.as_tensor(structures, dtype=torch.int64, device=self.energy.device)
        _, rows = self.systems.segments.select(index)
        places = index.tolist()
        return type(self)(
            self.systems.select(index),
            self.energy[index],
            self.force[rows],
            self.stress[index],
            self.weight[index],
            tuple(self.group[place] for place in places),
            tuple(self.source[place] for place in places),
        )

    @classmethod
    def concatenate(cls, parts: Iterable[Self]) -> Self:
        """Return one dataset out of several.

        Raises:
            InputError: ``parts`` is empty.
        """
        sets = list(parts)
        if not sets:
            raise InputError("Dataset.concatenate needs at least one dataset")
        labels = {name: torch.cat([getattr(one, name) for one in sets]) for name in (*_LABELS, "weight")}
        return cls(
            Systems.concatenate([one.systems for one in sets]),
            **labels,
            group=tuple(word for one in sets for word in one.group),
            source=tuple(word for one in sets for word in one.source),
        )

    def reference_energies(self, species: Sequence[int]) -> torch.Tensor:
        """Return the energy of one atom of each of the ``species`` (atomic numbers): (len(species),).

        The energies are a least-squares fit to the compositions. Where these do not determine them, as for a single
        compound, the solution of least norm is taken.
        """
        known = self.with_energy
        counts = torch.stack(
            [self.systems.segments.sum((self.systems.z == z).double()[:, None]) for z in species], 1
        )
        if not bool(known.any()):
            return counts.new_zeros(len(species))
        solved = torch.linalg.lstsq(counts[known], self.energy[known, None], driver="gelsd")
        found: torch.Tensor = solved.solution[:, 0]
        return found

    def keys(self) -> list[str]:
        """Return the SHA-256 of each structure without its labels, to find duplicates."""
        return [structure_digest(self.systems[index]) for index in range(len(self))]

    def digest(self) -> str:
        """Return the SHA-256 of structures, labels, weights and groups."""
        told = hashlib.sha256()
        for key in self.keys():
            told.update(key.encode())
        for name in (*_LABELS, "weight"):
            told.update(getattr(self, name).detach().cpu().contiguous().numpy().tobytes())
        told.update("\0".join(self.group).encode())
        return told.hexdigest()

    def to_atoms(self) -> list[Atoms]:
        """Return ASE ``Atoms`` with the known labels as results, and with group and weight in ``info``."""
        from ase.calculators.singlepoint import SinglePointCalculator

        images = self.systems.to_atoms()
        energies, weights = self.energy.tolist(), self.weight.tolist()
        stress, force = self.stress.cpu().numpy(), self.force.cpu().numpy()
        known = {name: getattr(self, f"with_{name}").tolist() for name in _LABELS}
        for index, (start, stop) in enumerate(pairwise(self.systems.ptr.tolist())):
            results = {}
            if known["energy"][index]:
                results["energy"] = energies[index]
            if known["force"][index]:
                results["forces"] = force[start:stop]
            if known["stress"][index]:
                results["stress"] = [stress[index][a, b] for a, b in VOIGT]
            one = images[index]
            if self.group[index]:
                one.info["config_type"] = self.group[index]
            if weights[index] != 1.0:
                one.info["weight"] = weights[index]
            one.calc = SinglePointCalculator(one, **results)
        return images
