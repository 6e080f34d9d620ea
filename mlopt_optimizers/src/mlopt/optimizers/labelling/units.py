"""The units of labels, as far as energies and forces tell: the energy must change by the work against the forces."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.lazy import torch

#: a slope of energies against those of forces near one of these tells what the labels are
_SLOPES = {
    -1.0: "forces seem to be gradients, of the other sign",
    23.0605: "energies seem to be in kcal/mol",
    96.4853: "energies seem to be in kJ/mol",
    1.0 / 27.2114: "energies seem to be in hartree",
    1.0 / 13.6057: "energies seem to be in rydberg",
    51.4221: "forces seem to be in hartree/bohr",
    25.7110: "forces seem to be in rydberg/bohr",
    1.88973: "both seem to be in atomic units, hartree or rydberg and these per bohr",
}
#: slopes up to this, or one over it, are those of a poor fit
_FAR = 1.6
#: structures far apart have slopes down to this, because the mean of two forces is too large on a rough way
_LEAST = 0.25
#: energies must go with the work so closely, and so many pairs be there, to be compared; pairs that are looked at
_ALIKE, _FEW, _MOST = 0.8, 5, 500
#: structures in which an atom is farther away, angstrom, are not compared: the way between them may lead anywhere
_APART = 1.0
#: how near, in logarithms, a slope must be to one of those above
_NEAR = 0.15


def unit_of_slope(slope: float, least: float = 1.0 / _FAR) -> str | None:
    """Return the meaning of a slope of energies against the work of forces, in words; None if it may be 1.

    Slopes that fit no usual unit give a general sentence.

    least: the lowest slope that may be 1.
    """
    if least < slope < _FAR:
        return None
    likely = min(_SLOPES, key=lambda one: abs(math.log(slope / one)) if slope * one > 0 else math.inf)
    near = slope * likely > 0 and abs(math.log(slope / likely)) < _NEAR
    return _SLOPES[likely] if near else "one of the two is of another unit or sign"


def unlike_units(data: Dataset) -> str | None:
    """Return a sentence if energies have another unit or sign than forces, and None if they agree.

    Pairs of structures with the same atoms in the same cell are compared. The energy changes by the work against the
    mean force, up to terms of third order in the displacement. Fewer than five pairs, or pairs far apart, give None.
    """
    changes, works = [], []
    for one, other in _pairs(data):
        way = _way(data, one, other)
        if np.linalg.norm(way, axis=1).max(initial=0.0) <= _APART:
            changes.append(float(data.energy[other] - data.energy[one]))
            works.append(_work(data, one, other, way))
    change, work = np.array(changes), np.array(works)
    size = float(np.linalg.norm(change)) * float(np.linalg.norm(work))
    shared = float(change @ work) if len(change) else 0.0
    if len(change) < _FEW or size < 1e-12 or abs(shared) < _ALIKE * size:
        return None
    slope = shared / float(work @ work)
    said = unit_of_slope(slope, _LEAST)
    if said is None:
        return None
    return f"energies differ by {slope:.3g} times the work against the forces: {said}. mlopt takes eV and eV/angstrom"


def _pairs(data: Dataset) -> list[tuple[int, int]]:
    """Return pairs of labelled structures that have the same atoms in the same order, and the same cell."""
    known = (data.with_energy & data.with_force).tolist()
    groups: dict[bytes, list[int]] = {}
    systems = data.systems
    for index, (start, stop) in enumerate(pairwise(systems.ptr.tolist())):
        if known[index]:
            parts = (systems.z[start:stop], systems.cell[index], systems.pbc[index])
            key = b"".join(part.cpu().numpy().tobytes() for part in parts)
            groups.setdefault(key, []).append(index)
    pairs = [pair for group in groups.values() for pair in pairwise(group)]
    pairs += [
        pair for group in groups.values() for pair in combinations(group[:40], 2) if pair[1] - pair[0] > 1
    ]
    return list(dict.fromkeys(pairs))[:_MOST]


def _way(data: Dataset, one: int, other: int) -> NDArray[np.float64]:
    """Return the shortest displacements (n, 3) from one structure to another."""
    from ase.geometry import find_mic

    systems = data.systems
    way = _rows(data, systems.pos, other) - _rows(data, systems.pos, one)
    pbc = systems.pbc[one].cpu().numpy()
    if pbc.any():
        way, _ = find_mic(way, systems.cell[one].cpu().double().numpy(), pbc)
    return way


def _work(data: Dataset, one: int, other: int, way: NDArray[np.float64]) -> float:
    """Return the work against the mean force of two structures by ``way (n, 3)``."""
    force = 0.5 * (_rows(data, data.force, one) + _rows(data, data.force, other))
    return -float((force * way).sum())


def _rows(data: Dataset, values: torch.Tensor, index: int) -> NDArray[np.float64]:
    ends = data.systems.ptr.tolist()
    part: NDArray[np.float64] = values[ends[index] : ends[index + 1]].detach().cpu().double().numpy()
    return part
