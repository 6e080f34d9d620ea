"""The result of a search, and the files that it writes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.units import Units
from mlopt.core.driver.result import Result
from mlopt.core.files import atomic
from mlopt.core.minima.store import MinimaStore, Minimum
from mlopt.core.minima.verification import Check
from mlopt.core.reporting.summary import Summary
from mlopt.core.structures.write import write_extxyz
from mlopt.optimizers.experiments.search.polish import Polished
from mlopt.optimizers.experiments.search.roughness import Roughness
from mlopt.optimizers.experiments.search.verdict import Verdict
from mlopt.optimizers.searches.settings import Target

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search.

    result: the result of every start, before the polish.
    polished: the best point of each start, relaxed and verified.
    minima: the unique minima, lowest first.
    check: the outcome of the second evaluation of these minima.
    target: the energy to reach.
    fmax: the force threshold of local optimizers.
    units: units of the energies.
    roughness: how well the potential repeats an energy, measured before the polish; None where it is known to be exact.
    warnings: doubts about the energies.
    force_calls: force calls of the search, the polish and the verification.
    engine: the engine of the search.
    wall_s: seconds over all sittings, without compiling.
    compile_s: seconds of compiling.
    """

    result: Result
    polished: Polished
    minima: list[Minimum]
    check: Check
    units: Units
    force_calls: int
    wall_s: float
    target: Target | None = None
    fmax: float | None = None
    roughness: Roughness | None = None
    warnings: tuple[str, ...] = ()
    engine: str = "eager"
    compile_s: float = 0.0

    @property
    def first_hits(self) -> list[int | None]:
        """Force calls until each start reached the target, including the polish if only it reached the target."""
        hits: list[int | None] = [None if hit < 0 else hit for hit in self.result.first_hit.tolist()]
        if self.target is None:
            return hits
        reached = (self.polished.energy <= self.target.energy + self.target.tolerance).tolist()
        polished = (self.result.calls.cpu() + self.polished.spent).tolist()
        return [polished[i] if hit is None and reached[i] else hit for i, hit in enumerate(hits)]

    @property
    def best(self) -> Minimum | None:
        """The lowest minimum, or None if no start ended at one."""
        return self.minima[0] if self.minima else None

    @property
    def converged(self) -> bool | None:
        """True if a start reached the target, or all starts the force threshold; None if neither was asked for."""
        if self.target is not None:
            return any(hit is not None for hit in self.first_hits)
        return None if self.fmax is None else bool(self.result.converged.all())

    def table(self) -> list[dict[str, Any]]:
        """Return one row per start, ready for ``pandas.DataFrame``."""
        rows = self.result.table()
        columns = {"polished_energy": self.polished.energy}
        if self.polished.zero_width is not None:
            columns["energy_zero_width"] = self.polished.zero_width
        for i, (row, hit) in enumerate(zip(rows, self.first_hits, strict=True)):
            row["first_hit"] = hit
            told = {name: float(column[i]) for name, column in columns.items()}
            row |= {name: value if math.isfinite(value) else None for name, value in told.items()}
        return rows

    def atoms(self) -> list[Atoms]:
        """Return the unique minima as ASE atoms, lowest first."""
        return [minimum.to_atoms(rank) for rank, minimum in enumerate(self.minima, start=1)]

    def write(self, folder: Path) -> None:
        """Write ``starts.json``, ``trace.json``, ``starts.extxyz``, ``minima.extxyz`` and ``minima.ase.db``.

        The store ``minima.db`` exists already.
        """
        atomic.write_json(folder / "starts.json", atomic.finite(self.table()))
        trace = {"calls": self.result.trace_calls.tolist(), "energy": self.result.trace_energy.tolist()}
        atomic.write_json(folder / "trace.json", atomic.finite(trace))
        with MinimaStore(folder / "minima.db") as store:
            store.to_extxyz(folder / "minima.extxyz", self.minima)
            store.to_ase_db(folder / "minima.ase.db", self.minima)
        structures = self.polished.systems.to_atoms()
        for row, atoms in zip(self.table(), structures, strict=True):
            atoms.info.update({key: value for key, value in row.items() if value is not None})
        write_extxyz(folder / "starts.extxyz", structures)

    @property
    def lowest(self) -> float | None:
        """The lowest energy of starts and of minima met; None if none is finite."""
        energies = [e for e in self.polished.energy.tolist() if math.isfinite(e)]
        return min([*energies, *([self.best.energy] if self.best else [])], default=None)

    @property
    def verdict(self) -> Verdict:
        """The outcome of the search in words."""
        return Verdict(
            [e if math.isfinite(e) else None for e in self.polished.energy.tolist()],
            self.first_hits,
            self.result.calls.tolist(),
            self.lowest,
            target=None if self.target is None else self.target.energy,
            failed=int(self.result.failed.sum()),
            force_calls=self.force_calls,
            minima=len(self.minima),
            unit="" if self.units.reduced else self.units.energy,
        )

    def summary(self) -> Summary:
        """Return the numbers that ``mlopt run --json`` prints, and the content of the report."""
        kind, verdict = "converged" if self.target is None else "reached the target", self.verdict
        return Summary(
            self._numbers(verdict),
            headline=verdict.headline,
            failure="the run failed: every start did" if bool(self.result.failed.all()) else "",
            reached=self.converged,
            missed=f"no start {kind}",
            cards=verdict.cards,
            remarks=self.warnings,
        )

    def _numbers(self, verdict: Verdict) -> dict[str, Any]:
        lowest, cost = self.lowest, verdict.cost
        told: dict[str, Any] = {
            "best_energy": lowest,
            "target_energy": verdict.target,
            "starts": len(self.result),
            "hits": None if cost is None else verdict.hits,
            "mean_calls_to_hit": cost.mean if cost is not None and math.isfinite(cost.mean) else None,
            "force_calls": self.force_calls,
            "wall_s": round(self.wall_s, 3),
            "compile_s": round(self.compile_s, 3),
            "converged": self.converged,
            "failed_starts": verdict.failed,
            "unique_minima": len(self.minima),
            "unverified_minima": len(self.check.missed),
            "verified_within": self.check.within(self.best.energy) if self.best else None,
            "repeats_to": None if self.roughness is None or lowest is None else self.roughness.at(lowest),
            "units": str(self.units),
            "engine": self.engine,
        }
        if self.best is not None and "energy_zero_width" in self.best.notes:
            told["best_energy_zero_width"] = self.best.notes["energy_zero_width"]
        if self.warnings:
            told["warnings"] = list(self.warnings)
        return told
