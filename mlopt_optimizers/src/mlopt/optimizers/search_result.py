"""What a search returns, and the files that it leaves."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core import atomic
from mlopt.core.errors import MloptError
from mlopt.core.experiment import Context
from mlopt.core.lazy import torch
from mlopt.core.minima import MinimaStore, Minimum, verify
from mlopt.core.result import Result
from mlopt.core.statistics import mean_calls_to_hit
from mlopt.core.systems import Systems
from mlopt.core.units import Units
from mlopt.optimizers.polish import Polished, best_of_each, lowest_met

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from mlopt.optimizers.search import Search

#: a polished structure with a larger atomic force than this is no minimum and is not stored, unless the polish was
#: asked for no better
_MINIMUM_FORCE = 1e-3


@dataclass(frozen=True)
class SearchResult:
    """Outcome of a search.

    result: of every start, as the search left it. polished: the best point of each start, relaxed and verified.
    minima: the unique minima, lowest first. wall_s: seconds, over all sittings of a resumed run. engine: that searched.
    """

    search: Search
    result: Result
    polished: Polished
    minima: list[Minimum]
    force_calls: int
    wall_s: float
    engine: str = "eager"

    @classmethod
    def of(
        cls,
        search: Search,
        result: Result,
        context: Context,
        elapsed: Callable[[], float],
        engine: str = "eager",
    ) -> SearchResult:
        """Polish what a search left, store the minima, and write the files of a run."""

        def pause() -> bool:
            return context.stopping

        base = search.system.load().repeat(len(result)).to(result.x.device)
        best = best_of_each(result, base, search.potential, search.polish, pause)
        met = lowest_met(result, base, search.potential, search.polish, search.minima.keep, pause)
        minima = _store(search, [best, met], context)
        calls = int(result.calls.sum()) + int(best.spent.sum()) + int(met.spent.sum()) + len(minima)
        found = cls(search, result, best, minima, calls, elapsed(), engine)
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
    def best(self) -> Minimum | None:
        """The lowest minimum, or None where no start ended at one."""
        return self.minima[0] if self.minima else None

    def table(self) -> list[dict[str, Any]]:
        """One row a start, ready for ``pandas.DataFrame``."""
        rows = self.result.table()
        energies = self.polished.energy.tolist()
        for row, hit, energy in zip(rows, self.first_hits, energies, strict=True):
            row["first_hit"] = hit
            row["polished_energy"] = energy if math.isfinite(energy) else None
        return rows

    def atoms(self) -> list[Atoms]:
        """The unique minima as ASE atoms, lowest first."""
        return [minimum.to_atoms(rank) for rank, minimum in enumerate(self.minima, start=1)]

    def summary(self) -> dict[str, Any]:
        """The numbers that ``mlopt run --json`` prints."""
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
        return {
            "experiment": "search",
            **ended,
            "best_energy": lowest,
            "target_energy": None if target is None else target.energy,
            "starts": len(self.result),
            "hits": sum(hit is not None for hit in hits) if target is not None else None,
            "mean_calls_to_hit": mean,
            "force_calls": self.force_calls,
            "wall_s": round(self.wall_s, 3),
            "converged": converged,
            "failed_starts": int(self.result.failed.sum()),
            "unique_minima": len(self.minima),
            "units": str(Units.of(self.search.potential.units)),
            "engine": self.engine,
        }

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
        _write_extxyz(folder / "starts.extxyz", structures)


def _store(search: Search, batches: list[Polished], context: Context) -> list[Minimum]:
    """Put polished structures that are minima into the run's store (and a shared one), and return the unique ones."""
    folder = context.results()
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            return _fill(search, batches, Path(scratch), context.run_id, "")
    for leftover in folder.glob("minima.db*"):  # a resumed run may find a store that it had half filled
        leftover.unlink()
    return _fill(search, batches, folder, context.run_id, folder.parent.name)


def _fill(search: Search, batches: list[Polished], folder: Path, run_id: str, name: str) -> list[Minimum]:
    settings = search.minima
    potential = json.dumps(search.config()["potential"], sort_keys=True)
    relaxed_to = max(_MINIMUM_FORCE, search.polish.fmax or 0.0)
    best = batches[0].energy
    with MinimaStore(folder / "minima.db", settings.energy_window, settings.distance_tolerance) as store:
        for batch, kind in zip(batches, ("best", "met"), strict=True):
            order = torch.argsort(batch.calls, stable=True).tolist()  # who was first is told as the finder
            for i in order:
                start, energy = int(batch.start[i]), float(batch.energy[i])
                if not float(batch.fmax[i]) <= relaxed_to or not math.isfinite(energy):
                    continue
                if kind == "met" and abs(energy - float(best[start])) < settings.energy_window:
                    continue  # that start has been counted at this minimum
                one = batch.systems[i]
                store.add(
                    Minimum(
                        energy,
                        one.pos.numpy(),
                        one.z.numpy(),
                        one.cell[0].numpy(),
                        one.pbc[0].numpy(),
                        max_force=float(batch.fmax[i]),
                        potential=potential,
                        first_run=name,
                        seed=search.seed,
                        start_index=start,
                        force_calls=int(batch.calls[i]),
                        source=f"{run_id}/{kind}/{name}/{i}",
                    )
                )
        minima = _verified(list(store), search, relaxed_to)
        if settings.database is not None:
            with MinimaStore(
                settings.database, settings.energy_window, settings.distance_tolerance
            ) as shared:
                shared.merge_from(store)
    return minima


def _verified(minima: list[Minimum], search: Search, relaxed_to: float) -> list[Minimum]:
    """The minima as read back from the store, each evaluated again from its stored coordinates.

    Raises:
        MloptError: one does not have the energy that is stored with it.
    """

    def evaluate(
        pos: NDArray[Any], z: NDArray[Any], cell: NDArray[Any], pbc: NDArray[Any]
    ) -> tuple[float, NDArray[Any]]:
        system = Systems(
            torch.from_numpy(pos),
            torch.from_numpy(z),
            torch.tensor([0, len(z)]),
            torch.from_numpy(cell)[None],
            torch.from_numpy(pbc)[None],
        )
        found = search.potential.evaluate(system)
        return float(found.energy[0]), found.force.numpy()

    # a file may fix atoms, and the forces on those are not zero
    force_tolerance = 1.01 * relaxed_to if search.system.file is None else math.inf
    for minimum in minima:
        told = verify(minimum, evaluate, force_tolerance, 1e-9 * (1.0 + abs(minimum.energy)))
        if not told.ok:
            raise MloptError(
                f"minimum {minimum.id} does not hold when it is evaluated again: {told.reason}. "
                f"A potential must give the same energy for the same coordinates."
            )
    return minima


def _finite(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


def _write_extxyz(path: Path, structures: list[Atoms]) -> None:
    from ase.io import write

    temporary = path.with_name("." + path.name)
    write(temporary, structures, format="extxyz")
    temporary.replace(path)
