"""Results of an ASE calculator for one structure, checked: numbers of the right shape, or a reason.

The energy is the one whose gradient the forces are: ``free_energy`` if the calculator has it. A calculator that smears
electrons extrapolates its ``energy`` to zero width, and the forces are no gradient of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ase import Atoms

Floats = NDArray[np.float64]


class BadResultError(ValueError):
    """The error for a result that cannot be an energy, forces or a stress."""


@dataclass(frozen=True)
class Answer:
    """The results for one structure.

    energy: the energy whose negative gradient the forces (n, 3) are, eV.
    zero_width: the energy extrapolated to zero smearing, eV; equal to ``energy`` without smearing.
    stress: (3, 3) eV/angstrom^3, or None if it was not asked for.
    """

    energy: float
    forces: Floats
    zero_width: float
    stress: Floats | None = None


def ask(calculator: Any, atoms: Atoms, stress: bool = False) -> Answer:
    """Return the results of one new calculation, without the effect of the atoms' constraints.

    Raises:
        BadResultError: a result of a wrong kind or shape. Exceptions of the calculator pass through.
    """
    if hasattr(calculator, "reset"):
        calculator.reset()
    atoms.calc = calculator
    energy, zero_width = _energies(calculator, atoms)
    n = len(atoms)
    forces = _numbers(atoms.get_forces(apply_constraint=False), (n, 3), "forces")
    tensor = _stress(atoms) if stress else None
    converged = getattr(
        calculator, "converged", None
    )  # some say it and return the numbers of the last iteration
    if isinstance(converged, bool | np.bool_) and not converged:
        raise BadResultError("the calculator has not converged")
    return Answer(
        energy, forces, zero_width, None if tensor is None else _numbers(tensor, (3, 3), "the stress")
    )


def _stress(atoms: Atoms) -> Any:
    from ase.calculators.calculator import PropertyNotImplementedError

    try:
        return atoms.get_stress(voigt=False, apply_constraint=False)
    except PropertyNotImplementedError:
        return None


def _energies(calculator: Any, atoms: Atoms) -> tuple[float, float]:
    from ase.calculators.calculator import PropertyNotImplementedError

    free: float | None = None
    if "free_energy" in (getattr(calculator, "implemented_properties", None) or ()):
        try:
            free = _free(atoms.get_potential_energy(force_consistent=True, apply_constraint=False))
        except PropertyNotImplementedError:  # promised in general, and missing in this calculation
            free = None
    energy = _energy(atoms.get_potential_energy(apply_constraint=False))
    if free is None:  # calculators that do not say what they implement
        results = getattr(calculator, "results", None)
        free = _free(results.get("free_energy") if isinstance(results, dict) else None)
    return (energy if free is None else free), energy


def _free(value: object) -> float | None:
    return None if value is None else _energy(value)


def _energy(value: object) -> float:
    array = _plain(value, "the energy")
    if array.size != 1:
        raise BadResultError(f"the energy is an array of shape {array.shape}, not one number")
    return float(array.reshape(()))


def _numbers(value: object, shape: tuple[int, ...], name: str) -> Floats:
    array = _plain(value, name)
    if array.shape != shape:
        raise BadResultError(
            f"{name} have shape {array.shape}, not {shape}".replace("stress have", "stress has")
        )
    return array.astype(np.float64)


def _plain(value: object, name: str) -> NDArray[Any]:
    """Return a value as an array of integers or floats."""
    if value is None:
        raise BadResultError(f"{name}: None instead of numbers")
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of unlike lengths
        raise BadResultError(f"{name}: {error}") from error
    if array.dtype.kind not in "iuf":
        raise BadResultError(f"{name}: values of type {array.dtype}, not real numbers")
    return array
