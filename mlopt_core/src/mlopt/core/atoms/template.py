"""Templates: the columns and info of a structure that mlopt carries along without using them.

Examples are tags, charges, magnetic moments and other columns. They belong to the atoms, not to their positions. Moves
change positions and never the order of atoms, so templates stay valid.
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
#: info about the crystal that was read, and info that mlopt writes about its own results
_STALE_INFO = frozenset(
    "spacegroup spacegroup_kinds unit_cell occupancy point_group hits rank max_force fmax first_hit quenches "
    "polished_energy start_index force_calls lowest_eigenvalue".split()
)


def _stale(name: str) -> bool:
    return name in _STALE_INFO or (name not in _INPUTS and _STALE.fullmatch(name) is not None)


@dataclass(frozen=True, eq=False)
class Template:
    """The columns and info of one structure. A template never changes, so batches share it.

    arrays: by name, each (n_atoms, ...), read-only. info: by name, about the whole structure.
    """

    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import numpy as np  # not at the top: commands that only list or validate import this module

        arrays = {name: _words(np.array(array)) for name, array in self.arrays.items()}
        for array in arrays.values():
            array.setflags(write=False)
        object.__setattr__(self, "arrays", MappingProxyType(arrays))
        object.__setattr__(self, "info", MappingProxyType(copy.deepcopy(dict(self.info))))

    @classmethod
    def of(cls, atoms: Atoms) -> Template | None:
        """Return the template of ``atoms``, without results and velocities; None if it would be empty."""
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
        """Return whether every column has ``n_atoms`` entries."""
        return all(len(array) == n_atoms for array in self.arrays.values())

    def to_json(self) -> str:
        """Return all plain data as JSON, exactly; other objects in ``info`` are left out."""
        arrays = {name: _array(array) for name, array in self.arrays.items() if array.dtype.kind in "biufU"}
        return json.dumps({"arrays": arrays, "info": plain(dict(self.info))})

    @classmethod
    def from_json(cls, text: str) -> Template:
        """Return the template that `to_json` wrote.

        Raises:
            InputError: the text is something else.
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
    """Return an array of words as an array of strings, which files can hold; ASE reads words as objects."""
    worded = array.dtype.kind == "O" and all(isinstance(one, str) for one in array.flat)
    return array.astype(str) if worded else array


def _array(array: NDArray[Any]) -> dict[str, Any]:
    return {"__array__": array.dtype.str, "shape": array.shape, "values": array.ravel().tolist()}


def plain(values: Mapping[str, Any], *, mark: bool = True) -> dict[str, Any]:
    """Return the entries of ``values`` that are plain data, for JSON.

    mark: write arrays in a form that can be told from lists; otherwise they become lists.
    """
    found = {name: _plain(one, mark) for name, one in values.items() if isinstance(name, str)}
    return {name: one for name, one in found.items() if one is not _LEFT_OUT}


def _plain(value: Any, mark: bool) -> Any:
    """Return the value as plain data, or `_LEFT_OUT` where that is impossible."""
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
    """Return one ASE ``Atoms``: z (n,), pos (n, 3), cell (3, 3), pbc (3,), fixed (n,) bool.

    masses: (n,) amu, NaN for the standard one. They are written only if one differs from the standard.
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
