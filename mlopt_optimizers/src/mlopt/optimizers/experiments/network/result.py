"""The result of a network exploration: minima and transition states, and the files that it writes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import Units
from mlopt.core.files import atomic
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.minima.verification import Check, Reading, check_records
from mlopt.core.reporting.spelling import counted
from mlopt.core.reporting.summary import Card, Column, Figure, Summary, Table
from mlopt.core.structures.write import write_extxyz
from mlopt.optimizers.experiments.network import pictures
from mlopt.optimizers.experiments.search.polish import readings
from mlopt.optimizers.saddles.explorer import Point, StationaryPoints

if TYPE_CHECKING:
    from ase import Atoms

#: rows of the table in the report: the lowest saddles
_ROWS = 100


@dataclass(frozen=True)
class NetworkResult:
    """The outcome of `Network`: minima and saddles, each lowest first.

    system: a batch of one; its positions are not used.
    units: units of the energies.
    ends: the minima that each saddle joins, the lower first, -1 for an unknown one.
    found: counts of the exploration.
    check: the outcome of the second evaluation, of minima and then of saddles.
    complete: True if the last rounds brought nothing new and every saddle joins two known minima.
    warnings: doubts about the energies.
    wall_s: seconds over all sittings.
    """

    system: Systems
    units: Units
    minima: list[Point]
    saddles: list[Point]
    ends: list[tuple[int, int]]
    found: StationaryPoints
    check: Check
    complete: bool
    warnings: tuple[str, ...] = ()
    wall_s: float = 0.0

    @classmethod
    def of(
        cls, found: StationaryPoints, system: Systems, potential: Potential, *, patience: int
    ) -> NetworkResult:
        """Sort minima and saddles, and evaluate all again from the stored coordinates.

        patience: number of rounds without anything new after which the exploration counts as complete.
        """
        order = sorted(range(len(found.minima)), key=lambda i: found.minima[i].energy)
        rank = {old: new for new, old in enumerate(order)} | {-1: -1}
        tops = sorted(range(len(found.saddles)), key=lambda i: found.saddles[i].energy)
        ends = [(min(pair), max(pair)) for pair in ([rank[end] for end in found.ends[i]] for i in tops)]
        minima, saddles = [found.minima[i] for i in order], [found.saddles[i] for i in tops]
        check, trial = _verified(minima + saddles, system, potential), potential.trial(system)
        return cls(
            system,
            Units.of(potential.units),
            minima,
            saddles,
            ends,
            replace(found, calls=found.calls + check.calls + trial.calls),
            check,
            complete=found.idle >= patience and all(low >= 0 for low, _ in ends),
            warnings=(*trial.warnings, *_doubts(check, len(minima) + len(saddles))),
        )

    def table(self) -> list[dict[str, Any]]:
        """Return one row per transition state, ready for ``pandas.DataFrame``."""
        rows = []
        for i, (saddle, pair) in enumerate(zip(self.saddles, self.ends, strict=True)):
            over = [saddle.energy - self.minima[end].energy if end >= 0 else None for end in pair]
            rows.append(
                {
                    "saddle": i,
                    "energy": saddle.energy,
                    "minimum_1": pair[0] if pair[0] >= 0 else None,
                    "minimum_2": pair[1] if pair[1] >= 0 else None,
                    "barrier_1": over[0],
                    "barrier_2": over[1],
                    "lowest_eigenvalues": list(saddle.values),
                    "fmax": saddle.fmax,
                }
                | self._notes(len(self.minima) + i)
            )
        return rows

    def _notes(self, point: int) -> dict[str, Any]:
        """Return the outcome of verification for a point, if notable; points are minima, then saddles."""
        told = self.check.verifications[point]
        notes: dict[str, Any] = {} if told.ok else {"verified": False}
        if not told.ok and math.isfinite(told.energy):
            notes["energy_again"] = told.energy
        return notes if told.zero_width is None else notes | {"energy_zero_width": told.zero_width}

    def atoms(self) -> tuple[list[Atoms], list[Atoms]]:
        """Return minima and saddles as ASE atoms, each with its energy in ``info``, lowest first."""
        groups = []
        for points, before in ((self.minima, 0), (self.saddles, len(self.minima))):
            images = []
            for i, point in enumerate(points):
                one = _placed([point], self.system).to_atoms()[0]
                one.info |= {"index": i, "energy": point.energy, "lowest_eigenvalue": point.values[0]}
                one.info |= self._notes(before + i)
                images.append(one)
            groups.append(images)
        return groups[0], groups[1]

    def write(self, folder: Path) -> None:
        """Write ``network.json``, ``minima.extxyz``, ``saddles.extxyz`` and ``disconnectivity.svg``."""
        minima = [
            {"minimum": i, "energy": one.energy, "fmax": one.fmax, "lowest_eigenvalues": list(one.values)}
            | self._notes(i)
            for i, one in enumerate(self.minima)
        ]
        atomic.write_json(folder / "network.json", {"minima": minima, "saddles": self.table()})
        for name, images in zip(("minima", "saddles"), self.atoms(), strict=True):
            write_extxyz(folder / f"{name}.extxyz", images)
        if self._has_graph:
            energies = [one.energy for one in self.minima]
            saddles = [(top.energy, *pair) for top, pair in zip(self.saddles, self.ends, strict=True)]
            pictures.draw(energies, saddles, self.units.label, folder / "disconnectivity.svg")

    @property
    def _has_graph(self) -> bool:
        return len(self.minima) > 1 and bool(self.saddles)

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        lowest = self.units.say(self.minima[0].energy, ".6f")
        return (
            f"{counted(len(self.minima), 'minimum', 'minima')} and "
            f"{counted(len(self.saddles), 'transition state')}; lowest energy {lowest}"
            + ("" if self.complete else " (there may be more)")
        )

    def summary(self) -> Summary:
        """Return the numbers that ``mlopt run --json`` prints, and the content of the report."""
        numbers = self._numbers()
        return Summary(
            numbers,
            headline=self.headline,
            reached=self.complete,
            missed="the last rounds still brought something new, or a saddle joins an unknown minimum",
            cards=self._cards(numbers),
            tables=[self._saddles()] if self.saddles else [],
            figures=[self._graph()] if self._has_graph else [],
            remarks=self.warnings,
        )

    def _numbers(self) -> dict[str, Any]:
        barriers = [row["barrier_1"] for row in self.table() if row["minimum_1"] == 0 != row["minimum_2"]]
        return {
            "best_energy": self.minima[0].energy,
            "minima": len(self.minima),
            "transition_states": len(self.saddles),
            "connected": sum(low >= 0 for low, _ in self.ends),
            "lowest_barrier": min((b for b in barriers if b is not None), default=None),
            "force_calls": self.found.calls,
            "rounds": self.found.rounds,
            "searches": self.found.searches,
            "searches_at_saddles": self.found.hits,
            "wall_s": round(self.wall_s, 3),
            "converged": self.complete,
            "unverified_points": len(self.check.missed),
            "verified_within": self.check.within(self.minima[0].energy),
            "units": str(self.units),
        } | ({"warnings": list(self.warnings)} if self.warnings else {})

    def _cards(self, numbers: Mapping[str, Any]) -> list[Card]:
        unit = "" if self.units.reduced else self.units.energy
        connected = numbers["connected"]
        all_join = connected == len(self.saddles)
        joins = "all join two known minima" if all_join else f"{connected:,} join two known minima"
        joined = {end for pair in self.ends for end in pair if min(pair) >= 0 and pair[0] != pair[1]}
        lone = len(self.minima) - len(joined)
        ended = "nothing new in the last rounds" if self.complete else "there may be more"
        return [
            Card("minima", len(self.minima)),
            Card("transition states", len(self.saddles), note=joins),
            Card("lowest energy", f"{self.minima[0].energy:.6f}", unit),
            Card("lowest barrier", numbers["lowest_barrier"], unit, "out of the lowest minimum"),
            Card("force calls", self.found.calls, note=f"{self.found.rounds:,} rounds"),
            Card("complete", self.complete, note=ended),
            Card("minima without a saddle", lone, note="not joined to any other"),
        ]

    def _saddles(self) -> Table:
        unit = "" if self.units.reduced else self.units.energy
        rows = [
            [
                str(row["saddle"] + 1),
                row["energy"],
                *("?" if row[name] is None else str(row[name] + 1) for name in ("minimum_1", "minimum_2")),
                row["barrier_1"],
                row["barrier_2"],
            ]
            for row in self.table()[:_ROWS]
        ]
        columns = [
            Column("saddle"),
            Column("energy", unit, 6),
            Column("from minimum"),
            Column("to minimum"),
            Column("barrier from", unit, 6),
            Column("barrier to", unit, 6),
        ]
        rest = f" The {_ROWS} lowest are shown." if len(self.saddles) > _ROWS else ""
        caption = (
            f"Minima are numbered by energy, 1 is the lowest; ? is a minimum that was not reached.{rest}"
        )
        return Table("Transition states", columns, rows, caption)

    def _graph(self) -> Figure:
        most = pictures.LEAVES
        rest = f" The {most} lowest minima are drawn." if len(self.minima) > most else ""
        caption = (
            "Every line ends at a minimum. Two lines meet at the lowest saddle over which one gets from one to the"
            f" other.{rest}"
        )
        return Figure("Disconnectivity graph", "disconnectivity.svg", caption)


def _doubts(check: Check, points: int) -> list[str]:
    """Return messages about points that are not reproduced."""
    missed = check.missed
    if not missed:
        return []
    return [
        f"{len(missed)} of {points} points have another energy when they are evaluated again (the first: "
        f"{check.verifications[missed[0]].reason}). They are kept, with `verified` false. A potential should give the "
        f"same energy for the same coordinates"
    ]


def _placed(points: list[Point], system: Systems) -> Systems:
    """Return the structures of ``points`` on the CPU."""
    base = system.repeat(len(points))
    return base.with_pos(torch.cat([point.x for point in points]).to(base.pos))


def _verified(points: list[Point], system: Systems, potential: Potential) -> Check:
    """Evaluate points again from the stored coordinates."""
    systems = _placed(points, system)

    def evaluate(indices: list[int]) -> list[Reading]:
        return readings(AtomsLandscape(systems.select(indices), potential))

    return check_records([point.energy for point in points], evaluate)
