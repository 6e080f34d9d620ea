"""A kind of run: the energy of a crystal against its volume, and the bulk modulus."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from mlopt.core import (
    AtomsLandscape,
    Context,
    Experiment,
    FromRegistry,
    InputError,
    Optimizer,
    Potential,
    Session,
    Systems,
    SystemSpec,
    minimize,
    setting,
)
from mlopt.core.atoms import Units, structure_digest
from mlopt.core.reporting import Card, Column, Figure, Summary, Table
from mlopt.core.reporting.drawing import pyplot, save

#: one eV / angstrom^3 in GPa
GPA = 160.21766


class EquationOfState(Experiment):
    """Energy of a crystal against its volume, with relaxed atoms, and its Birch-Murnaghan equation of state."""

    system: SystemSpec = setting(..., "the crystal: a file with a periodic cell")
    potential: Annotated[Potential, FromRegistry("potential")] = setting(
        ..., "the energy, in eV and angstrom"
    )
    optimizer: Annotated[Optimizer, FromRegistry("optimizer")] = setting(..., "what relaxes the atoms")
    volumes: int = setting(9, "how many", ge=5)
    span: float = setting(0.08, "largest change of the volume, as a share of it", gt=0, lt=0.5)
    fmax: float = setting(1e-3, "force at which atoms are relaxed", unit="eV/angstrom", gt=0)
    force_calls: int = setting(500, "at most, for each volume", ge=1)

    def check(self) -> None:
        """Refuse what cannot work before anything is written."""
        system = self.system.load()
        if not bool(system.pbc.all()):
            raise InputError(
                "`system`: has no cell that is periodic in all directions, so no volume; give a crystal"
            )
        self.potential.check(system)

    def run(self, context: Context | None = None) -> "Curve":
        """Relax the atoms at each volume; a checkpoint holds the volumes that are done."""
        system = self.system.load()
        session = Session(context, structure_digest(system))
        done = [] if session.restored is None else session.restored.meta["done"]
        factors = torch.linspace(1.0 - self.span, 1.0 + self.span, self.volumes, dtype=torch.float64)
        for number in range(len(done), self.volumes):
            volume, energy, calls = self._relaxed(system, float(factors[number]) ** (1.0 / 3.0))
            done.append([volume, energy, calls])
            session.context.metric(number + 1, volume=volume, energy=energy)
            session.context.progress((number + 1) / self.volumes, f"{energy:.6g} at volume {volume:.6g}")
            if session.context.pause():  # a checkpoint is due, or a signal came
                session.save(number + 1, {}, {"done": done})
                session.leave_if_asked()
        curve = Curve(np.array(done), len(system.z), Units.of(self.potential.units), session.seconds)
        folder = session.context.results()
        if folder is not None:
            curve.draw(folder / "curve.svg")
        return curve

    def _relaxed(self, system: Systems, scale: float) -> tuple[float, float, int]:
        """Volume, energy, and the force calls that it took."""
        scaled = replace(system, pos=scale * system.pos, cell=scale * system.cell)
        found = minimize(
            AtomsLandscape(scaled, self.potential),
            self.optimizer,
            scaled.pos,
            force_calls=self.force_calls,
            fmax=self.fmax,
            engine="eager",
        )
        return abs(float(torch.linalg.det(scaled.cell[0]))), float(found.energy), int(found.calls)


@dataclass(frozen=True)
class Curve:
    """What came out. points (n, 3): volume, energy, force calls. atoms: in the cell."""

    points: np.ndarray
    atoms: int
    units: Units
    seconds: float

    @property
    def fit(self) -> np.poly1d:
        """Energy as a polynomial in ``volume^(-2/3)``: Birch, Phys. Rev. 71 (1947) 809."""
        volume, energy, _ = self.points.T
        return np.poly1d(np.polyfit(volume ** (-2.0 / 3.0), energy, 3))

    @property
    def minimum(self) -> tuple[float, float, float] | None:
        """Volume, energy and bulk modulus at the minimum; None where it is not among the volumes."""
        fit, volume = self.fit, self.points[:, 0]
        for x in fit.deriv().roots:
            if abs(x.imag) < 1e-12 and x.real > 0 and fit.deriv(2)(x.real) > 0:
                v = float(x.real) ** -1.5
                if volume.min() < v < volume.max():
                    return v, float(fit(x.real)), 4.0 / 9.0 * float(fit.deriv(2)(x.real)) * v ** (-7.0 / 3.0)
        return None

    def summary(self) -> Summary:
        """What `mlopt run --json` prints, and what the report shows."""
        energy, size = ("", "") if self.units.reduced else (self.units.energy, f"{self.units.length}^3")
        pressure, factor = (
            ("", 1.0) if self.units.reduced else ("GPa", GPA * self.units.ev / self.units.angstrom**3)
        )
        v, e, b = self.minimum or (None, None, None)
        modulus, each = (None, None) if b is None else (b * factor, v / self.atoms)
        calls = int(self.points[:, 2].sum())
        return Summary(
            {
                "volume": v,
                "energy": e,
                "bulk_modulus": modulus,
                "force_calls": calls,
                "wall_s": round(self.seconds, 3),
                "units": str(self.units),
            },
            headline="no minimum among the volumes"
            if b is None
            else f"bulk modulus {modulus:.4g} {pressure}".strip(),
            reached=b is not None,  # with --strict, a run that did not reach its goal ends with exit code 3
            missed="the energy has no minimum among the volumes: start from a cell that is nearer to it",
            cards=[
                Card("bulk modulus", modulus, pressure),
                Card("volume", each, size, "of each atom"),
                Card("energy", None if e is None else e / self.atoms, energy, "of each atom"),
                Card("force calls", calls),
            ],
            tables=[
                Table(
                    "Volumes",
                    [Column("volume", size, 4), Column("energy", energy, 6), Column("force calls")],
                    [[float(volume), float(value), int(count)] for volume, value, count in self.points],
                )
            ],
            figures=[
                Figure(
                    "Energy against volume", "curve.svg", "Points are relaxed; the line is fitted to them."
                )
            ],
        )

    def draw(self, file: Path) -> None:
        """Points and the curve through them."""
        figure, axis = pyplot().subplots(figsize=(6.4, 4.0), layout="constrained")
        volume, energy, _ = self.points.T
        line = np.linspace(volume.min(), volume.max(), 200)
        axis.plot(line, self.fit(line ** (-2.0 / 3.0)), color="#3b6ea5")
        axis.plot(volume, energy, "o", color="#1d3d5c", markersize=4)
        axis.set(xlabel="volume of the cell", ylabel=f"energy ({self.units.label})")
        save(figure, file)
