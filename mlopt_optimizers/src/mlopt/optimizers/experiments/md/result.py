"""The result of molecular dynamics, and the files that it writes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlopt.core.atoms.units import Units
from mlopt.core.driver.stop import Reason
from mlopt.core.files import atomic
from mlopt.core.lazy import torch
from mlopt.core.reporting.summary import Card, Column, Figure, Summary, Table
from mlopt.optimizers.experiments.md import pictures
from mlopt.optimizers.experiments.md.recording import CONSERVED, KINETIC, POTENTIAL, TEMPERATURE


@dataclass(frozen=True)
class MdResult:
    """The outcome of molecular dynamics.

    units: the units of energies.
    time_step: the time step in fs, or reduced.
    temperature (n_walkers,): temperature of the thermostat, K or reduced; without one that of the initial velocities.
    steps (n_frames,) int64: the step of each frame.
    series (n_frames, n_walkers, 4): potential energy, kinetic energy, temperature and conserved energy; NaN for walkers
    that have ended.
    reasons: why each walker ended.
    lived (n_walkers,) int64: steps until then.
    planned: steps that were asked for.
    atoms: number of atoms in a walker.
    equilibration: steps that averages leave out.
    wall_s: seconds over all sittings, without compiling.
    compile_s: seconds of compiling.
    """

    units: Units
    time_step: float
    temperature: torch.Tensor
    steps: torch.Tensor
    series: torch.Tensor
    reasons: list[Reason]
    lived: torch.Tensor
    atoms: int
    planned: int
    equilibration: int
    force_calls: int
    wall_s: float
    compile_s: float = 0.0
    engine: str = "eager"

    @property
    def failed(self) -> list[bool]:
        """Whether each walker failed, before its steps were done."""
        return [reason.is_failure for reason in self.reasons]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was wrong with walkers, one sentence for each reason, the most frequent first."""
        walkers = {
            reason: [i for i, one in enumerate(self.reasons) if one is reason]
            for reason in Reason
            if reason.is_failure and reason in self.reasons
        }
        said = []
        for reason, which in sorted(walkers.items(), key=lambda one: -len(one[1])):
            first = min(int(self.lived[i]) for i in which)
            some = "walker" if len(which) == 1 else "walkers"
            said.append(f"{len(which)} {some} failed, from step {first:,} on: {reason.value}")
        return tuple(said)

    def table(self) -> list[dict[str, Any]]:
        """Return one row per walker, ready for ``pandas.DataFrame``.

        Averages are over its frames in equilibrium, without the last one of a walker that failed.
        """
        kept = self.series[self.steps >= self.equilibration]
        rows = []
        for walker, reason in enumerate(self.reasons):
            own = kept[:, walker][torch.isfinite(kept[:, walker]).all(1)]
            own = own[:-1] if reason.is_failure else own
            whole = self.series[:, walker, CONSERVED]
            whole = whole[torch.isfinite(whole)]
            row: dict[str, Any] = {
                "walker": walker,
                "set_temperature": float(self.temperature[walker]),
                "steps": int(self.lived[walker]),
                "time": int(self.lived[walker]) * self.time_step,
                "failed": reason.is_failure,
                "reason": reason.name.lower().replace("_", "-"),
            }
            for name, column in (("temperature", TEMPERATURE), ("potential", POTENTIAL)):
                row[name] = float(own[:, column].mean()) if len(own) else None
                row[f"{name}_deviation"] = float(own[:, column].std()) if len(own) > 1 else None
            row["drift"] = float(whole[-1] - whole[0]) / self.atoms if len(whole) else None
            rows.append(atomic.finite(row))
        return rows

    def write(self, folder: Path) -> None:
        """Write ``walkers.json``, ``observables.csv`` and ``observables.svg``; trajectories exist already."""
        atomic.write_json(folder / "walkers.json", self.table())
        atomic.write_text(folder / "observables.csv", self._csv())
        pictures.draw(
            self.steps * self.time_step,
            self.series,
            self.temperature,
            self.units,
            folder / "observables.svg",
        )

    def _csv(self) -> str:
        """Return a line for each frame of each walker."""
        lines = ["step,time,walker,potential,kinetic,temperature,conserved"]
        for step, rows in zip(self.steps.tolist(), self.series.tolist(), strict=True):
            for walker, row in enumerate(rows):
                if math.isfinite(row[CONSERVED]):
                    told = (row[one] for one in (POTENTIAL, KINETIC, TEMPERATURE, CONSERVED))
                    lines.append(",".join(map(repr, (step, step * self.time_step, walker, *told))))
        return "\n".join(lines) + "\n"

    @property
    def time_unit(self) -> str:
        """The unit of times: fs, or empty."""
        return "" if self.units.reduced else "fs"

    @property
    def mean_temperature(self) -> float | None:
        """The mean over all frames in equilibrium of all walkers that have not failed; None if there is none."""
        sound = ~torch.tensor(self.failed)
        found = self.series[self.steps >= self.equilibration][:, sound, TEMPERATURE]
        return float(found.mean()) if found.numel() else None

    def summary(self) -> Summary:
        """Return the numbers that ``mlopt run --json`` prints, and the content of the report."""
        rows, failed, n = self.table(), sum(self.failed), len(self.reasons)
        mean = self.mean_temperature
        kelvin = "" if self.units.reduced else " K"
        walkers = "1 walker" if n == 1 else f"{n:,} walkers"
        headline = f"{walkers}, {self.planned:,} steps"
        headline += "" if mean is None else f", mean temperature {mean:.4g}{kelvin}"
        headline += f", {failed} failed" if failed else ""
        drifts = [abs(row["drift"]) for row in rows if row["drift"] is not None and not row["failed"]]
        numbers: dict[str, Any] = {
            "walkers": n,
            "failed_walkers": failed,
            "steps": self.planned,
            "time": self.planned * self.time_step,
            "mean_temperature": mean,
            "largest_drift": max(drifts, default=None),
            "force_calls": self.force_calls,
            "wall_s": round(self.wall_s, 3),
            "compile_s": round(self.compile_s, 3),
            "units": str(self.units),
            "engine": self.engine,
            "rows": rows,
        }
        return Summary(
            numbers | ({"warnings": list(self.warnings)} if self.warnings else {}),
            headline=headline,
            failure=f"the run failed: every walker did; {self.warnings[0]}" if failed == n else "",
            cards=[
                Card("walkers", n, note=f"{failed} failed" if failed else "none failed"),
                Card("time", self.planned * self.time_step, self.time_unit, f"{self.planned:,} steps"),
                Card("mean temperature", mean, kelvin.strip()),
                Card(
                    "largest drift",
                    max(drifts, default=None),
                    "" if self.units.reduced else self.units.energy,
                    "of the conserved energy, an atom",
                ),
            ],
            tables=[self._shown(rows)],
            figures=[
                Figure(
                    "Observables", "observables.svg", "Of each walker; the conserved energy from its start."
                )
            ],
            remarks=self.warnings,
        )

    def _shown(self, rows: list[dict[str, Any]]) -> Table:
        kelvin, energy = ("", "") if self.units.reduced else ("K", self.units.energy)
        columns = [
            Column("walker"),
            Column("set to", kelvin),
            Column("temperature", kelvin, 2),
            Column("±", kelvin, 2),
            Column("potential energy", energy, 4),
            Column("drift an atom", energy),
            Column("time", self.time_unit),
            Column("end"),
        ]
        names = "walker set_temperature temperature temperature_deviation potential drift time reason".split()
        return Table("Walkers", columns, [[row[name] for name in names] for row in rows])
