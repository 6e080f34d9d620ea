"""Small runs of the experiment `active`, whose labellers count, and fail where they are asked to."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.dynamics import Langevin
from mlopt.optimizers.experiments.active import Active, Asking, Beginning
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.optimizers.starts.starts import HarmonicStart
from mlopt.potentials import Gupta, Mtp, StillingerWeber


class Counting(PotentialLabeller):
    """A labeller that counts, and that refuses structures with large forces if asked to."""

    counted: ClassVar[list[int]] = []
    most: float = 1e9

    def label(self, systems: Systems) -> Dataset:
        self.counted.append(len(systems))
        found = super().label(systems)
        bad = systems.segments.longest2(found.force).sqrt() > self.most
        energy = torch.where(bad, torch.nan, found.energy)
        return Dataset(systems, energy, found.force, found.stress, source=found.source)


class Refusing(Counting):
    """A labeller that fails once, at the first structure after so many."""

    after: int

    def label(self, systems: Systems) -> Dataset:
        done = sum(self.counted)
        found = super().label(systems)
        energy = found.energy.clone()
        if done <= self.after < done + len(systems):
            energy[self.after - done] = torch.nan
        return Dataset(systems, energy, found.force, found.stress, source=found.source)


def dynamics(**settings: Any) -> Active:
    """Silicon that melts."""
    given: dict[str, Any] = {
        "system": SystemSpec(crystal={"element": "Si", "repeat": [1, 1, 1]}),
        "potential": Mtp(level=6, cutoff=3.8),
        "labeller": Counting(potential=StillingerWeber()),
        "optimizer": Langevin(time_step=2.0, temperature=2500.0, friction=0.02),
        "walkers": 2,
        "force_calls": 60,
        "begin": Beginning(structures=3, displacement=0.05),
        "asking": Asking(labels=3),
        "labels": 60,
        "engine": "eager",
    }
    return Active(**(given | settings))


def relaxation(**settings: Any) -> Active:
    return dynamics(**({"optimizer": LBFGS(), "fmax": 0.01, "start": HarmonicStart()} | settings))


def search(**settings: Any) -> Active:
    """A cluster of gold."""
    given: dict[str, Any] = {
        "system": SystemSpec(cluster="Au6"),
        "potential": Mtp(level=8, cutoff=5.0),
        "labeller": Counting(potential=Gupta()),
        "optimizer": BasinHopping(temperature=0.4),
        "walkers": 3,
        "force_calls": 300,
        "begin": Beginning(structures=5),
        "asking": Asking(labels=3, lowest=2, patience=2),
        "soften": 3.0,
        "polish": 1,
    }
    return dynamics(**(given | settings))
