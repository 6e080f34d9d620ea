"""A potential of mlopt as an ASE calculator, for all programs that take one.

This module imports ASE at its top. It is loaded on request only, and holds no plugin.
"""

from __future__ import annotations

from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.landscapes.potential import Potential


class MloptCalculator(Calculator):
    """An ASE calculator: ``atoms.calc = MloptCalculator(LennardJones(epsilon=0.0104, r0=3.82))``, in eV and angstrom.

    Numbers of a reduced potential are taken as eV and angstrom. Stress exists for systems with three lattice vectors.
    Others raise `PropertyNotImplementedError`, as ASE's own calculators do. Constraints are applied by ASE's ``atoms``,
    not here.

    A committee adds ``energy_spread`` and ``forces_spread`` (n_atoms,) to ``results``.
    """

    implemented_properties = ["energy", "free_energy", "forces", "energies", "stress"]  # noqa: RUF012  (ASE's protocol)

    def __init__(self, potential: Potential, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self.potential = potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Evaluate the potential.

        Raises:
            InputError: the potential cannot treat the atoms, such as an element that it does not know.
        """
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        if self.atoms is None:
            raise InputError("MloptCalculator.calculate: there are no atoms; pass some")
        free = self.atoms.copy()
        free.set_constraint()
        systems = Systems.from_atoms(free)
        if set(system_changes) & {"numbers", "cell", "pbc"}:
            self.potential.check(systems)
        wanted = (
            "stress" in (properties or ()) and self.atoms.cell.rank == 3
        )  # else ASE says that there is none
        found = self.potential.evaluate(systems, stress=wanted)
        energy = float(found.energy[0])
        self.results = {"energy": energy, "free_energy": energy, "forces": found.force.numpy()}
        if found.row_energy is not None:
            self.results["energies"] = found.row_energy.numpy()
        if found.energy_spread is not None and found.force_spread is not None:
            self.results["energy_spread"] = float(found.energy_spread[0])
            self.results["forces_spread"] = found.force_spread.numpy()
        if found.stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(found.stress[0].numpy())
