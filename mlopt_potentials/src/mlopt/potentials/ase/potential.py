"""Any ASE calculator as a potential of mlopt: one call per system."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import AfterValidator, PrivateAttr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.template import plain
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.potential import Potential, Trial
from mlopt.core.lazy import torch
from mlopt.core.plugins.input_file import Reads, absolute_entry
from mlopt.core.plugins.plugin import setting
from mlopt.core.quoting import quoted
from mlopt.core.suggestions import hint
from mlopt.potentials.ase.failures import Failures, cause
from mlopt.potentials.ase.programs import find_program

if TYPE_CHECKING:
    from ase import Atoms

log = logging.getLogger(__name__)

#: calculators of ASE that a configuration may name: those that start no other program and read no pickle
CALCULATORS = ("eam", "emt", "lj", "morse", "tip3p", "tip4p")
#: calculators of the same kind that packages of their own bring: module, class, and settings that are not its defaults
PACKAGED: dict[str, tuple[str, str, dict[str, Any]]] = {"tblite": ("tblite.ase", "TBLite", {"verbosity": 0})}
#: calculators of ASE that start a program, which a configuration cannot choose: ASE's own configuration names it
PROGRAMS = ("abinit", "aims", "espresso", "vasp")
#: arguments of these that would choose a program or where it runs
_CHOOSING = ("command", "profile", "directory")
_KNOWN = (*CALCULATORS, *PACKAGED, *PROGRAMS)


#: of the calculators above only `eam` reads a file
Parameters: TypeAlias = Annotated[
    dict[str, Any], AfterValidator(absolute_entry("potential")), Reads(key="potential")
]


class AsePotential(Potential):
    """An ASE calculator, named in a configuration or given in Python: ``AsePotential.wrap(EMT())``.

    It is not differentiable. If the calculator raises for one system, or returns no valid energy or forces, only that
    system fails, with NaN energy. The calculator is reset before every call. Otherwise a result could depend on
    neighbour lists or wave functions that it kept from earlier calls.
    """

    differentiable = False
    tries = True

    calculator: str = setting(doc="name of the calculator: " + ", ".join(_KNOWN))
    parameters: Parameters = setting({}, "arguments of the calculator's constructor")

    _given: Any = PrivateAttr(default=None)
    _failures: Failures = PrivateAttr(default_factory=Failures)
    _last: str = PrivateAttr(default="")
    #: bytes of a trial -> its warnings
    _tried: dict[bytes, tuple[int, list[str]]] = PrivateAttr(default_factory=dict)

    @classmethod
    def wrap(cls, calculator: Any) -> AsePotential:
        """Return a potential from any calculator object.

        `config` shows the calculator's ``parameters``, as far as they are plain data; ASE's own calculators have such.
        """
        parameters = getattr(calculator, "parameters", None)
        told = plain(parameters, mark=False) if isinstance(parameters, Mapping) else {}
        made = cls.model_construct(calculator=type(calculator).__name__, parameters=told)
        made._given = calculator
        return made

    @field_validator("calculator")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in _KNOWN:
            # others take the command line of a program from the configuration, or unpickle what they download
            raise ValueError(
                f"no calculator {quoted(name)} for use in a configuration.{hint(name, _KNOWN)} There are "
                f"{', '.join(_KNOWN)}. Any other can be given in Python: AsePotential.wrap(calculator)"
            )
        return name

    @model_validator(mode="after")
    def _has_its_file(self) -> Self:
        if self.calculator == "eam" and not self.parameters.get("potential"):
            raise PydanticCustomError(
                "parameters",
                "the calculator 'eam' reads its functions from a file: give `parameters: {potential: FILE}`, such as "
                "a file of LAMMPS or NIST named *.eam.alloy",
            )
        chosen = [name for name in _CHOOSING if name in self.parameters]
        if self.calculator in PROGRAMS and chosen:
            raise PydanticCustomError(
                "parameters",
                f"`{chosen[0]}` of the calculator {self.calculator!r} is not for a configuration: name the program in "
                f"ASE's own, `~/.config/ase/config.ini`; labels run in folders of their own",
            )
        return self

    def energy(self, systems: Systems) -> torch.Tensor:
        """Return the energy of each system: (n_systems,), without gradient."""
        return self.evaluate(systems).energy

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        """Return energy, force, and stress where asked for; NaN for a system at which the calculator fails.

        ``energy`` is the one whose gradient the forces are. Where the calculator also gives the energy extrapolated to
        zero electronic smearing, that is in ``zero_width``.
        """
        import numpy as np

        from mlopt.potentials.ase.results import ask

        calculator, self._last = self._calculator(), ""
        energy, zero_width = np.full((2, len(systems)), np.nan)
        force = np.full(tuple(systems.pos.shape), np.nan)
        tensor = np.full((len(systems), 3, 3), np.nan)
        ptr = systems.ptr.tolist()
        for index, atoms in enumerate(systems.to_atoms()):
            if not len(atoms):
                energy[index] = zero_width[index] = 0.0
            if not len(atoms) or not np.isfinite(atoms.positions).all():
                continue
            try:
                found = ask(calculator, atoms, stress and atoms.cell.rank == 3)
            except Exception as error:  # whatever a calculator raises, the other systems go on
                self._failures.add(self.calculator, error, index)
                self._last = cause(error)
                continue
            energy[index], zero_width[index] = found.energy, found.zero_width
            force[ptr[index] : ptr[index + 1]] = found.forces
            if found.stress is not None:
                tensor[index] = found.stress
        smeared = not np.array_equal(energy, zero_width, equal_nan=True)
        like = systems.pos
        return Evaluation(
            torch.from_numpy(energy).to(like),
            torch.from_numpy(force).to(like),
            stress=torch.from_numpy(tensor).to(like) if stress else None,
            zero_width=torch.from_numpy(zero_width).to(like) if smeared else None,
        )

    def present(self) -> None:
        """Make the calculator, and look for the program that it starts.

        Raises:
            InputError: the calculator is not installed, cannot be made, or its program is missing.
        """
        calculator = self._calculator()
        if self._given is None and self.calculator in PROGRAMS:
            find_program(self.calculator, calculator)

    def check(self, systems: Systems) -> None:
        """Try the calculator, as `trial` does.

        Raises:
            InputError: the calculator raises, or its result is not finite.
        """
        self.trial(systems)

    def trial(self, systems: Systems) -> Trial:
        """Run the calculator once for each set of elements and boundary conditions, and only once in a process.

        Systems with positions are tried as they are. For a formula, whose start may not have been drawn yet, a small
        cluster of its elements is tried. Two further calculations compare the forces with the slope of the energy, and
        two more follow if they disagree.

        Raises:
            InputError: the calculator raises, or its result is not finite.
        """
        tried, calls, warnings = set(), 0, []
        for atoms in systems.to_atoms():
            kind = (frozenset(atoms.numbers.tolist()), tuple(atoms.pbc.tolist()))
            if kind in tried or not len(atoms):
                continue
            tried.add(kind)
            whole = (atoms.numbers, atoms.pbc, atoms.cell.array, atoms.positions)
            identity = b"".join(part.tobytes() for part in whole)
            if identity not in self._tried:
                self._tried[identity] = self._try(atoms)
            spent, told = self._tried[identity]
            calls += spent
            warnings += told
        return Trial(calls, tuple(warnings))

    def _try(self, atoms: Atoms) -> tuple[int, list[str]]:
        """Run the calculator on one structure; return the number of calls, and warnings."""
        import numpy as np

        from mlopt.potentials.ase.results import ask
        from mlopt.potentials.ase.trial import mismatch, trial_structure

        calculator = self._calculator()
        trial = trial_structure(atoms, self.calculator)
        what = "a system of " + " and ".join(
            SYMBOLS[number] for number in sorted(set(atoms.numbers.tolist()))
        )
        try:
            found = ask(calculator, trial)
        except Exception as error:
            raise InputError(
                f"the ASE calculator {quoted(self.calculator)} cannot treat {what}: "
                f"{cause(error)}. Change the system, or the calculator and its parameters."
            ) from error
        if not (np.isfinite(found.energy) and np.isfinite(found.forces).all()):
            raise InputError(
                f"the ASE calculator {quoted(self.calculator)} gives a non-finite energy or force for "
                f"{what}. Check its parameters and the distances between the atoms."
            )
        calls, off = mismatch(calculator, trial, found)
        if off is None:
            return 1 + calls, []
        warning = (
            f"the forces of the ASE calculator {quoted(self.calculator)} do not belong to its energy: for {what}, "
            f"along a random direction, the energy has the slope {off[0]:.6g}, and its forces say {off[1]:.6g}. "
            f"Minimisation may stick. A calculator that smears electrons should tell its `free_energy`"
        )
        log.warning("%s", warning)
        return 1 + calls, [warning]

    @property
    def giver(self) -> str:
        return f"the calculator {quoted(self.calculator)}"

    def failure(self) -> str:
        """See `Potential.failure`."""
        return self._last

    def remarks(self) -> list[str]:
        """Return one line per cause on how often the calculator has failed since this process began."""
        return self._failures.lines(self.calculator)

    def _calculator(self) -> Any:
        """Return the given calculator, or a new one.

        Raises:
            InputError: its constructor raises.
        """
        if self._given is not None:
            return self._given
        from ase.calculators.calculator import get_calculator_class

        try:
            if self.calculator in PACKAGED:
                module, name, settings = PACKAGED[self.calculator]
                return getattr(importlib.import_module(module), name)(**(settings | self.parameters))
            return get_calculator_class(self.calculator)(**self.parameters)
        except ModuleNotFoundError as error:
            raise InputError(
                f"ase: the calculator {quoted(self.calculator)} is not installed: `pip install {self.calculator}`"
            ) from error
        except Exception as error:
            raise InputError(
                f"ase: calculator {quoted(self.calculator)} with parameters {self.parameters} cannot be made: "
                f"{cause(error)}"
            ) from error
