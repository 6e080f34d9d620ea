"""Energies of two coordinates as models of paths, with names for their stationary points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlopt.core.atoms.units import REDUCED, Units
from mlopt.core.batch.segments import Segments
from mlopt.core.errors import InputError
from mlopt.core.files import atomic
from mlopt.core.landscapes.landscape import FunctionLandscape
from mlopt.core.lazy import torch
from mlopt.core.protocols.model import Model
from mlopt.core.quoting import quoted
from mlopt.potentials.models.formulas import leps, leps_harmonic, muller_brown


class SurfaceModel(Model):
    """A function of two coordinates. A state is ``{point: [x, y]}``, or ``{name: NAME}`` of a stationary point."""

    #: starting points that have names, to three digits: paths relax their ends
    points: ClassVar[Mapping[str, tuple[float, float]]] = {}
    #: x and y from and to, for maps
    window: ClassVar[tuple[float, float, float, float]] = (0.0, 1.0, 0.0, 1.0)

    @property
    def energy_units(self) -> Units:
        return REDUCED

    def energy(self, x: torch.Tensor, segments: Segments) -> torch.Tensor:
        """Return energies (n_problems,) at ``x (n_problems, 2)``."""
        raise NotImplementedError(f"{type(self).__name__} must define `energy`")

    def landscape(
        self,
        n_problems: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> FunctionLandscape:
        return FunctionLandscape(self.energy, Segments.uniform(n_problems, 1, device))

    def state(self, given: Mapping[str, Any]) -> torch.Tensor:
        known = ", ".join(self.points)
        if set(given) == {"name"} and given["name"] in self.points:
            return torch.tensor([self.points[given["name"]]], dtype=torch.float64)
        if set(given) != {"point"}:
            raise InputError(
                f"a state of {type(self).__name__} is {{point: [x, y]}}, or {{name: NAME}} with NAME one of {known}; "
                f"got {dict(given)}"
            )
        try:
            point = torch.tensor(given["point"], dtype=torch.float64)
        except (TypeError, ValueError):
            point = torch.zeros(0)
        if point.shape != (2,) or not bool(torch.isfinite(point).all()):
            raise InputError(f"`point` must be two numbers, got {quoted(given['point'])}")
        return point[None]

    def write(self, stem: Path, points: torch.Tensor, energies: Sequence[float]) -> Path:
        lines = [
            f"{x:.12g},{y:.12g},{energy:.12g}"
            for (x, y), energy in zip(points[:, 0].tolist(), energies, strict=True)
        ]
        file = stem.with_suffix(".csv")
        atomic.write_text(file, "\n".join(["x,y,energy", *lines]) + "\n")
        return file


class MullerBrown(SurfaceModel):
    """The surface of Müller and Brown: minima A, I and B, and a saddle on each side of I."""

    points: ClassVar[Mapping[str, tuple[float, float]]] = {
        "A": (-0.558, 1.442),
        "I": (-0.050, 0.467),
        "B": (0.623, 0.028),
    }
    window: ClassVar[tuple[float, float, float, float]] = (-1.5, 1.2, -0.2, 2.0)

    def energy(self, x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return muller_brown(x, segments)


class Leps(SurfaceModel):
    """Three atoms in a line; the coordinates are the two distances, angstrom. Its valleys are open at the far ends."""

    points: ClassVar[Mapping[str, tuple[float, float]]] = {"A": (0.742, 4.0), "B": (4.0, 0.742)}
    window: ClassVar[tuple[float, float, float, float]] = (0.5, 4.0, 0.5, 4.0)

    @property
    def energy_units(self) -> Units:
        return Units()

    def energy(self, x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return leps(x, segments)


class LepsHarmonic(SurfaceModel):
    """An atom between two fixed ones, coupled to an oscillator: minima A and B and one saddle."""

    points: ClassVar[Mapping[str, tuple[float, float]]] = {"A": (0.742, 1.303), "B": (3.001, -1.304)}
    window: ClassVar[tuple[float, float, float, float]] = (0.4, 3.2, -3.0, 3.0)

    @property
    def energy_units(self) -> Units:
        return Units()

    def energy(self, x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return leps_harmonic(x, segments)
