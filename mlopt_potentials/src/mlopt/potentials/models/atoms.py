"""Atoms under a potential, as a model of paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import Units
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential, Trial
from mlopt.core.lazy import torch
from mlopt.core.minima.alignment import align, nearest_order
from mlopt.core.plugins.plugin import FromRegistry, build, setting
from mlopt.core.protocols.model import Aligned, Model
from mlopt.core.structures.checks import check_same_atoms
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.structures.write import write_extxyz

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: endings of structure files that cannot store which atoms are fixed, or in practice never do
_WITHOUT_CONSTRAINTS = (".cif", ".pdb", ".xyz")


class AtomsModel(Model):
    """Atoms of a structure file, whose cell, periodicity and fixed atoms apply to all states.

    A state is ``{file: NAME}``, with ``index: K`` for a file of several structures. It has the same atoms, with the
    same ones fixed. The order of atoms may differ where a path aligns its ends.
    """

    system: SystemSpec = setting(..., "structure with the cell, periodicity and fixed atoms of all states")
    potential: Annotated[Potential, FromRegistry("potential")] = setting(..., "potential energy")

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

    def trial(self) -> Trial:
        return self.potential.trial(self.system.load())

    def remarks(self) -> list[str]:
        return self.potential.remarks()

    def state(self, given: Mapping[str, Any]) -> torch.Tensor:
        return self._state(given, any_order=False)

    def state_in_any_order(self, given: Mapping[str, Any]) -> torch.Tensor:
        return self._state(given, any_order=True)

    def aligned(
        self, x: torch.Tensor, to: torch.Tensor, *, exchange: bool = True, mirror: bool = False
    ) -> Aligned:
        """Return ``x (n_atoms, 3)`` aligned with ``to``: like atoms exchanged, free clusters rotated and shifted."""
        own = self.system.load()
        if mirror and (own.periodic or bool(own.fixed.any())):
            raise InputError(
                "mirror images are as good only of free clusters, without fixed atoms and periodic directions: take "
                "`align: auto`"
            )
        found = align(
            _numbers(to),
            _numbers(x),
            own.z.numpy(),
            cell=own.cell[0].numpy(),
            pbc=own.pbc[0].numpy(),
            fixed=own.fixed.numpy(),
            exchange=exchange,
            mirror=mirror,
        )
        return Aligned(torch.from_numpy(found.pos).to(x) if found.moved else x, found.words)

    def path(self, given: Mapping[str, Any]) -> torch.Tensor:
        from mlopt.core.structures.read import read_structures

        if set(given) != {"file"}:
            raise InputError("the path of atoms is `{file: NAME}`, a file with all its images")
        file = Path(given["file"]).expanduser()
        found = read_structures(file)
        own = self.system.load()
        for k in range(len(found)):
            self._check_same(found[k], own, f"{file}: image {k}", file)
        return found.pos.reshape(len(found), -1, 3)

    def write(self, stem: Path, points: torch.Tensor, energies: Sequence[float]) -> Path:
        from ase.calculators.singlepoint import SinglePointCalculator

        base, images = self.system.load(), []
        for point, energy in zip(points, energies, strict=True):
            (atoms,) = base.with_pos(point.to("cpu", torch.float64)).to_atoms()
            atoms.calc = SinglePointCalculator(atoms, energy=energy)
            images.append(atoms)
        file = stem.with_suffix(".extxyz")
        write_extxyz(file, images)
        return file

    def masses(self) -> torch.Tensor | None:
        return self.system.load().masses

    def rows(self, n_rows: int) -> list[str]:
        return [f"atom {row} ({SYMBOLS[int(z)]})" for row, z in enumerate(self.system.load().z)]

    def _state(self, given: Mapping[str, Any], any_order: bool) -> torch.Tensor:
        spec = build(SystemSpec, given, "a state of atoms")
        if spec.file is None:
            raise InputError("a state of atoms needs positions: give a `file`, not a formula")
        own, found = self.system.load(), spec.load()
        self._check_same(found, own, spec.file, Path(spec.file), any_order)
        return _ordered(found, own) if bool((found.z != own.z).any()) else found.pos

    def _check_same(
        self, found: Systems, own: Systems, source: str, file: Path, any_order: bool = False
    ) -> None:
        tells = file.suffix.lower() not in _WITHOUT_CONSTRAINTS
        check_same_atoms(found, own, source, "the system", any_order=any_order, tells_fixed=tells)


def _ordered(found: Systems, own: Systems) -> torch.Tensor:
    """Return positions of ``found`` in the order of ``own``: the nearest atom of the species, fixed to fixed."""
    told = bool(found.fixed.any())  # fixed atoms then count as separate kinds
    here, there = ((2 * one.z + (one.fixed & told).to(torch.int64)).numpy() for one in (own, found))
    cell, pbc = own.cell[0].numpy(), own.pbc[0].numpy()
    order = nearest_order(own.pos.numpy(), here, found.pos.numpy(), there, cell, pbc)
    return found.pos[torch.from_numpy(order)]


def _numbers(x: torch.Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = x.detach().to("cpu", torch.float64).numpy()
    return found
