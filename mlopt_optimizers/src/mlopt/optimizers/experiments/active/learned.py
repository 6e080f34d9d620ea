"""The knowledge of an active run: labels, the potential that is fitted to them, and grades of how far to trust it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.template import Template
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.experiments.active.wishes import Wish, cores, structures
from mlopt.optimizers.querying.grade import Grader, Grades


class Grading(Protocol):
    """A measure of how far a potential can be trusted, by an active set or by a committee."""

    @property
    def potential(self) -> FittablePotential:
        """The potential that is graded."""

    def grade(self, systems: Systems) -> Grades:
        """Return the grades of ``systems``; a structure that was just labelled has about 1 at most."""


@dataclass(frozen=True, eq=False)
class Learned(ABC):
    """The knowledge after some labels.

    data: all labels.
    core (n_atoms,) bool: atoms whose forces are in the fit, and whose rows may be in the active set. Atoms at the faces
        of cut-outs are left out. Energies of cut-outs are not in the fit either.
    grader: the grades, with the potential that was fitted.
    ranked: places of the labels whose structures have the atoms of the system, the lowest energy first.
    """

    #: settings of the experiment that say how it is fitted
    of_fit: ClassVar[tuple[str, ...]]

    data: Dataset
    core: torch.Tensor
    grader: Grading
    ranked: list[int]

    @property
    def potential(self) -> FittablePotential:
        """The fitted potential."""
        return self.grader.potential

    @property
    def members(self) -> torch.Tensor:
        """The parameters of all fits (k, p); the potential has one row of them."""
        return self.potential.parameters[None]

    @property
    def whole(self) -> torch.Tensor:
        """(n,) bool, structures that were not cut out of others."""
        return _whole(self.data, self.core)

    @property
    def lowest(self) -> float | None:
        """The lowest energy among labelled structures of the system, None if there is none."""
        return float(self.data.energy[self.ranked[0]]) if self.ranked else None

    def place_of(self, pos: torch.Tensor) -> int | None:
        """Return the place of the last label of a structure in these very positions (n, 3), or None."""
        systems = self.data.systems
        ptr = systems.ptr.tolist()
        for place in reversed(range(len(systems))):
            own = systems.pos[ptr[place] : ptr[place + 1]]
            if own.shape == pos.shape and torch.equal(own, pos):
                return place
        return None

    @abstractmethod
    def teaching(self, wishes: Sequence[Wish]) -> list[int]:
        """Return the places of the wishes whose labels would add information, the most valuable first."""

    @abstractmethod
    def told(self) -> dict[str, Any]:
        """Return the numbers of the fit, by name; ``parameters`` is among them."""

    @abstractmethod
    def grounds(self) -> str:
        """Return in a few words the basis of the grades."""

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors that cannot be computed again from the labels bit for bit."""
        return _to_tensors(self.data) | {"core": self.core}


@dataclass(frozen=True)
class Learner(ABC):
    """A method to fit a potential to labels, and to grade it.

    system: a batch of one, which walkers move.
    base: the potential, not yet prepared for data.
    soften: force at which a structure has half its weight; None for no such reduction.
    """

    system: Systems
    base: FittablePotential
    soften: float | None

    def begun(self, data: Dataset) -> Learned:
        """Fit to the first labels.

        Raises:
            InputError: the potential cannot be prepared for these data.
        """
        core = torch.ones_like(data.systems.fixed)
        return self._first(self._weighted(data, core), core)

    def extended(self, known: Learned, new: Dataset, core: torch.Tensor | None = None) -> Learned:
        """Return the knowledge with new labels.

        core: (n_atoms,) bool of the new structures, see `Learned`; None for all atoms.
        """
        own = torch.ones_like(new.systems.fixed) if core is None else core
        return self._with(known, self._weighted(new, own), own)

    def restored(self, tensors: dict[str, torch.Tensor]) -> Learned:
        """Return the knowledge whose `Learned.to_tensors` were kept, bit for bit."""
        return self._again(_of_tensors(tensors), tensors["core"], tensors)

    @abstractmethod
    def _first(self, data: Dataset, core: torch.Tensor) -> Learned:
        """Fit to the first labels, whose weights are final."""

    @abstractmethod
    def _with(self, known: Learned, new: Dataset, core: torch.Tensor) -> Learned:
        """Fit to new labels as well, whose weights are final."""

    @abstractmethod
    def _again(self, data: Dataset, core: torch.Tensor, tensors: dict[str, torch.Tensor]) -> Learned:
        """Take back what was kept."""

    def _ranked(self, data: Dataset) -> list[int]:
        """Return the places of the labels of structures with the atoms of the system, the lowest energy first."""
        atoms = self.system.z.sort().values
        order = torch.argsort(data.energy, stable=True)
        return [
            place
            for place in order[data.with_energy[order]].tolist()
            if torch.equal(data.systems[place].z.sort().values, atoms)
        ]

    def _weighted(self, data: Dataset, core: torch.Tensor) -> Dataset:
        """Return the data with smaller weights for structures with large forces, which matter less."""
        if self.soften is None:
            return data
        largest = data.systems.segments.longest2(counted(data, core).force.nan_to_num())
        return replace(data, weight=data.weight / (1.0 + largest / self.soften**2))


def entering(grader: Grader, wishes: Sequence[Wish], known: int) -> list[int]:
    """Return the places of the wishes whose rows enter an active set, that of the largest grade first.

    known: number of the first structure among the wishes, from which owners in the active set count.
    """
    _, entered, _ = grader.extended(structures(wishes), first=known, among=cores(wishes))
    return sorted((one - known for one in entered), key=lambda place: -wishes[place].grade)


def counted(data: Dataset, core: torch.Tensor) -> Dataset:
    """Return the labels that count: of a cut-out, the forces on its core.

    The other atoms have surroundings that no walker has, and contribute to energy and stress.
    """
    whole = _whole(data, core)
    return replace(
        data,
        energy=torch.where(whole, data.energy, torch.nan),
        force=torch.where(core[:, None], data.force, torch.nan),
        stress=torch.where(whole[:, None, None], data.stress, torch.nan),
    )


def _whole(data: Dataset, core: torch.Tensor) -> torch.Tensor:
    """Return the structures all of whose atoms are in the core, (n,) bool."""
    missing: torch.Tensor = data.systems.segments.sum((~core).double())
    return missing == 0


#: fields of labelled structures and of labels that are tensors; masses and templates may be missing
_OF_SYSTEMS = ("pos", "z", "ptr", "cell", "pbc", "fixed", "given_masses", "template")
_OF_LABELS = ("energy", "force", "stress", "weight")


def _to_tensors(data: Dataset) -> dict[str, torch.Tensor]:
    """Return the labels as tensors, with columns that no fit reads but that files of results have."""
    told = {
        "templates": [one.to_json() for one in data.systems.templates],
        "group": data.group,
        "source": data.source,
    }
    found = {name: getattr(data.systems, name) for name in _OF_SYSTEMS}
    found |= {name: getattr(data, name) for name in _OF_LABELS}
    found["told"] = torch.tensor(list(json.dumps(told).encode()), dtype=torch.uint8)
    return {f"data.{name}": one for name, one in found.items() if one is not None}


def _of_tensors(tensors: dict[str, torch.Tensor]) -> Dataset:
    found = {name.removeprefix("data."): one for name, one in tensors.items() if name.startswith("data.")}
    told = json.loads(bytes(found["told"].tolist()))
    systems = Systems(
        **{name: found[name] for name in _OF_SYSTEMS if name in found},
        templates=tuple(Template.from_json(one) for one in told["templates"]),
    )
    labels = {name: found[name] for name in _OF_LABELS}
    return Dataset(systems, **labels, group=tuple(told["group"]), source=tuple(told["source"]))
