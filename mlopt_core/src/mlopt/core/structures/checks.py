"""Checks of structures, before any work starts."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import derive, normal
from mlopt.core.errors import InputError
from mlopt.core.geometry.lattice import reduced_vectors
from mlopt.core.lazy import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

#: atoms in one structure beyond which it is taken for a mistake
MOST_ATOMS = 1_000_000
#: atoms closer than this count as coincident, angstrom or reduced
COINCIDENT = 1e-3
#: coordinates and entries of cells beyond which they are taken for a mistake, angstrom or reduced
MOST_DISTANT = 1e9
# volume that the periodic cell vectors span, relative to orthogonal ones, below which they count as dependent
_FLAT = 1e-6
# neighbours per atom, itself among them, beyond which the pairs are too many to list
_CROWDED = 50
# `separate` moves an atom by this many least distances, and the number of its attempts
_NUDGE, _NUDGES = 100.0, 10


def check_structures(
    systems: Systems, *, source: str = "", least_distance: float = COINCIDENT, separate: bool = False
) -> Systems:
    """Return ``systems`` if they are sound; distances include periodic images.

    source: a file or other origin to name in messages.
    separate: move coincident atoms apart by about ``100 * least_distance`` instead of refusing them. The directions
        depend on the atoms' indices alone.

    Raises:
        InputError: there are no structures, or one has no atoms or over a million. A position or a cell is not finite.
            An atomic number is no element. A periodic direction has no cell vector of its own. Two atoms are closer
            than ``least_distance``; the message names them and their distance.
    """
    head = f"{source}: " if source else ""
    if not len(systems):
        raise InputError(f"{head}there are no structures")
    positions = systems.pos.detach().to("cpu", torch.float64).numpy()
    cells = systems.cell.detach().to("cpu", torch.float64).numpy()
    periodic = systems.pbc.cpu().numpy()
    z, ptr = systems.z.tolist(), systems.ptr.tolist()
    apart: dict[int, Array] = {}  # first row of a structure -> its new positions
    for index, (start, stop) in enumerate(pairwise(ptr)):
        where = f"{head}structure {index} (counted from 0)" if len(systems) > 1 else f"{head}the structure"
        own, cell, pbc = positions[start:stop], cells[index], periodic[index]
        _check_values(where, own, z[start:stop])
        _check_cell(where, cell, pbc, least_distance)
        close = coincident_pairs(own, cell, pbc, least_distance)
        if close and not separate:
            first, second, distance = close[0]
            symbols = f"{SYMBOLS[z[start + first]]} and {SYMBOLS[z[start + second]]}"
            more = f", and {len(close) - 1} more pairs" if len(close) > 1 else ""
            raise InputError(
                f"{where}: atoms {first} and {second} ({symbols}) are {distance:.3g} apart, less than "
                f"{least_distance:g}{more}. Remove duplicates, check the units, "
                f"or set `separate: true` beside `file` to nudge them apart."
            )
        for attempt in range(_NUDGES):
            if not close:
                break
            own = _nudged(own, sorted({second for _, second, _ in close}), attempt, _NUDGE * least_distance)
            apart[start] = own
            close = coincident_pairs(own, cell, pbc, least_distance)
        if close:
            raise InputError(
                f"{where}: {len(close)} pairs of atoms could not be moved apart; the cell is too small."
            )
    if not apart:
        return systems
    pos = systems.pos.detach().clone()
    for start, own in apart.items():
        pos[start : start + len(own)] = torch.from_numpy(own).to(pos)
    return systems.with_pos(pos)


def check_same_atoms(
    found: Systems,
    own: Systems,
    source: str,
    reference: str,
    *,
    any_order: bool = False,
    tells_fixed: bool = True,
) -> None:
    """Refuse a structure whose atoms are not those of another; both are batches of one.

    source, reference: the names of the two in messages, such as ``end.extxyz`` and ``the system``.
    any_order: accept the same atoms in another order.
    tells_fixed: False for a file format without constraints. Atoms that are fixed in ``own`` are then assumed to be
        fixed in the file.

    Raises:
        InputError: the two differ in number or species of atoms, in cell or periodicity, or in fixed atoms.
    """
    count, wanted = len(found.z), len(own.z)
    if count != wanted:
        what = "add" if count < wanted else "remove"
        raise InputError(
            f"{source} has {count} atoms and {reference} {wanted}; a path keeps its atoms: {what} {abs(count - wanted)}"
        )
    unlike = torch.nonzero(found.z != own.z).flatten()
    like = bool((found.z.sort().values == own.z.sort().values).all())
    if len(unlike) and not (any_order and like):
        atom = int(unlike[0])
        hint = (
            "the composition is the same, so put the atoms of one in the order of the other"
            if like
            else "a path keeps its atoms"
        )
        raise InputError(
            f"{source}: atom {atom} is {SYMBOLS[int(found.z[atom])]}, in {reference} it is "
            f"{SYMBOLS[int(own.z[atom])]} ({len(unlike)} atoms differ); {hint}"
        )
    if bool((found.pbc != own.pbc).any()):
        raise InputError(
            f"{source}: periodic directions are {found.pbc[0].tolist()}, those of {reference} {own.pbc[0].tolist()}; "
            f"give both the same"
        )
    off = float((found.cell - own.cell).abs().max())
    if bool(own.pbc.any()) and off > 1e-6:
        raise InputError(
            f"{source}: its cell differs from that of {reference} by up to {off:.3g}; a path keeps its cell, so relax "
            f"all states in one cell"
        )
    if tells_fixed or bool(found.fixed.any()):
        _check_same_fixed(found, own, source, reference, in_order=not len(unlike))


def _check_same_fixed(found: Systems, own: Systems, source: str, reference: str, in_order: bool) -> None:
    """Refuse other fixed atoms; if atoms may be in another order, other numbers of fixed atoms of a species."""
    if in_order:
        different = found.fixed != own.fixed
        listed = torch.nonzero(different).flatten().tolist()
        names = [f"{atom} ({SYMBOLS[int(own.z[atom])]})" for atom in listed]
        here = bool(found.fixed[listed[0]]) if listed else False
        mixed = bool((found.fixed[different] != here).any())
    else:
        held = [Counter(one.z[one.fixed].tolist()) for one in (found, own)]
        more = {z: held[0][z] - held[1][z] for z in sorted(held[0] | held[1])}
        names = [f"of {SYMBOLS[z]} ({abs(d)})" for z, d in more.items() if d]
        here, mixed = max(more.values(), default=0) > 0, min(more.values(), default=0) < 0
        mixed = mixed and here
    if not names:
        return
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    atoms = "atom" if in_order and len(names) == 1 else "atoms"
    how = (
        "fixed in one and free in the other"
        if mixed
        else f"{'fixed' if here else 'free'} there and {'free' if here else 'fixed'} in {reference}"
    )
    raise InputError(
        f"{source}: {atoms} {shown}: {how}; a path needs the same fixed atoms (FixAtoms) in all its states, "
        f"so fix or free them alike"
    )


def coincident_pairs(
    positions: Array, cell: Array, pbc: NDArray[np.bool_], least_distance: float = COINCIDENT
) -> list[tuple[int, int, float]]:
    """Return pairs ``(first, second, distance)`` of atoms or their images closer than ``least_distance``, sorted.

    positions: (n, 3), finite. cell: (3, 3), vectors as rows, independent where pbc (3,) is true.

    Where very many atoms coincide, each is paired with the first of them only, because all pairs would not fit into
    memory.
    """
    import numpy as np
    from scipy.spatial import cKDTree

    index = np.arange(len(positions))
    if pbc.any():
        positions, index = _with_images(positions, cell, pbc, least_distance)
    found: dict[tuple[int, int], float] = {}
    tree = cKDTree(positions)
    crowded = tree.count_neighbors(tree, least_distance) > _CROWDED * len(positions)
    near = (
        _stars(tree, least_distance) if crowded else tree.query_pairs(least_distance, output_type="ndarray")
    )
    for a, b in near.tolist():
        first, second = sorted((int(index[a]), int(index[b])))
        if first != second:
            distance = float(np.linalg.norm(positions[a] - positions[b]))
            if distance < least_distance:
                found[first, second] = min(distance, found.get((first, second), distance))
    return [(first, second, distance) for (first, second), distance in sorted(found.items())]


def _stars(tree: Any, least_distance: float) -> NDArray[np.int64]:
    """Return (n_pairs, 2) pairs of a point with its later neighbours, for points that are near no earlier one."""
    import numpy as np

    later = np.ones(tree.n, dtype=bool)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for first in range(tree.n):
        if later[first]:
            near = np.array(tree.query_ball_point(tree.data[first], least_distance), dtype=np.int64)
            near = near[(near > first) & later[near]]
            later[near] = False
            pairs.append(np.stack([np.full_like(near, first), near], axis=1))
    return np.concatenate(pairs)


def _check_values(where: str, positions: Array, z: list[int]) -> None:
    import numpy as np

    if not len(positions):
        raise InputError(f"{where} has no atoms")
    if len(positions) > MOST_ATOMS:
        raise InputError(
            f"{where} has {len(positions):,} atoms; more than {MOST_ATOMS:,} are taken for a mistake"
        )
    strange = [number for number in z if not 0 <= number < len(SYMBOLS)]
    if strange:
        raise InputError(f"{where}: {strange[0]} is not an atomic number (0 to {len(SYMBOLS) - 1})")
    sound = (np.abs(positions) <= MOST_DISTANT).all(1)  # false for what is not finite
    if not sound.all():
        atom = int(np.argmin(sound))
        shown = ", ".join(f"{value:g}" for value in positions[atom])
        beyond = f", beyond {MOST_DISTANT:g}" if np.isfinite(positions[atom]).all() else ""
        raise InputError(
            f"{where}: atom {atom} ({SYMBOLS[z[atom]]}) is at ({shown}){beyond}: correct its coordinates"
        )


def _check_cell(where: str, cell: Array, pbc: NDArray[np.bool_], least_distance: float) -> None:
    import numpy as np

    if not np.isfinite(cell).all():
        raise InputError(f"{where}: the cell {cell.tolist()} has an entry that is not finite")
    if not (np.abs(cell) <= MOST_DISTANT).all():
        raise InputError(
            f"{where}: the cell {cell.tolist()} has an entry beyond {MOST_DISTANT:g}: correct it"
        )
    if not pbc.any():
        return
    vectors = cell[pbc]
    lengths = np.linalg.norm(vectors, axis=1)
    for name, length in zip(np.array(list("abc"))[pbc], lengths.tolist(), strict=True):
        if 0.0 < length <= COINCIDENT:
            raise InputError(
                f"{where} is periodic along {name}, but this cell vector is {length:.3g} long, so that atoms meet "
                f"their own images. Check the units"
            )
    if (lengths > 0).all():
        unit = vectors / lengths[:, None]
        if np.sqrt(max(0.0, np.linalg.det(unit @ unit.T))) > _FLAT:
            shortest = float(np.linalg.norm(reduced_vectors(cell, pbc)[0]))
            if shortest >= least_distance:
                return
            raise InputError(
                f"{where} repeats every {shortest:.3g}, so each atom is less than {least_distance:g} from an image of "
                f"itself. Correct the cell vectors {vectors.tolist()}, or check their units."
            )
    directions = " ".join(name for name, on in zip("abc", pbc, strict=True) if on)
    raise InputError(
        f"{where} is periodic along {directions}, but its cell vectors {vectors.tolist()} are zero or not independent. "
        f"Give the cell, or switch periodicity off (pbc)."
    )


def _with_images(
    positions: Array, cell: Array, pbc: NDArray[np.bool_], margin: float
) -> tuple[Array, NDArray[np.int64]]:
    """Return the atoms wrapped into the reduced cell, with copies of those within ``margin`` of a face.

    Each copy is behind the opposite face.
    """
    import numpy as np
    from ase.geometry import complete_cell

    # faces of a skewed cell can be nearer than the margin where those of the reduced one are not
    reduced = np.zeros((3, 3))
    reduced[pbc] = reduced_vectors(cell, pbc)
    whole = complete_cell(reduced)
    inverse = np.linalg.inv(whole)
    fractional = positions @ inverse
    fractional -= np.floor(fractional) * pbc
    index = np.arange(len(positions))
    for direction in np.flatnonzero(pbc):
        # of the margin in fractions of the cell; it may be wider than the cell
        width = 2.0 * margin * float(np.linalg.norm(inverse[:, direction]))
        step, along = np.eye(3)[direction], fractional[:, direction]
        parts = [(along > -np.inf, 0.0)]
        for turns in range(1, int(np.ceil(width)) + 1):
            parts += [(along < 1.0 + width - turns, turns), (along > turns - width, -turns)]
        fractional = np.concatenate([fractional[chosen] + turns * step for chosen, turns in parts])
        index = np.concatenate([index[chosen] for chosen, _ in parts])
    return fractional @ whole, index


def _nudged(positions: Array, atoms: list[int], attempt: int, length: float) -> Array:
    """Return ``positions`` with some ``atoms`` moved by ``length``, each in its own direction."""
    keys = derive(attempt, torch.tensor(atoms))
    direction = normal(keys, torch.zeros(len(atoms), dtype=torch.int64), 3)
    direction = direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
    moved = positions.copy()
    moved[atoms] += length * direction.numpy()
    return moved
