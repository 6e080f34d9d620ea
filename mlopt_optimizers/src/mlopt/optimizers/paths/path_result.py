"""What a run about a path returns, and the files that it leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from mlopt.core import atomic
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.result import Result
from mlopt.core.units import Units
from mlopt.optimizers.paths.band import Band
from mlopt.optimizers.paths.connect import Connection, connect
from mlopt.optimizers.paths.modes import Modes, lowest_modes
from mlopt.optimizers.paths.profile import Profile, image_at
from mlopt.optimizers.paths.rates import Rate, spin_rate, vineyard

if TYPE_CHECKING:
    from mlopt.optimizers.paths.path import Path


@dataclass(frozen=True)
class PathResult:
    """Outcome of a path.

    path (images + 2, n_rows, d): the lowest of the paths that were relaxed, ends included. s, energy, slope: along it.
    saddle (n_rows, d), saddle_energy: the climbing image, or the summit of the profile. modes: the lowest there.
    connection: where one comes to from there. rate: over the saddle, where it was asked for; note: why there is none.
    gradient_evaluations: of the images, in relaxing all paths. other_evaluations: of the ends, and in the analysis.
    """

    experiment: Path
    converged: bool
    path: torch.Tensor
    s: torch.Tensor
    energy: torch.Tensor
    slope: torch.Tensor
    curve: tuple[torch.Tensor, torch.Tensor]
    saddle: torch.Tensor
    saddle_energy: float
    barriers: list[float]
    fmax: float
    modes: Modes | None
    connection: Connection | None
    rate: Rate | None
    note: str
    gradient_evaluations: int
    other_evaluations: int
    wall_s: float

    @classmethod
    def of(
        cls, experiment: Path, band: Band, result: Result, calls: torch.Tensor, end_calls: int, wall_s: float
    ) -> PathResult:
        """Look at what the optimizer left; calls (paths,): evaluations of each band so far."""
        with torch.no_grad():
            profiles = Profile.of(band, result.x)
            tops, energies = profiles.summit, band.look(result.x)
        climbing = energies.climbing
        barriers = profiles.barrier_forward.clone()
        highest = band.layout.chain.argmax(torch.where(climbing, energies.energy, -torch.inf))
        climbs = climbing[highest] & result.converged.to(climbing.device)
        barriers = torch.where(climbs, energies.energy[highest] - band.at_start.energy, barriers)
        best = int(torch.where(torch.isfinite(barriers), barriers, torch.inf).argmin())
        one = band.select(torch.tensor([best], device=result.x.device))
        _, rows = band.segments.select(torch.tensor([best], device=result.x.device))
        x = result.x[rows]
        (path,) = one.unpack(x)
        nodes = slice(int(profiles.nodes.ptr[best]), int(profiles.nodes.ptr[best + 1]))
        # the ends of all bands, their profiles, and the look at climbing images
        landscape, extra = one.landscape, 2 * len(result) + 2 * int(band.layout.images.sum())
        if bool(climbs[best]):
            place = int(highest[best]) - int(band.layout.chain.ptr[best]) + 1
            saddle, energy = path[place], float(energies.energy[highest[best]])
        else:
            with torch.no_grad():
                saddle = image_at(one, x, tops.node[best : best + 1], tops.share[best : best + 1])
            energy = float(tops.energy[best])
        settings, modes, connection, rate, note = experiment.saddle, None, None, None, ""
        if settings.modes:
            modes = lowest_modes(landscape, saddle, settings.modes)
            extra += int(modes.calls.sum())
        if settings.connect and modes is not None and bool(modes.values[0, 0] < 0):
            ends = torch.stack([one.start, one.end])
            connection = connect(landscape, saddle, modes.vectors[0], minima=ends, fmax=experiment.end_fmax)
            extra += int(connection.calls.sum())
        if settings.temperature is not None:
            rate, note = _rate(experiment, one, saddle)
        return cls(
            experiment,
            bool(result.converged[best]),
            path.cpu(),
            profiles.s[nodes].cpu(),
            profiles.energy[nodes].cpu(),
            profiles.slope[nodes].cpu(),
            tuple(part.cpu() for part in profiles.curve(best)),  # type: ignore[arg-type]
            saddle.cpu(),
            energy,
            barriers.tolist(),
            float(result.fmax[best]),
            modes,
            connection,
            rate,
            note,
            int((calls * band.layout.images.cpu()).sum()),
            end_calls + extra,
            wall_s,
        )

    @property
    def barrier_forward(self) -> float:
        """Height of the saddle over the start."""
        return self.saddle_energy - float(self.energy[0])

    @property
    def barrier_reverse(self) -> float:
        """Height of the saddle over the end."""
        return self.saddle_energy - float(self.energy[-1])

    @property
    def _tops(self) -> list[int]:
        """Images that are higher than their neighbours, where so many climb."""
        e = self.energy.tolist()
        tops = [k for k in range(1, len(e) - 1) if e[k] > e[k - 1] and e[k] >= e[k + 1]]
        return tops if self.experiment.band.climbing >= len(tops) else []

    @property
    def _eigenvalues(self) -> list[float]:
        values = [] if self.modes is None else self.modes.values[0].tolist()
        return [value for value in values if math.isfinite(value)]

    @property
    def negative_modes(self) -> int | None:
        """0: no saddle at all; 1: a saddle of first order; more: a higher one. None where nobody looked."""
        return None if self.modes is None else int(self.modes.count_negative()[0])

    @property
    def headline(self) -> str:
        """What came out, in one line."""
        units, order = Units.of(self.experiment.model.energy_units), self.negative_modes
        kind = {None: "", 0: "; no saddle", 1: "; saddle of first order"}.get(
            order, f"; {order} negative modes"
        )
        short = "" if self.converged else " (not converged)"
        return (
            f"barrier {units.say(self.barrier_forward)}, back {units.say(self.barrier_reverse)}{kind}{short}"
        )

    def summary(self) -> dict[str, Any]:
        """The numbers that ``mlopt run --json`` prints."""
        joins = None if self.connection is None else bool(self.connection.joins[0])
        temperature = self.experiment.saddle.temperature
        lifetime = None if self.rate is None or temperature is None else self.rate.lifetime(temperature)
        saddles = [float(self.energy[k]) for k in self._tops]
        return {
            "experiment": "path",
            "status": "finished",
            "headline": self.headline,
            "converged": self.converged,
            "barrier_forward": self.barrier_forward,
            "barrier_reverse": self.barrier_reverse,
            "saddle_energy": self.saddle_energy,
            "saddle_energies": saddles if len(saddles) > 1 else None,
            "negative_modes": self.negative_modes,
            "eigenvalues": None if self.modes is None else self._eigenvalues,
            "connects_the_ends": joins,
            "gradient_evaluations": self.gradient_evaluations,
            "other_evaluations": self.other_evaluations,
            "images": len(self.path) - 2,
            "fmax": self.fmax,
            "prefactor": None if self.rate is None else self.rate.prefactor,
            "lifetime_s": lifetime,
            "note": self.note or None,
            "wall_s": round(self.wall_s, 3),
            "units": str(Units.of(self.experiment.model.energy_units)),
        }

    def write(self, folder: FilePath) -> None:
        """Write the path and the saddle in the model's format, ``profile.csv``, and pictures (SVG)."""
        from mlopt.optimizers.paths import pictures

        model, energies = self.experiment.model, self.energy.tolist()
        model.write(folder / "path", self.path, energies)
        model.write(folder / "saddle", self.saddle[None], [self.saddle_energy])
        lines = [
            f"{s:.12g},{e:.12g},{d:.12g}"
            for s, e, d in zip(self.s.tolist(), energies, self.slope.tolist(), strict=True)
        ]
        atomic.write_text(folder / "profile.csv", "\n".join(["s,energy,slope", *lines]) + "\n")
        if len(self.barriers) > 1:
            atomic.write_json(folder / "barriers.json", self.barriers)
        pictures.write(self, folder)


def _rate(experiment: Path, band: Band, saddle: torch.Tensor) -> tuple[Rate | None, str]:
    """The rate over a saddle from the start, or why there is none."""
    model, minimum = experiment.model, band.start
    moments, masses, units = model.moments(), model.masses(), model.energy_units
    try:
        if moments is not None:
            found = spin_rate(
                band.landscape,
                minimum,
                saddle,
                moments.to(minimum),
                damping=experiment.saddle.damping,
                units=units,
            )
        elif masses is not None:
            found = vineyard(band.landscape, minimum, saddle, masses.to(minimum), units=units)
        else:
            return None, "no rate: the model has neither masses nor magnetic moments"
    except InputError as error:
        return None, f"no rate: {error}"
    return found, ""
