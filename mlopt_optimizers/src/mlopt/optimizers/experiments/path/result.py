"""What a run about a path returns, and the files that it leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.units import Units
from mlopt.core.driver.result import Result
from mlopt.core.errors import InputError, MloptError
from mlopt.core.files import atomic
from mlopt.core.lazy import torch
from mlopt.core.reporting.summary import Summary
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.profile import Profile, image_at
from mlopt.optimizers.experiments.path import page, pictures
from mlopt.optimizers.saddles.connect import Connection, connect
from mlopt.optimizers.saddles.modes import Modes, lowest_modes
from mlopt.optimizers.saddles.rates import Rate, spin_rate, vineyard

if TYPE_CHECKING:
    from mlopt.optimizers.experiments.path.experiment import Path


@dataclass(frozen=True)
class Analysis:
    """What was found out about a saddle; None where nobody looked, or what was tried failed, as ``notes`` say.

    modes: the lowest there. connection: where one comes to from there. rate: over it, where that was asked for.
    calls: evaluations that it took, but for those of what failed.
    """

    modes: Modes | None = None
    connection: Connection | None = None
    rate: Rate | None = None
    notes: tuple[str, ...] = ()
    calls: int = 0

    @classmethod
    def of(cls, experiment: Path, band: Band, saddle: torch.Tensor) -> Analysis:
        """Look at the saddle of one relaxed path; ``band`` is that of this path alone."""
        settings, notes, calls = experiment.saddle, [], 0
        modes: Modes | None = None
        connection: Connection | None = None
        rate: Rate | None = None
        if settings.modes:
            try:
                modes = lowest_modes(band.landscape, saddle, settings.modes)
                calls += int(modes.calls.sum())
            except Exception as error:
                notes.append(f"no modes of the saddle: {_cause(error)}")
        if settings.connect and modes is not None and bool(modes.values[0, 0] < 0):
            ends = torch.stack([band.start, band.end])
            try:
                connection = connect(
                    band.landscape, saddle, modes.vectors[0], minima=ends, fmax=experiment.end_fmax
                )
                calls += int(connection.calls.sum())
            except Exception as error:
                notes.append(f"not known whether it connects the ends: {_cause(error)}")
        if connection is not None and _joins(connection) is None:
            forces = ", ".join(f"{force:.3g}" for force in connection.fmax[0].tolist())
            notes.append(
                f"not known whether it connects the ends: a way down from the saddle did not end at a minimum (largest "
                f"forces {forces}, to reach: {experiment.end_fmax:.3g})"
            )
        if settings.temperature is not None:
            try:
                rate, note = _rate(experiment, band, saddle)
                notes += [note] if note else []
            except Exception as error:
                notes.append(f"no rate: {_cause(error)}")
        return cls(modes, connection, rate, tuple(notes), calls)


def _joins(connection: Connection) -> bool | None:
    """Whether the saddle joins the ends; None where a way down did not arrive."""
    if bool(connection.joins[0]):
        return True
    return False if bool(connection.converged[0].all()) else None


def _cause(error: Exception) -> str:
    """In one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, MloptError) else f"{type(error).__name__}: {text}"


@dataclass(frozen=True)
class PathResult:
    """Outcome of a path.

    path (images + 2, n_rows, d): the lowest of the paths that were relaxed, ends included. s, energy, slope: along it.
    saddle (n_rows, d), saddle_energy: the climbing image, or the summit of the profile. analysis: of the saddle.
    alignment: what was done to the final state so that it lies near the initial one; notes: on how the path began.
    warnings: of the potential.
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
    alignment: str
    notes: tuple[str, ...]
    gradient_evaluations: int
    other_evaluations: int
    wall_s: float
    analysis: Analysis = Analysis()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        experiment: Path,
        band: Band,
        result: Result,
        *,
        calls: torch.Tensor,
        end_calls: int,
        alignment: str = "",
        notes: tuple[str, ...] = (),
        warnings: tuple[str, ...] = (),
        folder: FilePath | None = None,
    ) -> PathResult:
        """Look at what the optimizer left, and write it to ``folder``: the band first, then what is found out about it.

        calls (paths,): evaluations of each band so far. wall_s is left at zero.

        Raises:
            MloptError: no path has a finite barrier; the images have been written.
        """
        with torch.no_grad():
            profiles = Profile.of(band, result.x)
            tops, energies = profiles.summit, band.look(result.x)
        climbing = energies.climbing
        barriers = profiles.barrier_forward.clone()
        highest = band.layout.chain.argmax(torch.where(climbing, energies.energy, -torch.inf))
        climbs = climbing[highest] & result.converged.to(climbing.device)
        barriers = torch.where(climbs, energies.energy[highest] - band.at_start.energy, barriers)
        # one image without a finite energy, and nobody knows how high the path goes
        lost = [(~torch.isfinite(one)).to(barriers.dtype) for one in (energies.energy, profiles.energy)]
        unknown = band.layout.chain.sum(lost[0]) + profiles.nodes.sum(lost[1]) > 0
        barriers = barriers.masked_fill(unknown, float("nan"))
        best = int(torch.where(torch.isfinite(barriers), barriers, torch.inf).argmin())
        chosen = torch.tensor([best], device=result.x.device)
        one, (_, rows) = band.select(chosen), band.segments.select(chosen)
        x = result.x[rows]
        (path,) = one.unpack(x)
        nodes = slice(int(profiles.nodes.ptr[best]), int(profiles.nodes.ptr[best + 1]))
        along = profiles.energy[nodes].cpu()
        if folder is not None:  # whatever comes, what was relaxed is kept
            experiment.model.write(folder / "path", path.cpu(), along.tolist())
        if not math.isfinite(float(barriers[best])):
            raise MloptError(_lost(result, along))
        if bool(climbs[best]):
            place = int(highest[best]) - int(band.layout.chain.ptr[best]) + 1
            saddle, energy = path[place], float(energies.energy[highest[best]])
        else:
            with torch.no_grad():
                saddle = image_at(one, x, tops.node[best : best + 1], tops.share[best : best + 1])
            energy = float(tops.energy[best])
        found = cls(
            experiment,
            bool(result.converged[best]),
            path.cpu(),
            profiles.s[nodes].cpu(),
            along,
            profiles.slope[nodes].cpu(),
            tuple(part.cpu() for part in profiles.curve(best)),  # type: ignore[arg-type]
            saddle.cpu(),
            energy,
            barriers.tolist(),
            float(result.fmax[best]),
            alignment,
            notes,
            int((calls * band.layout.images.cpu()).sum()),
            # the ends of all bands, their profiles, and the look at climbing images
            end_calls + 2 * len(result) + 2 * int(band.layout.images.sum()),
            0.0,
            warnings=warnings,
        )
        if folder is not None:
            found._write_band(folder)
        analysis = Analysis.of(experiment, one, saddle)
        found = replace(found, analysis=analysis, other_evaluations=found.other_evaluations + analysis.calls)
        return found if folder is None else found._illustrated(folder)

    @property
    def modes(self) -> Modes | None:
        """The lowest modes of the saddle, where they were asked for."""
        return self.analysis.modes

    @property
    def connection(self) -> Connection | None:
        """Where the ways down from the saddle lead to."""
        return self.analysis.connection

    @property
    def rate(self) -> Rate | None:
        """Over the saddle, where it was asked for."""
        return self.analysis.rate

    @property
    def note(self) -> str:
        """What else is to be said, in one line."""
        return "; ".join((*self.notes, *self.analysis.notes))

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

    def summary(self) -> Summary:
        """The numbers that ``mlopt run --json`` prints, and what the report shows."""
        return page.summarise(self, self._numbers())

    def _numbers(self) -> dict[str, Any]:
        joins = None if self.connection is None else _joins(self.connection)
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
            "alignment": self.alignment or None,
            "prefactor": None if self.rate is None else self.rate.prefactor,
            "lifetime_s": lifetime,
            "note": self.note or None,
            "wall_s": round(self.wall_s, 3),
            "units": str(Units.of(self.experiment.model.energy_units)),
        } | ({"warnings": list(self.warnings)} if self.warnings else {})

    def _illustrated(self, folder: FilePath) -> PathResult:
        """Draw the pictures, some of which evaluate the model; the same, with a note where that fails."""
        try:
            pictures.write(self, folder)
        except Exception as error:
            return replace(self, notes=(*self.notes, f"not all pictures were drawn: {_cause(error)}"))
        return self

    def _write_band(self, folder: FilePath) -> None:
        """Write the saddle in the model's format and ``profile.csv``; the path is there already."""
        self.experiment.model.write(folder / "saddle", self.saddle[None], [self.saddle_energy])
        lines = [
            f"{s:.12g},{e:.12g},{d:.12g}"
            for s, e, d in zip(self.s.tolist(), self.energy.tolist(), self.slope.tolist(), strict=True)
        ]
        atomic.write_text(folder / "profile.csv", "\n".join(["s,energy,slope", *lines]) + "\n")
        if len(self.barriers) > 1:
            atomic.write_json(folder / "barriers.json", self.barriers)


def _lost(result: Result, energy: torch.Tensor) -> str:
    """Why no path has a barrier."""
    bad = [str(k) for k, one in enumerate(energy.tolist()) if not math.isfinite(one)]
    where = f"image {', '.join(bad)} of the path" if bad else "the path"
    ended = sorted({reason.value for reason in result.reason})
    return (
        f"there is no barrier: {where} has no finite energy (the relaxation ended because: {'; '.join(ended)}). Atoms "
        f"may have met: try `start: {{way: idpp}}`, key images, or a smaller `max_step` of the optimizer. Or the "
        f"potential failed: resume the run to look at the relaxed path again. Its images are in the results"
    )


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
