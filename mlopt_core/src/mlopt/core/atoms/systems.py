"""A batch of atomic configurations that converts from and to ASE, PyG and a file of mlopt's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from mlopt.core.atoms import convert
from mlopt.core.atoms.batch import AtomBatch
from mlopt.core.lazy import torch

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms


@dataclass(frozen=True, eq=False)
class Systems(AtomBatch):
    """A batch of atomic configurations: concatenated, never padded (PyG's convention).

    pos: (n_atoms, 3) angstrom, or the potential's reduced length.
    z: (n_atoms,) int64 atomic numbers; a dimensionless model uses any element as a label.
    ptr: (n_systems + 1,) int64; system ``i`` owns the atoms ``ptr[i]:ptr[i + 1]``.
    cell: (n_systems, 3, 3) lattice vectors as rows; zero where there is none.
    pbc: (n_systems, 3) bool.
    fixed: (n_atoms,) bool, atoms that must not move.
    given_masses: (n_atoms,) float64, atomic mass units, as the structures give them. NaN stands for the element's
        standard mass; None stands for standard masses throughout.
    template: (n_systems,) int64, index into ``templates`` of the columns and info that a system carries, or -1 for
        none. None stands for no template in the batch.
    """

    @classmethod
    def from_atoms(
        cls, atoms: Atoms | Sequence[Atoms], dtype: torch.dtype | None = None, device: str | None = None
    ) -> Self:
        """Make a batch of one ASE ``Atoms`` or several; ``FixAtoms`` constraints become ``fixed``.

        Tags, charges, magnetic moments, other arrays and ``info`` are kept and returned by `to_atoms`. Velocities and
        results are dropped, because they belong to the positions. Numbers are float64 unless ``dtype`` says otherwise.

        Raises:
            InputError: the list is empty, an atom has a constraint other than ``FixAtoms``, or a mass is not positive.
        """
        return cls(**convert.from_atoms(atoms, dtype, device))

    def to_atoms(self) -> list[Atoms]:
        """Return a list of ASE ``Atoms`` with all that `from_atoms` keeps; gradients are detached."""
        return convert.to_atoms(self)

    @classmethod
    def from_pyg(cls, data: Any) -> Self:
        """Make a batch of a PyG ``Data`` or ``Batch`` with ``pos`` and ``z``.

        ``cell`` (3, 3), (1, 3, 3) or (n, 3, 3), ``pbc`` (3,) or (n, 3), ``fixed`` and ``masses`` are
        read where present.

        Raises:
            InputError: ``pos`` or ``z`` is missing, atoms are not sorted by system, or a shape does not fit.
        """
        return cls(**convert.from_pyg(data))

    def to_pyg(self) -> Any:
        """Return a PyG ``Batch`` with ``pos``, ``z``, ``cell`` (1, 3, 3), ``pbc`` (1, 3), ``fixed`` and ``masses``.

        Raises:
            InputError: torch-geometric is not installed.
        """
        return convert.to_pyg(self)

    def save(self, path: str | Path) -> None:
        """Write every field, bit for bit, to a safetensors file; entries of info that are no plain data are left out.

        Raises:
            MloptError: the file cannot be written; an earlier file of that name stays intact.
        """
        convert.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `save` wrote.

        Raises:
            InputError: the file is missing, damaged, of a newer version, or not one of mlopt's.
        """
        return cls(**convert.load(path))
