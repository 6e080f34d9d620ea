"""Records: the arguments of kernel functions, such as ``s.force`` in place of the fourth of eleven arguments.

A kernel function names its record in an annotation and reads the record's fields. It hands the record on whole, or
changed by `dataclasses.replace`, also to a function that asks for a record with fewer fields. Before compiling, the
engine puts plain arguments in the place of records. Called directly, a function takes the objects.

Arrays over rows hold all x, then all y, then all z. Row i is at ``i``, ``n + i`` and ``2 * n + i``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Atoms(Protocol):
    """The constant properties of a system. The functions below read them.

    n: number of atoms.
    atoms (5 n + 13,): five blocks of n numbers for the atoms, then 13 numbers for the system. The blocks are diameters,
    two flags, atomic numbers, and masses as in `Landscape.inertia`. The first flag is 1 for atoms that may be put
    elsewhere on a cluster, the second for atoms that are free to move. Then come the nine numbers of the cell, 1 for
    each periodic direction, and `Landscape.boltzmann`.
    """

    n: int
    atoms: Any


@dataclass
class Memory:
    """The state of an optimizer, as flat arrays: see `mlopt.core.kernels.kernel.OptimizerKernel`.

    n: number of atoms.
    rows (k n,): fields over rows.
    numbers (l,): floating-point fields over problems.
    counts (m,): integer and boolean fields over problems.
    """

    n: int
    rows: Any
    numbers: Any
    counts: Any


@dataclass
class Start(Memory):
    """The beginning of an optimizer: its memory, which it writes, and the point x (3 n,)."""

    x: Any


@dataclass
class Step(Start):
    """A step of an optimizer. It moves x and brings the memory up to date.

    energy, force (3 n,), row_energy (n,): the evaluation at x.
    atoms: see `Atoms`.
    scratch: space for any use.
    """

    energy: float
    force: Any
    row_energy: Any
    atoms: Any
    scratch: Any


@dataclass
class Proposal:
    """A move of a search, from the current minimum to the start of the next quench.

    x (3 n,): the point, which is moved.
    row_energy (n,): energies of the atoms at the minimum.
    scale: factor on the size of the move.
    n, atoms: see `Atoms`.
    rows, counts: those of the search, see `Memory`.
    scratch: space for any use.
    """

    n: int
    x: Any
    row_energy: Any
    scale: float
    atoms: Any
    rows: Any
    counts: Any
    scratch: Any


def diameter_of(s: Atoms, i: int) -> Any:
    """Return the diameter of atom i."""
    return s.atoms[i]


def is_movable(s: Atoms, i: int) -> bool:
    """Return whether atom i may be put elsewhere: it is free, and its system has no periodic direction."""
    return s.atoms[s.n + i] != 0.0  # type: ignore[no-any-return]


def is_free(s: Atoms, i: int) -> bool:
    """Return whether atom i may move at all."""
    return s.atoms[2 * s.n + i] != 0.0  # type: ignore[no-any-return]


def species_of(s: Atoms, i: int) -> Any:
    """Return the atomic number of atom i, as a floating-point number."""
    return s.atoms[3 * s.n + i]


def inertia_of(s: Atoms, i: int) -> Any:
    """Return the mass of atom i, energy time^2 / length^2."""
    return s.atoms[4 * s.n + i]


def cell_of(s: Atoms) -> Any:
    """Return the cell (12,): nine numbers, vector after vector, and 1 for each periodic direction."""
    return s.atoms[5 * s.n : 5 * s.n + 12]


def is_periodic(s: Atoms, axis: int) -> bool:
    """Return whether the system is periodic along the vector ``axis`` of its cell."""
    return s.atoms[5 * s.n + 9 + axis] != 0.0  # type: ignore[no-any-return]


def boltzmann_of(s: Atoms) -> Any:
    """Return one unit of temperature in units of energy."""
    return s.atoms[5 * s.n + 12]
