"""Settings of active learning: the structures to begin with, and when walkers ask for labels."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import model_validator

from mlopt.core.plugins.plugin import FromRegistry, Plugin, setting
from mlopt.core.protocols.query import QueryStrategy
from mlopt.core.structures.labels import LabelledFile
from mlopt.optimizers.experiments.active.cut import CutOut


class Beginning(Plugin):
    """The labelled structures before the first walk."""

    file: LabelledFile | None = setting(None, "labelled structures; none: some are drawn and labelled")
    structures: int = setting(
        8, "structures that are drawn: starts of a formula, or shaken copies of a file", ge=1
    )
    displacement: float = setting(
        0.1, "standard deviation of the displacement of an atom in a shaken copy", unit="length", ge=0
    )
    strain: float = setting(0.02, "largest strain of a shaken copy of a crystal", ge=0, lt=0.3)


class Asking(Plugin):
    """When walkers ask for labels, and what is labelled.

    A structure whose grade is above ``save`` is put aside. A walker whose grade is above ``stop`` waits for labels.
    """

    save: float = setting(2.0, "grade above which a structure is put aside", gt=1)
    stop: float = setting(10.0, "grade above which a walker waits until labels have been computed", gt=1)
    by: Literal["neighbourhoods", "configurations", "committee"] | None = setting(
        None,
        "grades by the surroundings of each atom, by whole structures, or by how far a committee of trained "
        "potentials disagrees; none: the committee where the potential is trained, else neighbourhoods",
    )
    agreement: float = setting(
        0.02,
        "disagreement about a force, relative to it plus 1 eV/angstrom, that has at least the grade 1; of a committee",
        gt=0,
    )
    every: int = setting(
        5, "force calls between two looks at the grades; steps before a stop are looked at one by one", ge=1
    )
    labels: int = setting(10, "largest number of labels of a round", ge=1)
    put_aside: int = setting(1000, "structures put aside at which labels are computed, at the latest", ge=1)
    lowest: int = setting(
        2, "of a search: lowest minima that are labelled in each round, if they are new", ge=1
    )
    patience: int = setting(3, "of a search: rounds without a new lowest minimum after which it ends", ge=1)
    ends: bool = setting(True, "of relaxations: label their ends, and go on until these have no force")
    strategy: Annotated[QueryStrategy | None, FromRegistry("query-strategy")] = setting(
        None, "which of the structures put aside are labelled; none: those that enter the active set"
    )

    cut: CutOut | None = setting(
        None, "label the surroundings of the atom with the largest grade only; none: whole structures"
    )

    @model_validator(mode="after")
    def _of_atoms(self) -> Self:
        if self.cut is not None and self.by == "configurations":
            raise ValueError(
                "`cut` is around the atom with the largest grade; by configurations atoms have none: take "
                "`by: neighbourhoods`"
            )
        return self

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.stop < self.save:
            raise ValueError(
                f"`stop` ({self.stop:g}) is below `save` ({self.save:g}): a walker would stop before anything "
                f"was put aside; give `save` <= `stop`, such as 2 and 10"
            )
        return self
