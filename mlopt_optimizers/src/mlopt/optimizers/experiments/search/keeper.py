"""The minima of a search: its points relaxed, reduced to distinct ones in a store, and evaluated again."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlopt.core.atoms.systems import Systems
from mlopt.core.driver.result import Result
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.minima.store import MinimaStore, Minimum
from mlopt.core.minima.verification import ROUNDING, Check, Reading, check_records
from mlopt.core.runs.experiment import Context
from mlopt.optimizers.experiments.search.polish import (
    Polish,
    Polished,
    at,
    best_of_each,
    lowest_met,
    readings,
)
from mlopt.optimizers.experiments.search.roughness import Roughness, is_exact, measure
from mlopt.optimizers.searches.settings import MinimaSettings

#: a polished structure with a larger atomic force than this is no minimum and is not stored, unless the polish was
#: asked for no better
_MINIMUM_FORCE = 1e-3


@dataclass(frozen=True)
class Kept:
    """The minima of a search and how they were obtained.

    polished: the best point of each start, relaxed and verified.
    minima: the unique minima, lowest first.
    check: the outcome of the second evaluation of these minima.
    roughness: how well the potential repeats an energy; None where it is known to be exact.
    calls: force calls for all of this.
    warnings: doubts about the energies.
    """

    polished: Polished
    minima: list[Minimum]
    check: Check
    roughness: Roughness | None
    calls: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Keeper:
    """The settings by which the points of a search become minima.

    potential: the potential.
    described: its configuration, stored with each minimum.
    polish: settings of the relaxation.
    settings: settings that say which minima are kept.
    seed: the seed of the search.
    """

    potential: Potential
    described: Mapping[str, Any]
    polish: Polish
    settings: MinimaSettings
    seed: int

    @property
    def relaxed_to(self) -> float:
        """The largest force on an atom of a minimum."""
        return max(_MINIMUM_FORCE, self.polish.fmax or 0.0)

    def keep(self, result: Result, system: Systems, context: Context) -> Kept:
        """Relax the best point of each start and the lowest minima met, and store those that are minima.

        system: a batch of one, in float64; the starts were drawn for copies of it.

        Raises:
            Preempted: ``context`` asked to stop. Nothing is lost, because a resumed search repeats this.
        """

        def pause() -> bool:
            return context.stopping

        base = system.repeat(len(result)).to(result.x.device)
        rough = self._roughness(result, base)
        how = self.polish if rough is None else self.polish.tolerating(rough.rise)
        best = best_of_each(result, base, self.potential, how, pause)
        met = lowest_met(result, base, self.potential, how, self.settings.keep, pause)
        minima, check = self._stored([best, met], context, rough)
        trial = self.potential.trial(system)
        calls = int(best.spent.sum()) + int(met.spent.sum()) + check.calls + trial.calls
        calls += 0 if rough is None else rough.calls
        warnings = (*trial.warnings, *self._doubts(minima, check))
        return Kept(best, minima, check, rough, calls, warnings)

    def _roughness(self, result: Result, base: Systems) -> Roughness | None:
        """Measure how well the potential repeats the energy of the best start; None if there is no finite one.

        The first point is not used, because the energies of random points are unlike those of minima.
        """
        energy = torch.where(torch.isfinite(result.energy), result.energy, torch.inf)
        if self.polish.force_calls == 0 or is_exact(self.potential, base) or bool(energy.isinf().all()):
            return None
        return measure(self.potential, at(base, result.x).select(energy.argmin()[None]))

    def _stored(
        self, batches: list[Polished], context: Context, rough: Roughness | None
    ) -> tuple[list[Minimum], Check]:
        """Put polished structures that are minima into the run's store (and a shared one); return the unique ones."""
        folder = context.results()
        if folder is None:
            with tempfile.TemporaryDirectory() as scratch:
                return self._filled(batches, Path(scratch), context.run_id, "", rough)
        for leftover in folder.glob("minima.db*"):  # a resumed run may find a store that it had half filled
            leftover.unlink()
        return self._filled(batches, folder, context.run_id, folder.parent.name, rough)

    def _filled(
        self, batches: list[Polished], folder: Path, run_id: str, name: str, rough: Roughness | None
    ) -> tuple[list[Minimum], Check]:
        """Fill the run's store, and a shared one with it.

        A point that was not relaxed far enough is left out, because it is no minimum. The best point of a start stays,
        with a mark, if the potential is too rough for a smaller force. Otherwise the start would leave no result.
        """
        window, distance = self.settings.energy_window, self.settings.distance_tolerance
        potential = json.dumps(self.described, sort_keys=True)
        too_rough = rough is not None and rough.relative > ROUNDING
        best = batches[0].energy
        with MinimaStore(folder / "minima.db", window, distance) as store:
            for batch, kind in zip(batches, ("best", "met"), strict=True):
                order = torch.argsort(
                    batch.calls, stable=True
                ).tolist()  # the first start counts as the finder
                for i in order:
                    start, energy = int(batch.start[i]), float(batch.energy[i])
                    limit = math.inf if kind == "best" and too_rough else self.relaxed_to
                    if not math.isfinite(energy) or not float(batch.fmax[i]) <= limit:
                        continue
                    if kind == "met" and abs(energy - float(best[start])) < window:
                        continue  # that start has been counted at this minimum
                    store.add(
                        Minimum.of(
                            batch.systems,
                            i,
                            energy,
                            max_force=float(batch.fmax[i]),
                            potential=potential,
                            first_run=name,
                            seed=self.seed,
                            start_index=start,
                            force_calls=int(batch.calls[i]),
                            source=f"{run_id}/{kind}/{name}/{i}",
                        )
                    )
            minima, check = self._verified(store)
            if self.settings.database is not None:
                with MinimaStore(self.settings.database, window, distance) as shared:
                    shared.merge_from(store)
        return minima, check

    def _verified(self, store: MinimaStore) -> tuple[list[Minimum], Check]:
        """Evaluate the minima again from their stored coordinates, and note the outcome in the store."""
        minima, enough = list(store), self.relaxed_to

        def evaluate(indices: list[int]) -> list[Reading]:
            # with fixed atoms, and with charges and moments that a calculator may need
            systems = Systems.concatenate([minima[index].system() for index in indices])
            return readings(AtomsLandscape(systems, self.potential))

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

    def _doubts(self, minima: list[Minimum], check: Check) -> list[str]:
        """Return messages about minima that are not reproduced, or may be listed twice."""
        lines, window = [], self.settings.energy_window
        if check.missed:
            ids = ", ".join(str(minima[index].id) for index in check.missed[:5])
            lines.append(
                f"{len(check.missed)} of {len(minima)} minima have another energy when they are evaluated again "
                f"(id {ids}; the first: {check.verifications[check.missed[0]].reason}). They are kept, with "
                f"`verified` false. A potential should give the same energy for the same coordinates"
            )
        slack = [one.max_force for one in minima if one.notes.get("relaxed") is False]
        if slack:
            lines.append(
                f"{len(slack)} of {len(minima)} minima were not relaxed to a force of {self.relaxed_to:g}, for the "
                f"potential is too rough (they have up to {max(slack):.2g}). They are kept, with `relaxed` false. "
                f"Converge the potential more tightly, or raise `polish.fmax`"
            )
        if minima and check.within(minima[0].energy) > window:
            lines.append(
                f"the potential repeats an energy only to {check.within(minima[0].energy):.2g}, and "
                f"`minima.energy_window` is {window:g}: a minimum may be listed more than once. Raise the window, or "
                f"converge the potential more tightly"
            )
        return lines
