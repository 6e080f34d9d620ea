"""The trial of an ASE calculator before a run: its structure, and whether forces agree with the energy."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from mlopt.core.errors import InputError
from mlopt.potentials.ase.results import Answer, ask

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

#: calculators for whole molecules of water only
WATER = ("tip3p", "tip4p")
#: root mean square displacements of a coordinate in the differences, angstrom: the first is large enough for energies
#: that repeat to 1e-7, the second tells a strong curvature apart, whose error falls with the square
_STEPS = (0.01, 0.0025)
#: by what slope and forces may differ: this share of the forces' norm; this share of 1 + |energy|, for noise, over the
#: step; and the share of a first difference that has to be left at the second step
_SHARE, _NOISE, _LEFT = 0.01, 1e-6, 0.5
#: atoms of a trial cluster at least, and how far they are off its grid, in units of their distance
_SMALLEST, _DISORDER = 8, 0.04
_APART = 3.0  # angstrom between molecules of water


def trial_structure(atoms: Atoms, calculator: str) -> Atoms:
    """Return the atoms themselves if they have positions; for a formula a cluster, or molecules of water.

    Raises:
        InputError: a formula of water whose atoms are not in the order of whole molecules.
    """
    if atoms.pbc.any() or (len(atoms) and np.ptp(atoms.positions, axis=0).any()):
        return atoms
    if calculator in WATER:
        return _waters(atoms.numbers.tolist(), calculator)
    return _clump(sorted(set(atoms.numbers.tolist())))


def mismatch(calculator: Any, atoms: Atoms, answer: Answer) -> tuple[int, tuple[float, float] | None]:
    """Compare the slope of the energy along one random direction, by central differences, with the forces.

    Return the number of calculations, which is two, or four if the first two disagree. Return also both slopes, or
    None. None means that they agree within noise and curvature, or that no difference could be computed.
    """
    way = np.random.default_rng(0).normal(size=answer.forces.shape)
    way /= math.sqrt(float(np.mean(way**2))) or 1.0
    told = -float((answer.forces * way).sum())
    before, calls = 0.0, 0
    for step in _STEPS:
        calls += 2
        slope = _slope(calculator, atoms, step * way) / step
        noise = _NOISE * (1.0 + abs(answer.energy)) / step
        off = abs(slope - told)
        if not off > max(_SHARE * float(np.linalg.norm(answer.forces)) + noise, _LEFT * before):
            return calls, None
        before = off
    return calls, (slope, told)


def _slope(calculator: Any, atoms: Atoms, shift: NDArray[np.float64]) -> float:
    """Return half the difference of the energies at ``shift (n, 3)`` and at its opposite; NaN if one fails."""
    energies = []
    for sign in (1.0, -1.0):
        moved = atoms.copy()
        moved.set_constraint()
        moved.positions += sign * shift
        try:
            energies.append(ask(calculator, moved).energy)
        except Exception:  # a failure at a displaced point says nothing about the forces here
            return math.nan
    return 0.5 * (energies[0] - energies[1])


def _clump(numbers: list[int]) -> Atoms:
    """Return a cluster with each element at least twice, on a slightly distorted cubic grid.

    The grid has the width of the largest element. A chain would be simpler, but the slope of its energy across the
    chain says little.
    """
    from ase import Atoms
    from ase.data import covalent_radii

    n = max(_SMALLEST, 2 * len(numbers))
    side = math.ceil(n ** (1 / 3) - 1e-9)
    grid = np.array(list(product(range(side), repeat=3)), dtype=float)[:n]
    grid += _DISORDER * np.random.default_rng(1).normal(size=grid.shape)
    width = 2.0 * max(float(covalent_radii[number]) for number in numbers)
    return Atoms([numbers[k % len(numbers)] for k in range(n)], positions=width * grid)


def _waters(numbers: list[int], calculator: str) -> Atoms:
    from ase import Atoms
    from ase.build import molecule

    if numbers != [8, 1, 1] * (len(numbers) // 3):
        raise InputError(
            f"the ASE calculator {calculator!r} knows water only, as whole molecules in the order O, H, H. Write the "
            f"formula so (OH2OH2), or give a `system.file` with the atoms in this order."
        )
    water, row = molecule("H2O"), Atoms()
    for k in range(len(numbers) // 3):
        one = water.copy()
        one.translate((_APART * k, 0.0, 0.0))
        row += one
    return row
