"""The structures in ``results/minima.extxyz``, lowest first; any kind of run may write that file."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.cli.report.files import number
from mlopt.core.files import atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Minima that are read in full; a long run finds thousands, and a page shows the best.
MINIMA_SHOWN = 50


@dataclass(frozen=True)
class ShownMinimum:
    """One of the ranked minima. positions (n, 3), numbers (n,), cell (3, 3), periodic (3,)."""

    rank: int
    energy: float | None
    point_group: str
    hits: float | None
    start: float | None
    calls: float | None
    fmax: float | None
    formula: str
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    periodic: tuple[bool, bool, bool]


def minimum_of(atoms: Any, place: int) -> ShownMinimum:
    """Read a structure with its facts from the file; the first has place 0."""
    info = dict(atoms.info)
    if atoms.calc is not None:
        info = {**atoms.calc.results, **info}
    group = info.get("point_group", "")
    rank = number(info.get("rank"))
    return ShownMinimum(
        rank=place + 1 if rank is None else int(rank),
        energy=number(info.get("energy")),
        # The extended xyz format reads a bare T (the tetrahedral rotations) as true.
        point_group="T" if group is True or str(group) == "True" else str(group),
        hits=number(info.get("hits")),
        # The second names are those of the minima store.
        start=number(info.get("start", info.get("start_index"))),
        calls=number(info.get("calls", info.get("force_calls"))),
        fmax=number(info.get("fmax", info.get("max_force"))),
        formula=str(atoms.get_chemical_formula()),
        numbers=atoms.get_atomic_numbers(),
        positions=atoms.get_positions(),
        cell=atoms.cell.array,
        periodic=(bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
    )


def read_minima(path: Path, notes: list[str]) -> tuple[tuple[ShownMinimum, ...], int]:
    """Return the lowest minima of a file, and how many it holds."""
    if not path.exists():
        return (), 0
    from ase.io import iread

    minima: list[ShownMinimum] = []
    try:
        # An open file, for ASE reads an @ in a name as an index.
        with io.TextIOWrapper(atomic.open_regular(path), encoding="utf-8") as lines:
            for place, atoms in enumerate(
                itertools.islice(iread(lines, index=":", format="extxyz"), MINIMA_SHOWN)
            ):
                minima.append(minimum_of(atoms, place))
        total = _count_frames(path)
    # ASE raises whatever its parser meets in a torn or foreign file; the report goes on with what was read.
    except Exception as error:
        notes.append(f"{path.name}: {len(minima)} minima could be read, then {type(error).__name__}: {error}")
        total = len(minima)
    ranked = sorted(minima, key=lambda item: math.inf if item.energy is None else item.energy)
    return tuple(ranked), max(total, len(minima))


def _count_frames(path: Path) -> int:
    """Count frames by their sizes alone: a file may hold thousands."""
    frames = 0
    with io.TextIOWrapper(atomic.open_regular(path), encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                for _ in itertools.islice(lines, int(line) + 1):
                    pass
                frames += 1
    return frames
