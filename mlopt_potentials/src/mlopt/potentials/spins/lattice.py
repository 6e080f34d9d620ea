"""The lattice of spins, with its boundaries, vacancies, pinned sites and magnetic moments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, model_validator

from mlopt.core.errors import InputError
from mlopt.core.plugins.plugin import Plugin, setting
from mlopt.potentials.spins.settings import Integers, Numbers, Sites, Vector, indices, plain
from mlopt.potentials.spins.shells import Bonds, Floats, find_bonds
from mlopt.potentials.spins.shells import Integers as IntegerArray

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

#: sites beyond which a lattice is taken for a mistake
MOST_SITES = 10_000_000
_EDGE = math.sqrt(3.0) / 2.0
#: unit cells with the spacing 1; a chain and a square lattice repeat along fewer directions than a cubic one
CELLS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "chain": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "square": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "hexagonal": ((1, 0, 0), (0.5, _EDGE, 0), (0, 0, 1)),
    "cubic": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
}
DIMENSIONS = {"chain": 1, "square": 2, "hexagonal": 2, "cubic": 3, "given": 3}


def _flags(value: Any) -> Any:
    value = plain(value)
    if not all(isinstance(one, bool) for one in (value if isinstance(value, list) else [value])):
        raise ValueError("should be true or false, or a list of them, one for each direction")
    return value


_Vectors = Annotated[list[Vector], BeforeValidator(plain)]


class SpinLattice(Plugin):
    """A lattice of spins, open or periodic along each direction.

    Site ``basis + n_basis (a + n_a (b + n_b c))`` is an atom of the basis in the cell (a, b, c). Spirit and OVF files
    use the same order (x runs fastest). Vacant sites keep their number but have no spin: rows of ``x`` are the occupied
    sites in their order.

    kind: a ``chain`` repeats along x, ``square`` and ``hexagonal`` (60 degrees between a and b) along x and y,
        ``cubic`` along all three. A ``given`` lattice is defined by `cell` and `basis`; see also `from_atoms`.
    """

    kind: Literal["chain", "square", "hexagonal", "cubic", "given"] = setting("cubic", "lattice type")
    repeat: Integers = setting(doc="unit cells along each direction; directions left out have one")
    periodic: Annotated[bool | list[bool], BeforeValidator(_flags)] = setting(
        False, "true for periodic directions; one flag for all directions of the lattice"
    )
    spacing: float = setting(
        1.0, "lattice constant, unless there is a `cell`", unit="angstrom", gt=0, allow_inf_nan=False
    )
    cell: _Vectors | None = setting(None, "three lattice vectors, for kind `given`", unit="angstrom")
    basis: _Vectors = setting([[0.0, 0.0, 0.0]], "atoms of a cell, in fractions of its vectors")
    moments: Numbers = setting(
        [1.0], "magnetic moment: one, or one for each basis atom, or one for each site", unit="mu_B"
    )
    vacant: Sites = setting([], "sites without a spin, as numbers or as a flag for each site")
    pinned: Sites = setting([], "sites that keep their direction, as numbers or as a flag for each site")
    pin_edges: bool = setting(False, "pin the sites in the last cells of directions that are not periodic")
    tolerance: float = setting(
        1e-3, "largest difference of distances within one shell of neighbours", unit="angstrom", gt=0
    )

    @model_validator(mode="before")
    @classmethod
    def _given(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("cell") is not None and "kind" not in values:
            return {**values, "kind": "given"}
        return values

    @model_validator(mode="after")
    def _sound(self) -> Self:
        dimensions, found = DIMENSIONS[self.kind], len(self.repeat)
        if not 1 <= found <= 3:
            raise ValueError(f"repeat: one to three numbers of cells are needed, got {found}")
        for direction, number in enumerate(self.repeat):
            if number < 1:
                raise ValueError(f"repeat: {number} cells along direction {direction}; at least 1 is needed")
            if number > 1 and direction >= dimensions:
                raise ValueError(
                    f"repeat: a {self.kind} lattice repeats along {dimensions} direction(s) only, got {self.repeat}; "
                    f"choose another kind"
                )
        flags = [] if isinstance(self.periodic, bool) else self.periodic
        if len(flags) > 3 or any(flags[dimensions:]):
            raise ValueError(
                f"periodic: a {self.kind} lattice has {dimensions} direction(s), got {self.periodic}; shorten the list"
            )
        if (self.kind == "given") != (self.cell is not None):
            raise ValueError("cell: belongs to kind `given`, which needs one; give both or neither")
        if len(self.vectors) != 3 or abs(np.linalg.det(self.vectors)) < 1e-9 * np.prod(
            np.linalg.norm(self.vectors, axis=1)
        ):
            raise ValueError("cell: three vectors are needed that do not lie in a plane")
        if not self.basis:
            raise ValueError("basis: there is no atom in it; give at least one")
        if self.n_sites > MOST_SITES:
            raise ValueError(f"repeat: {self.n_sites:,} sites are more than {MOST_SITES:,}; take fewer cells")
        indices("vacant", self.vacant, self.n_sites, "sites")
        if self.n_spins == 0:
            raise ValueError("vacant: every site is vacant; leave at least one spin")
        pinned = indices("pinned", self.pinned, self.n_sites, "sites")
        both = np.intersect1d(pinned, self._vacancies())
        if len(both):
            raise ValueError(f"pinned: site {both[0]} is vacant, so it cannot be pinned; remove it")
        if len(self.moments) not in (1, len(self.basis), self.n_sites):
            raise ValueError(
                f"moments: {len(self.moments)} numbers; give 1, or {len(self.basis)} for the basis, or {self.n_sites} "
                f"for the sites"
            )
        for index, moment in enumerate(self.moments):
            if not moment > 0:
                raise ValueError(
                    f"moments: number {index} is {moment}; moments are positive, and a site without one is vacant"
                )
        return self

    @classmethod
    def from_atoms(
        cls,
        atoms: Atoms,
        repeat: Sequence[int] = (1, 1, 1),
        species: str | Sequence[str] | None = None,
        **settings: Any,
    ) -> SpinLattice:
        """Make the lattice of an ASE ``Atoms``: its cell, its atoms as the basis, and its periodicity.

        species: chemical symbols of the magnetic atoms; all by default. Other settings are passed on.

        If there are initial magnetic moments, their magnitudes are taken, and atoms without a moment are left out.

        Raises:
            InputError: no atom is left, or an initial moment is a vector that is not finite.
        """
        wanted = {species} if isinstance(species, str) else None if species is None else set(species)
        chosen = [i for i, symbol in enumerate(atoms.symbols) if wanted is None or symbol in wanted]
        if not chosen:
            present = ", ".join(sorted(set(atoms.symbols))) or "none"
            raise InputError(
                f"SpinLattice.from_atoms: no atom is of {sorted(wanted or [])}; there are: {present}"
            )
        moments = np.abs(np.asarray(atoms.get_initial_magnetic_moments(), dtype=float))
        if moments.ndim == 2:
            moments = np.linalg.norm(moments, axis=1)
        if not np.isfinite(moments).all():
            raise InputError("SpinLattice.from_atoms: an initial magnetic moment is not finite; correct it")
        if moments[chosen].any():
            chosen = [i for i in chosen if moments[i] > 0]
            settings.setdefault("moments", moments[chosen].tolist())
        vectors = atoms.cell.complete().array  # a direction without a cell vector gets one of unit length
        settings.setdefault("periodic", atoms.pbc.tolist())
        return cls(
            kind="given",
            cell=vectors.tolist(),
            basis=np.linalg.solve(vectors.T, atoms.positions[chosen].T).T.tolist(),
            repeat=list(repeat),
            **settings,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of unit cells along the three directions."""
        a, b, c = (*self.repeat, 1, 1)[:3]
        return a, b, c

    @property
    def pbc(self) -> tuple[bool, bool, bool]:
        """(3,) bool, true along periodic directions."""
        flags = [self.periodic] * DIMENSIONS[self.kind] if isinstance(self.periodic, bool) else self.periodic
        a, b, c = (*flags, False, False, False)[:3]
        return a, b, c

    @property
    def vectors(self) -> Floats:
        """(3, 3) lattice vectors of a unit cell as rows, angstrom."""
        if self.cell is not None:
            return np.array(self.cell, dtype=np.float64)
        return self.spacing * np.array(CELLS[self.kind], dtype=np.float64)

    @property
    def offsets(self) -> Floats:
        """(n_basis, 3) positions of the basis in the first cell, angstrom."""
        found: Floats = np.array(self.basis, dtype=np.float64) @ self.vectors
        return found

    @property
    def n_sites(self) -> int:
        """Number of sites, vacant or not."""
        return math.prod(self.shape) * len(self.basis)

    @property
    def n_spins(self) -> int:
        """Number of spins: rows of ``x`` for one problem."""
        return self.n_sites - len(self._vacancies())

    @property
    def sites(self) -> IntegerArray:
        """(n_spins,) number of each spin's site."""
        return np.setdiff1d(np.arange(self.n_sites), self._vacancies())

    @property
    def site_positions(self) -> Floats:
        """(n_sites, 3) positions of all sites, angstrom."""
        found: Floats = self._cells()[:, None] @ self.vectors + self.offsets
        return found.reshape(-1, 3)

    @property
    def positions(self) -> Floats:
        """(n_spins, 3) positions of the spins, angstrom."""
        return self.site_positions[self.sites]

    @property
    def pinned_rows(self) -> NDArray[np.bool_]:
        """(n_spins,) bool, true for pinned spins."""
        flags = np.zeros(self.n_sites, dtype=bool)
        flags[indices("pinned", self.pinned, self.n_sites, "sites")] = True
        if self.pin_edges:
            cells = np.repeat(self._cells(), len(self.basis), axis=0)
            for direction, (number, periodic) in enumerate(zip(self.shape, self.pbc, strict=True)):
                if number > 1 and not periodic:
                    flags |= (cells[:, direction] == 0) | (cells[:, direction] == number - 1)
        return flags[self.sites]

    @property
    def spin_moments(self) -> Floats:
        """(n_spins,) magnetic moments, mu_B."""
        return np.resize(np.array(self.moments, dtype=np.float64), self.n_sites)[
            self.sites
        ]  # repeats one value, or those of the basis

    def label(self, row: int) -> str:
        """Return the site of a row of one problem, for messages."""
        site = int(self.sites[row])
        cell, atom = divmod(site, len(self.basis))
        a, b, c = self._cells()[cell].tolist()
        return f"site {site} (cell {a}, {b}, {c}" + (f"; atom {atom})" if len(self.basis) > 1 else ")")

    def bonds(self, shells: int) -> Bonds:
        """Return the first ``shells`` shells of neighbours that exist in a lattice of this extent.

        Along a direction that is not periodic, a lattice of n cells has no neighbours n or more cells away. The second
        neighbours of a chain are therefore two cells away, and a layer has the shells of a layer.
        """
        limits = [
            None if periodic else number - 1 for number, periodic in zip(self.shape, self.pbc, strict=True)
        ]
        return find_bonds(self.vectors, self.offsets, limits, shells, self.tolerance)

    def pairs(
        self, first: IntegerArray, second: IntegerArray, translation: IntegerArray
    ) -> tuple[IntegerArray, IntegerArray, IntegerArray]:
        """Return the pairs of rows that a unit cell's bonds make all over the lattice: bond, row, row (each (q,)).

        In a periodic lattice of one or two cells several bonds join the same two spins, and each counts.
        """
        shape, cells = np.array(self.shape), self._cells()
        target = cells[None] + translation[:, None]  # (bonds, cells, 3)
        inside = (((target >= 0) & (target < shape)) | np.array(self.pbc)).all(-1)
        bond, start = np.nonzero(inside)
        a, b, c = (target[bond, start] % shape).T
        stop = a + shape[0] * (b + shape[1] * c)
        row = np.full(self.n_sites, -1)
        row[self.sites] = np.arange(self.n_spins)
        i = row[first[bond] + len(self.basis) * start]
        j = row[second[bond] + len(self.basis) * stop]
        there = (i >= 0) & (j >= 0)
        return bond[there], i[there], j[there]

    def _cells(self) -> IntegerArray:
        """Return (n_cells, 3) the place of each cell along the three directions; the first runs fastest."""
        a, b, c = self.shape
        counted = np.unravel_index(np.arange(a * b * c), (c, b, a))
        return np.stack(counted[::-1], -1).astype(np.int64)

    def _vacancies(self) -> list[int]:
        return indices("vacant", self.vacant, self.n_sites, "sites")
