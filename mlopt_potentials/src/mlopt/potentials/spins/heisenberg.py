"""The Heisenberg Hamiltonian of classical spins: its parameters, and the quadratic form that they define."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from mlopt.core.atoms.units import REDUCED, SPINS, Units
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.model import Model
from mlopt.potentials.spins.files import read_spins, write_spins
from mlopt.potentials.spins.landscape import SpinLandscape
from mlopt.potentials.spins.lattice import SpinLattice
from mlopt.potentials.spins.quadratic import QuadraticForm
from mlopt.potentials.spins.settings import (
    Cells,
    Direction,
    Number,
    Numbers,
    Part,
    Sites,
    Vector,
    indices,
)
from mlopt.potentials.spins.states import make_state

if TYPE_CHECKING:
    from mlopt.potentials.spins.shells import Floats, Integers

#: Bohr magneton, meV/T (CODATA 2014, as Spirit has it)
MU_B = 0.057883817555


class Anisotropy(Part):
    """One axis of a single-ion anisotropy: ``E = -k (S . axis)^2`` for each spin."""

    axis: Direction = setting(doc="the axis, of any length")
    k: Number = setting(
        doc="positive: an easy axis; negative: a hard axis, that is an easy plane", unit="meV"
    )
    sites: Sites | None = setting(
        None, "sites with this anisotropy, as numbers or as a flag for each site; null: all"
    )


class SpinPair(Part):
    """An individual bond between two atoms of the basis, in every cell: ``-J S_i.S_j - D.(S_i x S_j)``."""

    i: int = setting(0, "first atom, an index into the basis")
    j: int = setting(0, "second atom, an index into the basis")
    translation: Cells = setting([0, 0, 0], "cells from the first atom to the second")
    exchange: Number = setting(0.0, "J; positive is ferromagnetic", unit="meV")
    dmi: Vector = setting([0.0, 0.0, 0.0], "Dzyaloshinskii-Moriya vector D", unit="meV")

    @property
    def key(self) -> tuple[int, ...]:
        """An identifier that is the same for a bond seen from either end."""
        a, b, c = self.translation
        return max((self.i, self.j, a, b, c), (self.j, self.i, -a, -b, -c))


class Heisenberg(Model):
    """Classical spins of unit length with exchange, Dzyaloshinskii-Moriya interaction, anisotropy and a field.

    ``E = -sum_pairs [J S_i.S_j + D_ij.(S_i x S_j)] - sum_i [sum_a k_a (S_i.e_a)^2 + (mu_i mu_B B + h).S_i]``, where
    each pair counts once. ``exchange`` and ``dmi`` have a number for each shell of neighbours, the nearest first. The
    length of D_ij is its number. Its direction depends on r, the direction of the bond from i to j:

    - ``bulk``: the direction of r. A positive D makes Bloch skyrmions of helicity 90 degrees (core down);
    - ``interfacial``: the direction of ``normal x r``. A positive D makes Neel skyrmions of helicity 180 (core down).

    A negative number gives the other chirality. For a core that points up the helicities are -90 and 0 degrees.

    In ``reduced`` units mu_B is 1.

    Source: conventions of Spirit, Mueller et al., Phys. Rev. B 99, 224414 (2019), eq. 1.
    """

    lattice: SpinLattice = setting(doc="where the spins are")
    exchange: Numbers = setting([], "J of each shell of neighbours; positive is ferromagnetic", unit="meV")
    dmi: Numbers = setting([], "strength D for each shell of neighbours", unit="meV")
    dmi_kind: Literal["bulk", "interfacial"] = setting(
        "bulk", "bulk: D along the bond; interfacial: D perpendicular to bond and normal"
    )
    dmi_normal: Direction = setting([0.0, 0.0, 1.0], "normal of the interface")
    anisotropy: list[Anisotropy] = setting(
        [], "axes of single-ion anisotropy, such as {axis: [0, 0, 1], k: 1.0}"
    )
    field: Vector = setting([0.0, 0.0, 0.0], "magnetic field", unit="T")
    field_energy: Vector = setting(
        [0.0, 0.0, 0.0], "h, the product of field and moment, the same for all spins", unit="meV"
    )
    pairs: list[SpinPair] = setting([], "further individual bonds, each listed once")
    units: Literal["meV", "reduced"] = setting("meV", "units of all energies")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        wanted = max(len(self.exchange), len(self.dmi))
        found = self.lattice.bonds(wanted).count
        if found < wanted:
            name = "exchange" if len(self.exchange) > found else "dmi"
            raise ValueError(
                f"{name}: {wanted} shells of neighbours, but the lattice has {found}; shorten the list, or make the "
                f"lattice larger or periodic"
            )
        for number, one in enumerate(self.anisotropy):
            indices(f"anisotropy.{number}.sites", one.sites or [], self.lattice.n_sites, "sites")
        known: dict[tuple[int, ...], int] = {}
        atoms = len(self.lattice.basis)
        for number, pair in enumerate(self.pairs):
            if not (0 <= pair.i < atoms and 0 <= pair.j < atoms):
                raise ValueError(
                    f"pairs.{number}: joins {pair.i} and {pair.j}; atoms of the basis are 0 to {atoms - 1}"
                )
            if pair.i == pair.j and not any(pair.translation):
                raise ValueError(f"pairs.{number}: joins an atom to itself; give a translation")
            if pair.key in known:
                raise ValueError(f"pairs: {known[pair.key]} and {number} are the same bond; give it once")
            known[pair.key] = number
        if self.dmi_kind == "interfacial":
            for _, vector, _, d in self._shells():
                if d and not np.linalg.norm(np.cross(self.dmi_normal, vector)) > 1e-9 * np.linalg.norm(
                    vector
                ):
                    raise ValueError(
                        "dmi_normal: lies along a bond, where an interfacial D has no direction; "
                        "set the D of that shell to 0"
                    )
        return self

    @property
    def energy_units(self) -> Units:
        return REDUCED if self.units == "reduced" else SPINS

    def state(self, given: Mapping[str, Any]) -> torch.Tensor:
        """Return the spins (n_spins, 3) of a state such as ``{kind: skyrmion, radius: 4}`` or ``{file: a.ovf}``."""
        found = {"kind": "given"} | dict(given) if "file" in given else dict(given)
        return make_state(found, "a state of spins").spins(self.lattice)

    def path(self, given: Mapping[str, Any]) -> torch.Tensor:
        """Return all configurations (m, n_spins, 3) of an OVF or npy file."""
        return read_spins(given["file"], self.lattice)

    def write(self, stem: Path, points: torch.Tensor, energies: Sequence[float]) -> Path:
        """Write ``points (m, n_spins, 3)`` to an OVF 2.0 file, a segment each, with the energy in the title."""
        file = stem.with_suffix(".ovf")
        titles = [f"energy {energy:.12g} {self.energy_units.energy}" for energy in energies]
        write_spins(file, points, self.lattice, titles=titles)
        return file

    def moments(self) -> torch.Tensor:
        return torch.from_numpy(self.lattice.spin_moments)

    def positions(self) -> torch.Tensor:
        return torch.from_numpy(self.lattice.positions)

    def rows(self, n_rows: int) -> list[str]:
        return [self.lattice.label(row) for row in range(n_rows)]

    def landscape(
        self,
        n_problems: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> SpinLandscape:
        """Return the landscape of ``n_problems`` copies of the system; float64 unless ``dtype`` says otherwise."""
        lattice = self.lattice
        pinned = lattice.pinned_rows
        return SpinLandscape(
            self.form().to(device, dtype or torch.float64),
            n_problems,
            fixed=torch.from_numpy(pinned).to(device) if pinned.any() else None,
            moments=torch.from_numpy(lattice.spin_moments).to(device, dtype or torch.float64),
            units=self.energy_units,
            label=lattice.label,
        )

    def form(self) -> QuadraticForm:
        """Return ``E = 1/2 S.A.S + b.S`` of all spins, float64 on the CPU."""
        lattice, n = self.lattice, self.lattice.n_spins
        blocks = [(i, j, block) for i, j, block in self._bonds()]
        blocks += [(j, i, block.transpose(0, 2, 1)) for i, j, block in blocks]
        spins = np.arange(n)
        for one in self.anisotropy:
            has = np.ones(lattice.n_sites, dtype=bool)
            if one.sites is not None:
                has[:] = False
                has[indices("sites", one.sites, lattice.n_sites, "sites")] = True
            rows = spins[has[lattice.sites]]
            e = _unit(np.array(one.axis, dtype=np.float64))
            blocks.append((rows, rows, np.broadcast_to(-2.0 * one.k * np.outer(e, e), (len(rows), 3, 3))))
        mu_b = 1.0 if self.energy_units.reduced else MU_B
        linear = -(mu_b * lattice.spin_moments[:, None] * np.array(self.field) + np.array(self.field_energy))
        return QuadraticForm.from_blocks(blocks, linear)

    def _bonds(self) -> Iterator[tuple[Integers, Integers, Floats]]:
        """Yield rows (q,), rows (q,) and blocks (q, 3, 3) of the bonds, each bond once."""
        found = self.lattice.bonds(max(len(self.exchange), len(self.dmi)))
        exchange = np.array([j for _, _, j, _ in self._shells()])
        d = np.array([self._dmi_vector(vector, d) for _, vector, _, d in self._shells()])
        if len(exchange):
            bond, i, j = self.lattice.pairs(found.first, found.second, found.translation)
            yield i, j, _blocks(exchange, d)[bond]
        if self.pairs:
            first, second, translation = (
                np.array(one) for one in zip(*((p.i, p.j, p.translation) for p in self.pairs), strict=True)
            )
            bond, i, j = self.lattice.pairs(first, second, translation)
            blocks = _blocks(
                np.array([p.exchange for p in self.pairs]), np.array([p.dmi for p in self.pairs])
            )
            yield i, j, blocks[bond]

    def _shells(self) -> Iterator[tuple[int, Floats, float, float]]:
        """Yield for each bond of a cell its shell, its vector, J and D."""
        found = self.lattice.bonds(max(len(self.exchange), len(self.dmi)))
        for shell, vector in zip(found.shell.tolist(), found.vector, strict=True):
            j = self.exchange[shell] if shell < len(self.exchange) else 0.0
            d = self.dmi[shell] if shell < len(self.dmi) else 0.0
            yield shell, vector, j, d

    def _dmi_vector(self, bond: Floats, d: float) -> Floats:
        if d == 0.0:
            return np.zeros(3)
        along = np.cross(np.array(self.dmi_normal), bond) if self.dmi_kind == "interfacial" else bond
        return d * _unit(along)


def _unit(vector: Floats) -> Floats:
    """Return a vector scaled to length 1, with components at rounding level set to zero."""
    scaled: Floats = vector / np.linalg.norm(vector)
    return np.where(np.abs(scaled) < 1e-14, 0.0, scaled)


def _blocks(exchange: Floats, dmi: Floats) -> Floats:
    """Return (p, 3, 3) matrices M with ``-J S_i.S_j - D.(S_i x S_j) = S_i.M S_j``. exchange: (p,); dmi: (p, 3)."""
    x, y, z = dmi.T
    o = np.zeros_like(x)
    cross = np.array([[o, z, -y], [-z, o, x], [y, -x, o]]).transpose(2, 0, 1)  # D.(a x b) = a.cross b
    found: Floats = -exchange[:, None, None] * np.eye(3) - cross
    return found
