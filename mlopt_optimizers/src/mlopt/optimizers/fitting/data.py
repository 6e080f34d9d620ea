"""The structures of a fit, from files with labels, or drawn and labelled as the run begins."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import model_validator

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Stream, problem_keys, uniform
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, Plugin, setting
from mlopt.core.protocols.labeller import Labeller
from mlopt.core.structures.crystal import Crystal
from mlopt.core.structures.labels import LabelledFile

#: energies that differ by less, eV, make structures of one composition twins
_TWIN = 1e-6


class DrawnStructures(Plugin):
    """Strained and shaken copies of a crystal, labelled as the run begins."""

    crystal: Crystal = setting(..., "the crystal, such as Si")
    count: int = setting(200, "structures", ge=2, le=100_000)
    displacement: float = setting(
        0.4,
        "largest displacement of an atom along each axis; each structure has a share of it",
        unit="angstrom",
        ge=0,
    )
    strain: float = setting(0.06, "largest strain of each component", ge=0, lt=0.3)
    labeller: Annotated[Labeller, FromRegistry("labeller")] = setting(
        ..., "what computes energies and forces"
    )

    def draw(self, seed: int) -> Dataset:
        """Return ``count`` labelled structures; the same seed gives the same structures.

        Raises:
            InputError: ASE does not know the crystal, or nothing could be labelled.
        """
        systems = self.crystal.load().repeat(self.count)
        n = systems.segments.n_rows // self.count
        key = problem_keys(seed, torch.arange(self.count))
        noise = 2.0 * uniform(key, torch.zeros_like(key), 3 * n + 10) - 1.0
        share = 0.5 * (noise[:, -1] + 1.0)
        strain = (self.strain * noise[:, 3 * n : 3 * n + 9]).reshape(-1, 3, 3)
        deformed = torch.eye(3, dtype=torch.float64) + 0.5 * (strain + strain.mT)
        pos = systems.pos.reshape(self.count, n, 3) + (self.displacement * share)[:, None, None] * noise[
            :, : 3 * n
        ].reshape(-1, n, 3)
        moved = Systems(
            (pos @ deformed).reshape(-1, 3), systems.z, systems.ptr, systems.cell @ deformed, systems.pbc
        )
        data = self.labeller.label(moved)
        sound = torch.nonzero(data.with_energy).flatten()
        if not sound.numel():
            why = next((one for one in data.source if one), "it says no reason")
            raise InputError(f"`drawn`: the labeller labelled none of {self.count} structures: {why}")
        return data.select(sound)


class FitData(Plugin):
    """The structures of a fit, and those by which it is judged."""

    train: LabelledFile | None = setting(None, "structures to fit to")
    test: LabelledFile | None = setting(
        None, "structures that no fit sees; none: some of the others are left out"
    )
    drawn: DrawnStructures | None = setting(None, "structures drawn around a crystal, in place of `train`")
    leave_out: float = setting(
        0.1, "share of the structures that is left out to test, without `test`", ge=0, lt=1
    )

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        """Take a bare name for the file to fit to."""
        return {"train": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.train is None) == (self.drawn is None):
            raise ValueError("give `train`, a file of labelled structures, or `drawn`, and not both")
        return self

    def load(self, seed: int) -> tuple[Dataset, Dataset]:
        """Return the structures to fit to and those to test on; none of the latter where ``leave_out`` is 0.

        Raises:
            InputError: a file cannot be read, or there are fewer than two structures.
        """
        data = self.drawn.draw(seed) if self.drawn is not None else self.train.read()  # type: ignore[union-attr]
        if self.test is not None:
            return data, self.test.read()
        left = round(self.leave_out * len(data))
        key = problem_keys(seed, torch.arange(len(data)))
        order = uniform(key, torch.full_like(key, Stream.LEFT_OUT), 1)[:, 0].argsort()
        if len(data) - left < 1:
            raise InputError(
                f"there are {len(data)} structures, too few to leave {left} out; set `data.leave_out: 0`"
            )
        return data.select(order[left:].sort().values), data.select(order[:left].sort().values)


def twins(data: Dataset, others: Dataset) -> torch.Tensor:
    """Return which structures have a twin among ``others``: the same composition and energy, (n,) bool."""
    seen: dict[tuple[tuple[int, int], ...], list[float]] = {}
    for place, energy in zip(_compositions(others), others.energy.tolist(), strict=True):
        seen.setdefault(place, []).append(energy)
    found = [
        any(abs(energy - one) < _TWIN for one in seen.get(place, ()))
        for place, energy in zip(_compositions(data), data.energy.tolist(), strict=True)
    ]
    return torch.tensor(found, dtype=torch.bool)


def _compositions(data: Dataset) -> list[tuple[tuple[int, int], ...]]:
    found = []
    for start, stop in pairwise(data.systems.ptr.tolist()):
        z = data.systems.z[start:stop]
        numbers, counts = torch.unique(z, return_counts=True)
        found.append(tuple(zip(numbers.tolist(), counts.tolist(), strict=True)))
    return found
