"""Cases: systems under potentials, with a start for runs and an energy to reach."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Stream, derive
from mlopt.core.errors import InputError
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, Plugin, setting
from mlopt.core.protocols.start import StartSampler
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.starts.starts import HarmonicStart


class Case(Plugin):
    """A system that optimizers are trained on, or compared on."""

    system: SystemSpec = setting(..., "the system: a formula, a crystal or a structure file")
    potential: Annotated[Potential, FromRegistry("potential")] = setting(..., "potential energy")
    start: Annotated[StartSampler, FromRegistry("start")] = setting(
        HarmonicStart(), "initial positions of each run; the default is that of Learn2Hop"
    )
    target: float | None = setting(
        None, "energy that counts as a hit, such as the known minimum", unit="energy"
    )
    tolerance: float = setting(
        1e-3, "largest energy above the target that counts as a hit", unit="energy", ge=0
    )

    @property
    def label(self) -> str:
        """The name of the system in tables: the formula, or the name of the file."""
        return self.system.cluster or Path(str(self.system.file)).stem

    @cached_property
    def loaded(self) -> Systems:
        """The system, a batch of one.

        Raises:
            InputError: its file cannot be read.
        """
        return self.system.load()

    def check(self) -> None:
        """Refuse a case in which no run could begin.

        Raises:
            InputError: the file cannot be read, the potential has no parameters for these elements, or the start needs
                positions and there are none.
        """
        self.potential.check(self.loaded)
        if self.start.given and not self.system.placed:
            raise InputError(
                f"`start: given` needs positions, and {self.label} is a formula; take another start"
            )

    def begun(self, key: torch.Tensor) -> Systems:
        """Return n copies of the system, each at the start that follows from its ``key (n,)`` int64."""
        systems = self.loaded.select([0] * len(key))
        diameter = self.potential.diameter(systems.z)
        return systems.with_pos(self.start.sample(systems, diameter, derive(key, Stream.START)))


def labels_of(cases: Sequence[Case]) -> list[str]:
    """Return the labels of cases, with the number of the case where two would be the same."""
    plain = [one.label for one in cases]
    return [label if plain.count(label) == 1 else f"{label}#{number}" for number, label in enumerate(plain)]
