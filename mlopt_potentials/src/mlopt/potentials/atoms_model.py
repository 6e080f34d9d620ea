"""Atoms under a potential, as a model of paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from mlopt.core.elements import SYMBOLS
from mlopt.core.errors import InputError
from mlopt.core.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.core.model import Model
from mlopt.core.plugin import FromRegistry, build, setting
from mlopt.core.potential import Potential
from mlopt.core.system import SystemSpec
from mlopt.core.systems import Systems
from mlopt.core.units import Units


class AtomsModel(Model):
    """Atoms of a structure file, whose cell, periodicity and fixed atoms hold for all states.

    A state is ``{file: NAME}``, with ``index: K`` for a file of several structures: the same atoms in the same order.
    """

    system: SystemSpec = setting(..., "the atoms; cell, periodicity and fixed atoms of all states")
    potential: Annotated[Potential, FromRegistry("potential")] = setting(..., "the energy")

    @property
    def energy_units(self) -> Units:
        return Units.of(self.potential.units)

    def landscape(
        self,
        n_problems: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> AtomsLandscape:
        system = self.system.load()
        self.potential.check(system)
        return AtomsLandscape(system.repeat(n_problems).to(device, dtype or torch.float64), self.potential)

    def state(self, given: Mapping[str, Any]) -> torch.Tensor:
        spec = build(SystemSpec, given, "a state of atoms")
        if spec.file is None:
            raise InputError("a state of atoms needs positions: give a `file`, not a formula")
        return self._fitting(spec.load(), str(spec.file))

    def path(self, given: Mapping[str, Any]) -> torch.Tensor:
        from mlopt.core.structure_files import read_structures

        if set(given) != {"file"}:
            raise InputError("the path of atoms is `{file: NAME}`, a file with all its images")
        file = Path(given["file"]).expanduser()
        found = read_structures(file)
        return torch.stack([self._fitting(found[k], f"{file}: image {k}") for k in range(len(found))])

    def write(self, stem: Path, points: torch.Tensor, energies: Sequence[float]) -> Path:
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.io import write

        base, images = self.system.load(), []
        for point, energy in zip(points, energies, strict=True):
            (atoms,) = base.with_pos(point.to("cpu", torch.float64)).to_atoms()
            atoms.calc = SinglePointCalculator(atoms, energy=energy)
            images.append(atoms)
        file = stem.with_suffix(".extxyz")
        write(file, images)
        return file

    def masses(self) -> torch.Tensor | None:
        from ase.data import atomic_masses

        return torch.tensor([float(atomic_masses[int(z)]) for z in self.system.load().z], dtype=torch.float64)

    def rows(self, n_rows: int) -> list[str]:
        return [f"atom {row} ({SYMBOLS[int(z)]})" for row, z in enumerate(self.system.load().z)]

    def _fitting(self, found: Systems, source: str) -> torch.Tensor:
        """Positions, if these are the atoms of the model.

        Raises:
            InputError: another number of atoms, an atom of another kind, another cell or periodicity.
        """
        own = self.system.load()
        if len(found.z) != len(own.z):
            raise InputError(
                f"{source} has {len(found.z)} atoms, the system {len(own.z)}; so give states of one system"
            )
        unlike = torch.nonzero(found.z != own.z).flatten()
        if len(unlike):
            atom = int(unlike[0])
            permuted = bool((found.z.sort().values == own.z.sort().values).all())
            hint = "put the atoms in the same order" if permuted else "a path keeps its atoms"
            raise InputError(
                f"{source}: atom {atom} is {SYMBOLS[int(found.z[atom])]}, in the system it is "
                f"{SYMBOLS[int(own.z[atom])]} ({len(unlike)} atoms differ); {hint}"
            )
        if bool((found.pbc != own.pbc).any()):
            raise InputError(
                f"{source}: periodic directions are {found.pbc[0].tolist()}, those of the system "
                f"{own.pbc[0].tolist()}; give all states the same"
            )
        off = float((found.cell - own.cell).abs().max())
        if bool(own.pbc.any()) and off > 1e-6:
            raise InputError(
                f"{source}: its cell differs from that of the system by up to {off:.3g} angstrom; a path keeps its cell"
            )
        return found.pos
