"""The protocol of models: one system with its energy, whose states a configuration can name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator

from mlopt.core.atoms.units import Units
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.landscapes.potential import Trial
from mlopt.core.lazy import torch
from mlopt.core.plugins.input_file import Reads, absolute_entry
from mlopt.core.plugins.plugin import Plugin


def _state_of(given: Any) -> Any:
    """A state as a mapping; a bare word is the name of a file."""
    return {"file": given} if isinstance(given, str) else given


#: a state in a configuration: what `Model.state` takes; its entry ``file``, if it has one, names a file
ModelState: TypeAlias = Annotated[
    dict[str, Any], AfterValidator(absolute_entry("file")), Reads(key="file"), BeforeValidator(_state_of)
]


@dataclass(frozen=True)
class Aligned:
    """A state ``x (n_rows, d)`` brought near to another, and in words what was done; empty where nothing was."""

    x: torch.Tensor
    words: str = ""


class Model(Plugin):
    """What paths are about: atoms under a potential, spins with a Hamiltonian, a surface of two coordinates.

    A model knows its landscape, how its states are written in a configuration, and which files show them. What is done
    with it does not ask which of these it is.
    """

    @property
    @abstractmethod
    def energy_units(self) -> Units:
        """Units of energies, and of distances between points."""
        raise NotImplementedError(f"{type(self).__name__} must define `energy_units`")

    @abstractmethod
    def landscape(
        self,
        n_problems: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Landscape:
        """The energy of ``n_problems`` copies of the system; float64 unless ``dtype`` says otherwise."""
        raise NotImplementedError(f"{type(self).__name__} must define `landscape`")

    @abstractmethod
    def state(self, given: Mapping[str, Any]) -> torch.Tensor:
        """The point (n_rows, d), float64 on the CPU, that ``given`` describes, such as ``{file: start.con}``.

        Raises:
            InputError: it is not such a description, or does not fit the model.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `state`")

    def state_in_any_order(self, given: Mapping[str, Any]) -> torch.Tensor:
        """As `state`, with rows brought into the model's order where they come in another.

        Raises:
            InputError: as `state`.
        """
        return self.state(given)

    def trial(self) -> Trial:
        """What looking at its potential has cost, and the warnings that came of it; see `Potential.trial`."""
        return Trial()

    def remarks(self) -> list[str]:
        """Lines for the log at the end of a run, see `Potential.remarks`."""
        return []

    def aligned(
        self, x: torch.Tensor, to: torch.Tensor, *, exchange: bool = True, mirror: bool = False
    ) -> Aligned:
        """Of the states that are as good as ``x``, the one nearest to the state ``to``; here ``x`` itself.

        Atoms may be turned and shifted together. exchange: like atoms may change places. mirror: so may mirror images.

        Raises:
            InputError: this model has no mirror images that are as good.
        """
        if mirror:
            raise InputError(f"{type(self).__name__} has no mirror images to align: take `align: auto`")
        return Aligned(x)

    def path(self, given: Mapping[str, Any]) -> torch.Tensor:
        """The images (m, n_rows, d) of a whole path in a file: every structure or segment of it.

        Raises:
            InputError: as `state`; or this model has no such files.
        """
        return self.state(given)[None]

    @abstractmethod
    def write(self, stem: Path, points: torch.Tensor, energies: Sequence[float]) -> Path:
        """Write states (m, n_rows, d) with their energies to ``stem`` and a suffix; returns the file."""
        raise NotImplementedError(f"{type(self).__name__} must define `write`")

    def masses(self) -> torch.Tensor | None:
        """(n_rows,) masses of atoms, atomic mass units, for rates; None where rows have none."""
        return None

    def moments(self) -> torch.Tensor | None:
        """(n_rows,) magnetic moments of spins, Bohr magnetons, for rates; None where rows are no spins."""
        return None

    def positions(self) -> torch.Tensor | None:
        """(n_rows, 3) places of spins, for pictures; None where rows have no place of their own."""
        return None

    def rows(self, n_rows: int) -> list[str]:
        """What each row is called in messages."""
        return [f"row {row}" for row in range(n_rows)]
