"""What a structure carries besides what mlopt computes with: tags, charges, magnetic moments, other columns, and info.

It belongs to the atoms, not to their places: moves change positions and never the order of atoms, so it stays true.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.elements import MASSES
from mlopt.core.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

#: columns of ASE that Systems holds itself
_OWN_ARRAYS = ("numbers", "positions", "masses", "move_mask")
#: results and velocities: they belong to the positions that were read
_STALE = re.compile(
    r"(?:.*_)?(?:energy|energies|forces?|stress|stresses|virials?|momenta|velocit(?:y|ies)|velo"
    r"|dipole|polari[sz]ation|magmoms?|charges)",
    re.IGNORECASE,
)
_INPUTS = ("initial_charges", "initial_magmoms")
#: info that speaks of the crystal that was read, and that mlopt writes of its own results
_STALE_INFO = frozenset(
    "spacegroup spacegroup_kinds unit_cell occupancy point_group hits rank max_force fmax first_hit quenches "
    "polished_energy start_index force_calls lowest_eigenvalue".split()
)


def _stale(name: str) -> bool:
    return name in _STALE_INFO or (name not in _INPUTS and _STALE.fullmatch(name) is not None)


@dataclass(frozen=True, eq=False)
class Template:
    """Columns and info of one structure. Copied and never changed, so that batches share it.

    arrays: by name, each (n_atoms, ...), read-only. info: by name, about the whole structure.
    """

    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import numpy as np  # commands that only list or validate come by here

        arrays = {name: _words(np.array(array)) for name, array in self.arrays.items()}
        for array in arrays.values():
            array.setflags(write=False)
        object.__setattr__(self, "arrays", MappingProxyType(arrays))
        object.__setattr__(self, "info", MappingProxyType(copy.deepcopy(dict(self.info))))

    @classmethod
    def of(cls, atoms: Atoms) -> Template | None:
        """What ``atoms`` carries, without results and velocities; None where that is nothing."""
        arrays = {
            name: array
            for name, array in atoms.arrays.items()
            if name not in _OWN_ARRAYS and not _stale(name)
        }
        info = {name: value for name, value in atoms.info.items() if not _stale(str(name))}
        return cls(arrays, info) if arrays or info else None

    def dress(self, atoms: Atoms) -> None:
        """Give ``atoms`` copies of the columns and the info."""
        for name, array in self.arrays.items():
            atoms.set_array(name, array)
        atoms.info.update(copy.deepcopy(dict(self.info)))

    def fits(self, n_atoms: int) -> bool:
        """Whether every column has an entry for each of so many atoms."""
        return all(len(array) == n_atoms for array in self.arrays.values())

    def to_json(self) -> str:
        """Everything that is plain data, exactly; objects of other kinds in ``info`` are left out."""
        arrays = {name: _array(array) for name, array in self.arrays.items() if array.dtype.kind in "biufU"}
        return json.dumps({"arrays": arrays, "info": plain(dict(self.info))})

    @classmethod
    def from_json(cls, text: str) -> Template:
        """What `to_json` wrote.

        Raises:
            InputError: something else.
        """
        try:
            given = json.loads(text)
            return cls(
                {name: _restored(one) for name, one in given["arrays"].items()}, _restored(given["info"])
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not what a structure carries: {text[:60]!r}") from error


_LEFT_OUT = object()


def _words(array: NDArray[Any]) -> NDArray[Any]:
    """ASE reads words as an array of objects, which no file of ours could hold."""
    worded = array.dtype.kind == "O" and all(isinstance(one, str) for one in array.flat)
    return array.astype(str) if worded else array


def _array(array: NDArray[Any]) -> dict[str, Any]:
    return {"__array__": array.dtype.str, "shape": array.shape, "values": array.ravel().tolist()}


def plain(values: Mapping[str, Any], *, mark: bool = True) -> dict[str, Any]:
    """Those of ``values`` that are plain data, for JSON. ``mark`` says what was an array, else these become lists."""
    found = {name: _plain(one, mark) for name, one in values.items() if isinstance(name, str)}
    return {name: one for name, one in found.items() if one is not _LEFT_OUT}


def _plain(value: Any, mark: bool) -> Any:
    """`_LEFT_OUT` where it cannot be."""
    import numpy as np

    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufU":
            return _LEFT_OUT
        return _array(value) if mark else value.tolist()
    if isinstance(value, Mapping):
        return plain(value, mark=mark)
    if isinstance(value, list | tuple):
        parts = [_plain(one, mark) for one in value]
        return _LEFT_OUT if any(part is _LEFT_OUT for part in parts) else parts
    return _LEFT_OUT


def _restored(value: Any) -> Any:
    import numpy as np

    if isinstance(value, dict):
        if "__array__" in value:
            return np.array(value["values"], dtype=value["__array__"]).reshape(value["shape"])
        return {name: _restored(one) for name, one in value.items()}
    return [_restored(one) for one in value] if isinstance(value, list) else value


def make_atoms(
    z: NDArray[Any],
    pos: NDArray[Any],
    cell: NDArray[Any],
    pbc: NDArray[Any],
    fixed: NDArray[Any] | None = None,
    masses: NDArray[Any] | None = None,
    template: Template | None = None,
) -> Atoms:
    """One ASE ``Atoms``: z (n,), pos (n, 3), cell (3, 3), pbc (3,), fixed (n,) bool.

    masses: (n,) amu, NaN for the standard one; written where one differs from that.
    """
    import numpy as np
    from ase import Atoms as AseAtoms
    from ase.constraints import FixAtoms

    atoms = AseAtoms(z, positions=pos, cell=cell, pbc=pbc)
    if fixed is not None and fixed.any():
        atoms.set_constraint(FixAtoms(mask=fixed))
    if masses is not None:
        standard = np.array([MASSES[number] for number in z.tolist()])
        masses = np.where(np.isnan(masses), standard, masses)
        if (masses != standard).any():
            atoms.set_masses(masses)
    if template is not None:
        template.dress(atoms)
    return atoms
