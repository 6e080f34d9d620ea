"""What a search returns, and the files that it leaves."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import Units
from mlopt.core.driver.result import Result
from mlopt.core.files import atomic
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.core.minima.store import MinimaStore, Minimum
from mlopt.core.minima.verification import ROUNDING, Check, Reading, check_records
from mlopt.core.reporting.statistics import mean_calls_to_hit
from mlopt.core.reporting.summary import Summary
from mlopt.core.runs.experiment import Context
from mlopt.core.structures.write import write_extxyz
from mlopt.optimizers.experiments.search.clock import SearchClock
from mlopt.optimizers.experiments.search.polish import Polished, at, best_of_each, lowest_met, readings
from mlopt.optimizers.experiments.search.roughness import Roughness, is_exact, measure

if TYPE_CHECKING:
    from ase import Atoms

    from mlopt.optimizers.experiments.search.experiment import Search

#: a polished structure with a larger atomic force than this is no minimum and is not stored, unless the polish was
#: asked for no better
_MINIMUM_FORCE = 1e-3


@dataclass(frozen=True)
class SearchResult:
    """Outcome of a search.

    result: of every start, as the search left it. polished: the best point of each start, relaxed and verified.
    minima: the unique minima, lowest first. check: how they did when they were evaluated again. wall_s: seconds, over
    all sittings of a resumed run. compile_s: those of compiling, which are not among them. engine: that searched.
    roughness: how well the potential repeats an energy, measured before the polish; None where it is known to be exact.
    """

    search: Search
    result: Result
    polished: Polished
    minima: list[Minimum]
    check: Check
    force_calls: int
    wall_s: float
    engine: str = "eager"
    compile_s: float = 0.0
    roughness: Roughness | None = None

    @classmethod
    def of(
        cls,
        search: Search,
        result: Result,
        context: Context,
        clock: SearchClock,
        engine: str = "eager",
    ) -> SearchResult:
        """Polish what a search left, store the minima, and write the files of a run."""

        def pause() -> bool:
            return context.stopping

        base = search.system.load().repeat(len(result)).to(result.x.device)
        rough = _roughness(search, result, base)
        how = search.polish if rough is None else search.polish.tolerating(rough.rise)
        best = best_of_each(result, base, search.potential, how, pause)
        met = lowest_met(result, base, search.potential, how, search.minima.keep, pause)
        minima, check = _store(search, [best, met], context, rough)
        calls = int(result.calls.sum()) + int(best.spent.sum()) + int(met.spent.sum()) + check.calls
        calls += search.potential.trial(search.system.load()).calls + (0 if rough is None else rough.calls)
        found = cls(search, result, best, minima, check, calls, clock.seconds, engine, clock.compile_s, rough)
        context.warn([*found.warnings, *search.potential.remarks()])
        folder = context.results()
        if folder is not None:
            found.write(folder)
        return found

    @property
    def first_hits(self) -> list[int | None]:
        """Force calls after which each start reached the target; the polish counts where it made the difference."""
        hits: list[int | None] = [None if hit < 0 else hit for hit in self.result.first_hit.tolist()]
        target = self.search.target
        if target is None:
            return hits
        reached = (self.polished.energy <= target.energy + target.tolerance).tolist()
        polished = (self.result.calls.cpu() + self.polished.spent).tolist()
        return [polished[i] if hit is None and reached[i] else hit for i, hit in enumerate(hits)]

    @property
    def warnings(self) -> list[str]:
        """What to know before one trusts the energies: of the potential, and of minima that do not hold."""
        lines = list(self.search.potential.trial(self.search.system.load()).warnings)
        check, window = self.check, self.search.minima.energy_window
        if check.missed:
            ids = ", ".join(str(self.minima[index].id) for index in check.missed[:5])
            lines.append(
                f"{len(check.missed)} of {len(self.minima)} minima have another energy when they are evaluated again "
                f"(id {ids}; the first: {check.verifications[check.missed[0]].reason}). They are kept, with "
                f"`verified` false. A potential should give the same energy for the same coordinates"
            )
        slack = [one.max_force for one in self.minima if one.notes.get("relaxed") is False]
        if slack:
            lines.append(
                f"{len(slack)} of {len(self.minima)} minima were not relaxed to a force of "
                f"{relaxed_to(self.search):g}, for the potential is too rough (they have up to {max(slack):.2g}). They "
                f"are kept, with `relaxed` false. Converge the potential more tightly, or raise `polish.fmax`"
            )
        if self.minima and check.within(self.minima[0].energy) > window:
            lines.append(
                f"the potential repeats an energy only to {check.within(self.minima[0].energy):.2g}, and "
                f"`minima.energy_window` is {window:g}: a minimum may be listed more than once. Raise the window, or "
                f"converge the potential more tightly"
            )
        return lines

    @property
    def best(self) -> Minimum | None:
        """The lowest minimum, or None where no start ended at one."""
        return self.minima[0] if self.minima else None

    def table(self) -> list[dict[str, Any]]:
        """One row a start, ready for ``pandas.DataFrame``."""
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
        """The unique minima as ASE atoms, lowest first."""
        return [minimum.to_atoms(rank) for rank, minimum in enumerate(self.minima, start=1)]

    def summary(self) -> Summary:
        """The numbers that ``mlopt run --json`` prints, and whether the search came to what it was after."""
        told, kind = self._numbers(), "converged" if self.search.target is None else "reached the target"
        return Summary(
            told, reached=told["converged"], missed=f"no start {kind}", remarks=told.get("warnings", ())
        )

    def _numbers(self) -> dict[str, Any]:
        target = self.search.target
        hits = self.first_hits
        mean = None
        if target is not None:
            mean = (
                mean_calls_to_hit(hits, self.result.calls.tolist()).mean
                if any(h is not None for h in hits)
                else None
            )
        energies = [e for e in self.polished.energy.tolist() if math.isfinite(e)]
        lowest = min([*energies, *([self.best.energy] if self.best else [])], default=None)
        converged: bool | None = None  # nothing was asked for that could be missed
        if target is not None:
            converged = any(hit is not None for hit in hits)
        elif self.search.fmax is not None:
            converged = bool(self.result.converged.all())
        ended: dict[str, Any] = {"status": "finished"}
        if bool(self.result.failed.all()):
            ended = {"status": "failed", "failure": "the run failed: every start did"}
        told: dict[str, Any] = {
            "experiment": "search",
            **ended,
            "best_energy": lowest,
            "target_energy": None if target is None else target.energy,
            "starts": len(self.result),
            "hits": sum(hit is not None for hit in hits) if target is not None else None,
            "mean_calls_to_hit": mean,
            "force_calls": self.force_calls,
            "wall_s": round(self.wall_s, 3),
            "compile_s": round(self.compile_s, 3),
            "converged": converged,
            "failed_starts": int(self.result.failed.sum()),
            "unique_minima": len(self.minima),
            "unverified_minima": len(self.check.missed),
            "verified_within": self.check.within(self.best.energy) if self.best else None,
            "repeats_to": None if self.roughness is None or lowest is None else self.roughness.at(lowest),
            "units": str(Units.of(self.search.potential.units)),
            "engine": self.engine,
        }
        if self.best is not None and "energy_zero_width" in self.best.notes:
            told["best_energy_zero_width"] = self.best.notes["energy_zero_width"]
        if self.warnings:
            told["warnings"] = self.warnings
        return told

    def write(self, folder: Path) -> None:
        """Write ``starts.json``, ``trace.json``, ``starts.extxyz``, ``minima.extxyz`` and ``minima.ase.db``."""
        atomic.write_json(folder / "starts.json", _finite(self.table()))
        trace = {"calls": self.result.trace_calls.tolist(), "energy": self.result.trace_energy.tolist()}
        atomic.write_json(folder / "trace.json", _finite(trace))
        with MinimaStore(folder / "minima.db") as store:
            store.to_extxyz(folder / "minima.extxyz", self.minima)
            store.to_ase_db(folder / "minima.ase.db", self.minima)
        structures = self.polished.systems.to_atoms()
        for row, atoms in zip(self.table(), structures, strict=True):
            atoms.info.update({key: value for key, value in row.items() if value is not None})
        write_extxyz(folder / "starts.extxyz", structures)


def relaxed_to(search: Search) -> float:
    """Largest atomic force of what counts as a minimum."""
    return max(_MINIMUM_FORCE, search.polish.fmax or 0.0)


def _roughness(search: Search, result: Result, base: Systems) -> Roughness | None:
    """How well the potential repeats the energy of the best start; None where there is nothing to measure.

    There, and not at the first point: drawn at random, that has energies as no minimum has.
    """
    energy = torch.where(torch.isfinite(result.energy), result.energy, torch.inf)
    if search.polish.force_calls == 0 or is_exact(search.potential, base) or bool(energy.isinf().all()):
        return None
    return measure(search.potential, at(base, result.x).select(energy.argmin()[None]))


def _store(
    search: Search, batches: list[Polished], context: Context, rough: Roughness | None
) -> tuple[list[Minimum], Check]:
    """Put polished structures that are minima into the run's store (and a shared one), and return the unique ones."""
    folder = context.results()
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            return _fill(search, batches, Path(scratch), context.run_id, "", rough)
    for leftover in folder.glob("minima.db*"):  # a resumed run may find a store that it had half filled
        leftover.unlink()
    return _fill(search, batches, folder, context.run_id, folder.parent.name, rough)


def _fill(
    search: Search, batches: list[Polished], folder: Path, run_id: str, name: str, rough: Roughness | None
) -> tuple[list[Minimum], Check]:
    """Fill the run's store, and a shared one with it.

    A point that was not relaxed far enough is left out, for it is no minimum. The best of a start stays where the
    potential is too rough for better, and is marked: nothing else would tell of what was paid for.
    """
    settings = search.minima
    potential = json.dumps(search.config()["potential"], sort_keys=True)
    enough = relaxed_to(search)
    too_rough = rough is not None and rough.relative > ROUNDING
    best = batches[0].energy
    with MinimaStore(folder / "minima.db", settings.energy_window, settings.distance_tolerance) as store:
        for batch, kind in zip(batches, ("best", "met"), strict=True):
            order = torch.argsort(batch.calls, stable=True).tolist()  # who was first is told as the finder
            for i in order:
                start, energy = int(batch.start[i]), float(batch.energy[i])
                limit = math.inf if kind == "best" and too_rough else enough
                if not math.isfinite(energy) or not float(batch.fmax[i]) <= limit:
                    continue
                if kind == "met" and abs(energy - float(best[start])) < settings.energy_window:
                    continue  # that start has been counted at this minimum
                store.add(
                    Minimum.of(
                        batch.systems,
                        i,
                        energy,
                        max_force=float(batch.fmax[i]),
                        potential=potential,
                        first_run=name,
                        seed=search.seed,
                        start_index=start,
                        force_calls=int(batch.calls[i]),
                        source=f"{run_id}/{kind}/{name}/{i}",
                    )
                )
        minima, check = _verified(store, search)
        if settings.database is not None:
            with MinimaStore(
                settings.database, settings.energy_window, settings.distance_tolerance
            ) as shared:
                shared.merge_from(store)
    return minima, check


def _verified(store: MinimaStore, search: Search) -> tuple[list[Minimum], Check]:
    """The minima as read back, each evaluated again from its stored coordinates; the store notes what came of it."""
    minima, enough = list(store), relaxed_to(search)

    def evaluate(indices: list[int]) -> list[Reading]:
        # with what is fixed, and with the charges and moments that a calculator may ask for
        systems = Systems.concatenate([minima[index].system() for index in indices])
        return readings(AtomsLandscape(systems, search.potential))

    largest = max([enough, *(one.max_force for one in minima)])
    check = check_records([one.energy for one in minima], evaluate, 1.01 * largest)
    for minimum, told in zip(minima, check.verifications, strict=True):
        notes: dict[str, float | bool] = {}
        if minimum.max_force > enough:
            notes["relaxed"] = False
        if not told.ok:
            notes["verified"] = False
            if math.isfinite(told.energy):
                notes["energy_again"] = told.energy
        if told.zero_width is not None:
            notes["energy_zero_width"] = told.zero_width
        if notes and minimum.id is not None:
            store.note(minimum.id, notes)
    return list(store), check


def _finite(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
