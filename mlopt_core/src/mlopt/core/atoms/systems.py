"""A batch of atomic configurations, and its other forms: ASE, PyG, and a file of our own."""

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
    """Atomic configurations, batched: concatenated, never padded (PyG's convention).

    pos: (n_atoms, 3) angstrom, or the potential's reduced length.
    z: (n_atoms,) int64 atomic numbers; a dimensionless model uses any element as a label.
    ptr: (n_systems + 1,) int64; system ``i`` owns the atoms ``ptr[i]:ptr[i + 1]``.
    cell: (n_systems, 3, 3) lattice vectors as rows; zero where there is none.
    pbc: (n_systems, 3) bool.
    fixed: (n_atoms,) bool, atoms that must not move.
    given_masses: (n_atoms,) float64, atomic mass units, as the structures say; NaN for the standard one. None: all so.
    template: (n_systems,) int64, which of ``templates`` a system wears in other forms, -1 for none. None: all so.
    """

    @classmethod
    def from_atoms(
        cls, atoms: Atoms | Sequence[Atoms], dtype: torch.dtype | None = None, device: str | None = None
    ) -> Self:
        """Make a batch of one ASE ``Atoms`` or several; ``FixAtoms`` constraints become ``fixed``.

        Tags, charges, magnetic moments, other arrays and ``info`` come along and are given back by `to_atoms`.
        Velocities and results do not, for they belong to the positions. float64 unless ``dtype`` says otherwise.

        Raises:
            InputError: there are none, an atom is constrained otherwise than fixed altogether, or has no positive mass.
        """
        return cls(**convert.from_atoms(atoms, dtype, device))

    def to_atoms(self) -> list[Atoms]:
        """Return a list of ASE ``Atoms`` with what `from_atoms` takes over; gradients are cut."""
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
        """Write every field, bit for bit, to a safetensors file; info that is no plain data is left out.

        Raises:
            MloptError: the file cannot be written; a former one is then intact.
        """
        convert.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: no such file, not one of ours, damaged, or of a newer version.
        """
        return cls(**convert.load(path))
