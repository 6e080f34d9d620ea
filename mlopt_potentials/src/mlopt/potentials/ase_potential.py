"""Any ASE calculator as a potential of mlopt: one call per system."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr, field_validator

from mlopt.core.elements import NUMBERS, SYMBOLS
from mlopt.core.errors import InputError
from mlopt.core.evaluation import Evaluation
from mlopt.core.lazy import torch
from mlopt.core.plugin import setting
from mlopt.core.potential import Potential
from mlopt.core.quoting import quoted
from mlopt.core.systems import Systems

if TYPE_CHECKING:
    from ase import Atoms

log = logging.getLogger(__name__)

#: calculators of ASE that a configuration may name: those that start no other program and read no pickle
CALCULATORS = ("eam", "emt", "lj", "morse", "tip3p", "tip4p")


class AsePotential(Potential):
    """An ASE calculator, named in a configuration or given in Python: ``AsePotential.wrap(EMT())``.

    Not differentiable. A calculator that raises for one system fails that system alone, with NaN energy. It is reset
    before every call, so that neighbour lists and wave functions that it may keep cannot make a result depend on what
    was computed before.
    """

    differentiable = False

    calculator: str = setting(doc="name of the calculator in ASE: " + ", ".join(CALCULATORS))
    parameters: dict[str, Any] = setting({}, "what the calculator's constructor takes")

    _given: Any = PrivateAttr(default=None)
    _reported: set[str] = PrivateAttr(default_factory=set)

    @classmethod
    def wrap(cls, calculator: Any) -> AsePotential:
        """From a calculator object, of whatever kind. Its parameters then cannot be shown by `config`."""
        made = cls.model_construct(calculator=type(calculator).__name__, parameters={})
        made._given = calculator
        return made

    @field_validator("calculator")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in CALCULATORS:
            # others start programs with a command line of the configuration's choice, or unpickle what they download
            raise ValueError(
                f"no calculator {quoted(name)} for use in a configuration; there are {', '.join(CALCULATORS)}. Any "
                f"other can be given in Python: AsePotential.wrap(calculator)"
            )
        return name

    def energy(self, systems: Systems) -> torch.Tensor:
        """Energy of each system: (n_systems,), without gradient."""
        return self.evaluate(systems).energy

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        """Energy, force, and stress where asked for; NaN for a system at which the calculator raises."""
        import numpy as np

        calculator = self._calculator()
        energy = np.full(len(systems), np.nan)
        force = np.full(tuple(systems.pos.shape), np.nan)
        tensor = np.full((len(systems), 3, 3), np.nan)
        ptr = systems.ptr.tolist()
        for index, atoms in enumerate(systems.to_atoms()):
            if not len(atoms):
                energy[index] = 0.0
            if not len(atoms) or not np.isfinite(atoms.positions).all():
                continue
            try:
                found = _compute(calculator, atoms, stress and atoms.cell.rank == 3)
            except Exception as error:  # whatever a calculator raises, the other systems go on
                self._report(error, index)
                continue
            energy[index], force[ptr[index] : ptr[index + 1]] = found[0], found[1]
            if found[2] is not None:
                tensor[index] = found[2]
        like = systems.pos
        return Evaluation(
            torch.from_numpy(energy).to(like),
            torch.from_numpy(force).to(like),
            stress=torch.from_numpy(tensor).to(like) if stress else None,
        )

    def check(self, systems: Systems) -> None:
        """Try the calculator once for each set of elements and boundaries that occurs.

        Periodic systems are tried as they are. Free clusters, whose start may not have been drawn yet, are tried as a
        chain of their elements.

        Raises:
            InputError: the calculator raises, or its result is not finite.
        """
        import numpy as np

        calculator = self._calculator()
        tried = set()
        for atoms in systems.to_atoms():
            kind = (frozenset(atoms.numbers.tolist()), tuple(atoms.pbc.tolist()))
            if kind in tried or not len(atoms):
                continue
            tried.add(kind)
            trial = atoms if atoms.pbc.any() else _chain(sorted(kind[0]))
            what = "a system of " + " and ".join(SYMBOLS[number] for number in sorted(kind[0]))
            try:
                found = _compute(calculator, trial, False)
            except Exception as error:
                raise InputError(
                    f"the ASE calculator {quoted(self.calculator)} cannot treat {what}: "
                    f"{_cause(error)}. Change the system, or the calculator and its parameters."
                ) from error
            if not (np.isfinite(found[0]) and np.isfinite(found[1]).all()):
                raise InputError(
                    f"the ASE calculator {quoted(self.calculator)} gives a non-finite energy or force for "
                    f"{what}. Check its parameters and the distances between the atoms."
                )

    def _calculator(self) -> Any:
        """The calculator that was given, or a new one.

        Raises:
            InputError: its constructor raises.
        """
        if self._given is not None:
            return self._given
        from ase.calculators.calculator import get_calculator_class

        try:
            return get_calculator_class(self.calculator)(**self.parameters)
        except Exception as error:
            raise InputError(
                f"ase: calculator {quoted(self.calculator)} with parameters {self.parameters} cannot be made: "
                f"{_cause(error)}"
            ) from error

    def _report(self, error: Exception, index: int) -> None:
        """Log each cause once: a calculator that fails at every step would fill the log."""
        cause = _cause(error)
        if cause not in self._reported:
            self._reported.add(cause)
            log.warning(
                "ASE calculator %r failed for system %d, which gets NaN: %s", self.calculator, index, cause
            )


def _compute(calculator: Any, atoms: Atoms, stress: bool) -> tuple[float, Any, Any]:
    """Energy, forces (n, 3), and stress (3, 3) or None."""
    if hasattr(calculator, "reset"):
        calculator.reset()
    atoms.calc = calculator
    energy = float(atoms.get_potential_energy())
    forces = atoms.get_forces(apply_constraint=False)
    return energy, forces, atoms.get_stress(voigt=False, apply_constraint=False) if stress else None


def _chain(numbers: list[int]) -> Atoms:
    """One atom of each element in a row, neighbours at the sum of their covalent radii; twice, so that all touch."""
    from ase import Atoms
    from ase.data import covalent_radii

    row = numbers * 2
    place, places = 0.0, []
    for left, right in zip([row[0], *row], row, strict=False):
        place += float(covalent_radii[left] + covalent_radii[right])
        places.append((place, 0.0, 0.0))
    return Atoms(row, positions=places)


def _cause(error: Exception) -> str:
    text = " ".join(str(error).split())
    if (
        isinstance(error, KeyError) and text.strip("'") in NUMBERS
    ):  # calculators look elements up in dictionaries
        text = f"it does not know {text}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
