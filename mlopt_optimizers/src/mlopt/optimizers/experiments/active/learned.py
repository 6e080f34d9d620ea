"""The knowledge of an active run: labels, the potential that is fitted to them, and what it can be trusted with."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.template import Template
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.fitting.least_squares import Solution, Triangle, Weights, solve, triangle
from mlopt.optimizers.querying.active_set import ActiveSet
from mlopt.optimizers.querying.grade import By, Grader


@dataclass(frozen=True, eq=False)
class Learned:
    """What is known after some labels.

    data: all labels.
    core (n_atoms,) bool: atoms whose forces are in the fit, and whose rows may be in the active set. These are all but
        those at the faces of cut-outs, whose energies are not in the fit either.
    rows: of the fit to the labels. solution: of the fit. grader: with the potential that it solved for.
    ranked: places of the labels whose structures have the atoms of the system, the lowest energy first.
    """

    data: Dataset
    core: torch.Tensor
    rows: Triangle
    solution: Solution
    grader: Grader
    ranked: list[int]

    @property
    def potential(self) -> FittablePotential:
        """The fitted potential."""
        return self.grader.potential

    @property
    def whole(self) -> torch.Tensor:
        """(n,) bool, structures that were not cut out of others."""
        return _whole(self.data, self.core)

    @property
    def lowest(self) -> float | None:
        """The lowest energy among labelled structures of the system, None if there is none."""
        return float(self.data.energy[self.ranked[0]]) if self.ranked else None

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Return all that labels cannot give back bit for bit."""
        rows, found = self.rows, {f"active.{k}": v for k, v in self.grader.active_set.to_tensors().items()}
        found |= _to_tensors(self.data) | {"core": self.core}
        return found | {
            "rows.upper": torch.from_numpy(rows.upper),
            "rows.squares": torch.from_numpy(rows.squares),
            "rows.counts": torch.tensor([rows.n_forces, rows.rows]),
        }


@dataclass(frozen=True)
class Learner:
    """How labels become knowledge.

    system: a batch of one, which walkers move. base: the potential, not yet prepared for data. soften: force at which
    a structure counts half, None for never.
    """

    system: Systems
    base: FittablePotential
    weights: Weights
    strength: float | None
    smooth: float
    memory: float
    soften: float | None
    by: By

    def begun(self, data: Dataset) -> Learned:
        """Fit to the first labels.

        Raises:
            InputError: the potential cannot be prepared for these data.
        """
        core = torch.ones_like(data.systems.fixed)
        data = self._weighted(data, core)
        return self._anew(self.base.prepared(data), data, core)

    def extended(self, known: Learned, new: Dataset, core: torch.Tensor | None = None) -> Learned:
        """Return the knowledge with new labels: their rows are added to those of the fit, and to the active set.

        core: (n_atoms,) bool of the new structures, see `Learned`; None for all atoms.

        Where the new structures change what the potential takes from data, such as the shortest distance between atoms,
        all rows are computed anew.
        """
        own = torch.ones_like(new.systems.fixed) if core is None else core
        new = self._weighted(new, own)
        data, core = Dataset.concatenate([known.data, new]), torch.cat([known.core, own])
        prepared = self.base.prepared(data)
        if prepared.with_theta(known.solution.theta).config() != known.potential.config():
            return self._anew(prepared, data, core)
        more = triangle(prepared, _counted(new, own), self.weights, self.memory)
        grader, _, _ = known.grader.extended(new.systems, first=len(known.data), among=own)
        grader = replace(grader, potential=prepared)
        return self._solved(data, core, Triangle.merged([known.rows, more]), grader)

    def restored(self, tensors: dict[str, torch.Tensor]) -> Learned:
        """Return the knowledge of which `Learned.to_tensors` was kept, bit for bit."""
        data = _of_tensors(tensors)
        n_forces, count = tensors["rows.counts"].tolist()
        rows = Triangle(tensors["rows.upper"].numpy(), tensors["rows.squares"].numpy(), n_forces, count)
        own = {
            name.removeprefix("active."): one for name, one in tensors.items() if name.startswith("active.")
        }
        grader = Grader(self.base.prepared(data), ActiveSet.of_tensors(own), self.by)
        return self._solved(data, tensors["core"], rows, grader)

    def _anew(self, prepared: FittablePotential, data: Dataset, core: torch.Tensor) -> Learned:
        rows = triangle(prepared, _counted(data, core), self.weights, self.memory)
        return self._solved(data, core, rows, Grader.of(prepared, data.systems, self.by, among=core))

    def _solved(self, data: Dataset, core: torch.Tensor, rows: Triangle, grader: Grader) -> Learned:
        degrees = grader.potential.roughness()
        found = solve(rows, degrees, strength=self.strength, smooth=self.smooth)
        grader = replace(grader, potential=grader.potential.with_theta(found.theta))
        return Learned(data, core, rows, found, grader, _ranked(data, self.system))

    def _weighted(self, data: Dataset, core: torch.Tensor) -> Dataset:
        """With smaller weights for structures with large forces, which are far from what matters."""
        if self.soften is None:
            return data
        largest = data.systems.segments.longest2(_counted(data, core).force.nan_to_num())
        return replace(data, weight=data.weight / (1.0 + largest / self.soften**2))


def _counted(data: Dataset, core: torch.Tensor) -> Dataset:
    """The labels that count: of a cut-out, the forces on its core.

    The other atoms have surroundings that no walker has, and the energy is theirs as well.
    """
    energy = torch.where(_whole(data, core), data.energy, torch.nan)
    return replace(data, energy=energy, force=torch.where(core[:, None], data.force, torch.nan))


def _whole(data: Dataset, core: torch.Tensor) -> torch.Tensor:
    """(n,) bool, structures all of whose atoms are in the core."""
    missing: torch.Tensor = data.systems.segments.sum((~core).double())
    return missing == 0


def _ranked(data: Dataset, system: Systems) -> list[int]:
    """The places of the labels whose structures have the atoms of a system, the lowest energy first."""
    atoms = system.z.sort().values
    order = torch.argsort(data.energy, stable=True)
    return [
        place
        for place in order[data.with_energy[order]].tolist()
        if torch.equal(data.systems[place].z.sort().values, atoms)
    ]


#: fields of labelled structures and of labels that are tensors; masses and templates may be missing
_OF_SYSTEMS = ("pos", "z", "ptr", "cell", "pbc", "fixed", "given_masses", "template")
_OF_LABELS = ("energy", "force", "stress", "weight")


def _to_tensors(data: Dataset) -> dict[str, torch.Tensor]:
    """All of the labels as tensors, also what no fit reads and files of results have."""
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
