"""A system under a potential, with where runs on it begin and what counts as a hit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

from mlopt.core.atoms.systems import Systems
from mlopt.core.landscapes.potential import Potential
from mlopt.core.plugins.plugin import FromRegistry, Plugin, setting
from mlopt.core.protocols.start import StartSampler
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.starts.starts import HarmonicStart


class Case(Plugin):
    """What optimizers are trained on, or compared on."""

    system: SystemSpec = setting(..., "the atoms: a cluster's formula, or a file")
    potential: Annotated[Potential, FromRegistry("potential")] = setting(..., "the energy")
    start: Annotated[StartSampler, FromRegistry("start")] = setting(
        HarmonicStart(), "where each run begins; the default is that of Learn2Hop"
    )
    target: float | None = setting(
        None, "energy that counts as a hit, such as the known minimum", unit="energy"
    )
    tolerance: float = setting(1e-3, "above the target, and still a hit", unit="energy", ge=0)

    @property
    def label(self) -> str:
        """What the case is called in tables: the formula, or the name of the file."""
        return self.system.cluster or Path(str(self.system.file)).stem

    @cached_property
    def loaded(self) -> Systems:
        """The system, a batch of one. Raises InputError where a file cannot be read."""
        return self.system.load()


def labels_of(cases: Sequence[Case]) -> list[str]:
    """Their labels; where two are the same, with the number of the case."""
    plain = [one.label for one in cases]
    return [label if plain.count(label) == 1 else f"{label}#{number}" for number, label in enumerate(plain)]
