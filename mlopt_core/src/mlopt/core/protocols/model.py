"""The protocol of models: one system with its energy, whose states can be named in a configuration."""

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
    """Return a state as a mapping; a bare word is read as the name of a file."""
    return {"file": given} if isinstance(given, str) else given


#: a state in a configuration: what `Model.state` takes; its entry ``file``, if it has one, names a file
ModelState: TypeAlias = Annotated[
    dict[str, Any], AfterValidator(absolute_entry("file")), Reads(key="file"), BeforeValidator(_state_of)
]


@dataclass(frozen=True)
class Aligned:
    """A state ``x (n_rows, d)`` after alignment with another state, and a description of the change, empty for none."""

    x: torch.Tensor
    words: str = ""


class Model(Plugin):
    """The subject of a path: atoms under a potential, spins with a Hamiltonian, or a surface of two coordinates.

    A model makes the landscape, reads its states from a configuration, and writes files that show them. Code that works
    on models does not ask which of these it has.
    """

    @property
    @abstractmethod
    def energy_units(self) -> Units:
        """The units of energies, and of distances between points."""
        raise NotImplementedError(f"{type(self).__name__} must define `energy_units`")

    @abstractmethod
    def landscape(
        self,
        n_problems: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Landscape:
        """Return the landscape of ``n_problems`` copies of the system; float64 unless ``dtype`` says otherwise."""
        raise NotImplementedError(f"{type(self).__name__} must define `landscape`")

    @abstractmethod
    def state(self, given: Mapping[str, Any]) -> torch.Tensor:
        """Return the point (n_rows, d), float64 on the CPU, that ``given`` describes, such as ``{file: start.con}``.

        Raises:
            InputError: it is no description of a state, or does not fit the model.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `state`")

    def state_in_any_order(self, given: Mapping[str, Any]) -> torch.Tensor:
        """Return the point (n_rows, d) of `state`, with rows sorted into the model's order if the file has another.

        Raises:
            InputError: as in `state`.
        """
        return self.state(given)

    def trial(self) -> Trial:
        """Return the cost and the warnings of checking the model's potential; see `Potential.trial`."""
        return Trial()

    def remarks(self) -> list[str]:
        """Return lines for the log at the end of a run; see `Potential.remarks`."""
        return []

    def aligned(
        self, x: torch.Tensor, to: torch.Tensor, *, exchange: bool = True, mirror: bool = False
    ) -> Aligned:
        """Return the state nearest to ``to`` among those equivalent to ``x``; the default returns ``x``.

        x, to: (n_rows, d). Atoms may be rotated and translated together.
        exchange: also permute atoms of the same element. mirror: also take mirror images.

        Raises:
            InputError: mirror images were asked for, and those of this model are not equivalent.
        """
        if mirror:
            raise InputError(f"{type(self).__name__} has no mirror images to align: take `align: auto`")
        return Aligned(x)

    def path(self, given: Mapping[str, Any]) -> torch.Tensor:
        """Return the images (m, n_rows, d) of a path in a file, one for each of its structures or segments.

        Raises:
            InputError: as in `state`; or this model cannot read paths.
        """
        return self.state(given)[None]

    @abstractmethod
    def write(self, stem: Path, points: torch.Tensor, energies: Sequence[float]) -> Path:
        """Write ``points (m, n_rows, d)`` with their energies (m,) to ``stem`` plus a suffix; return the file."""
        raise NotImplementedError(f"{type(self).__name__} must define `write`")

    def masses(self) -> torch.Tensor | None:
        """Return (n_rows,) masses of atoms, atomic mass units, for rates; None where rows have none."""
        return None

    def moments(self) -> torch.Tensor | None:
        """Return (n_rows,) magnetic moments of spins, Bohr magnetons, for rates; None where rows are no spins."""
        return None

    def positions(self) -> torch.Tensor | None:
        """Return (n_rows, 3) positions of spins, for pictures; None where rows have no fixed position."""
        return None

    def rows(self, n_rows: int) -> list[str]:
        """Return the name of each row in messages."""
        return [f"row {row}" for row in range(n_rows)]
