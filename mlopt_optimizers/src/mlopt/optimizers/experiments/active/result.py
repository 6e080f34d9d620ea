"""The result of an active run, and the files that it writes."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.driver.stop import Reason
from mlopt.core.errors import InputError
from mlopt.core.files import atomic
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.core.reporting.summary import Card, Column, Figure, Gallery, Structure, Summary, Table, Value
from mlopt.core.structures.write import write_extxyz
from mlopt.optimizers.experiments.active import pictures
from mlopt.optimizers.experiments.active.band_walk import BandWalk
from mlopt.optimizers.experiments.active.hunt import Hunt
from mlopt.optimizers.experiments.active.learned import Learned
from mlopt.optimizers.experiments.active.polish import largest_force
from mlopt.optimizers.experiments.active.record import Record
from mlopt.optimizers.experiments.active.walk import Walk
from mlopt.optimizers.labelling.ledger import Counts

if TYPE_CHECKING:
    from ase import Atoms

#: minima that a report draws
_SHOWN = 6
#: and that are written
_KEPT = 20
_COLUMNS = (
    "round", "trigger", "walker", "calls", "atom", "atoms", "grade", "energy", "energy_error", "force_error",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class ActiveResult:
    """The outcome of an active run.

    config: configuration of the experiment.
    learned: labels, the fit to them, and its active set.
    record: history of all labels and fits.
    walk: the walkers.
    unanswered: structures that walkers still ask for.
    ends: places of the labels at the ends of relaxations, by walker; None where ends are not labelled.
    settled: places of the labels at which the relaxation of a search's lowest minima has ended.
    counts: counts of the ledger, by labeller.
    """

    config: dict[str, Any]
    learned: Learned
    record: Record
    walk: Walk
    unanswered: int
    ends: dict[int, int] | None
    settled: list[int]
    counts: list[Counts]
    seconds: float

    @property
    def potential(self) -> FittablePotential:
        """The potential that was learned."""
        return self.learned.potential

    @property
    def reasons(self) -> list[Reason]:
        """Why each walker ended; a walker that still waits for labels is running."""
        return self.walk.reasons

    @property
    def found(self) -> Systems:
        """Where the walkers are now, see `Walk.points`; relaxations at the labels of their ends."""
        there = self.walk.systems.with_pos(self.walk.points)
        if not self.ends:
            return there
        _, rows = there.segments.select(torch.tensor(list(self.ends)))
        labels = self.learned.data.systems.select(list(self.ends.values()))
        return there.with_pos(there.pos.index_copy(0, rows, labels.pos))

    @property
    def barrier(self) -> tuple[float, float] | None:
        """The height of a band's saddle above the initial and the final state, by labels; None where one is missing."""
        if not isinstance(self.walk, BandWalk) or self.walk.stationary is None:
            return None
        initial, saddle, final = (float(self.learned.data.energy[one]) for one in self.walk.stationary)
        return saddle - initial, saddle - final

    @property
    def minima(self) -> list[int]:
        """The distinct structures of a search with labels, the lowest first: their places in the labels."""
        if not isinstance(self.walk, Hunt):
            return []
        return self.walk.minima(self.learned)[:_KEPT]

    @property
    def warnings(self) -> list[str]:
        """Warnings for the user of the potential."""
        lines = []
        if self.unanswered:
            lines.append(
                f"the labels are used up, and walkers still ask for {self.unanswered} structures: the potential "
                f"is not finished. Raise `labels`, or begin anew with `begin.file: results/labels.extxyz`"
            )
        if self.record.failed:
            lines.append(f"{self.record.failed} labels failed; `mlopt export LEDGER --failed` writes them")
        if isinstance(self.walk, BandWalk):
            lines += self.walk.warnings
        if self.ends is not None:
            lines += self._poor_ends()
        forces, least = (
            largest_force(self.learned.data.select(self.settled)).tolist(),
            self.config["polish_fmax"],
        )
        poor = [force for force in forces if force > least]
        if poor:
            lines.append(
                f"forces of labels are above {least:g} at {len(poor)} of the {len(forces)} lowest minima, up to "
                f"{max(poor):.3g}; raise `labels`, the `level` of the potential, or `polish_fmax`"
            )
        lost = sum(one is Reason.NON_FINITE for one in self.reasons)
        if lost:
            lines.append(f"{lost} of {len(self.reasons)} walkers were given up")
        return lines

    @property
    def _forces(self) -> list[float]:
        """The largest forces of the labels at the ends of relaxations."""
        places = list((self.ends or {}).values())
        found: list[float] = largest_force(self.learned.data.select(places)).tolist()
        return found

    def _poor_ends(self) -> list[str]:
        """Return warnings about the ends of relaxations."""
        lines, settled = list[str](), max(self.config["polish_fmax"], self.config["fmax"])
        poor = [force for force in self._forces if force > settled]
        if poor:
            lines.append(
                f"forces of labels are above {settled:g} at the ends of {len(poor)} of {len(self.reasons)} "
                f"relaxations, up to {max(poor):.3g}; raise `labels`, the `level` of the potential, or `polish_fmax`"
            )
        missing = len(self.reasons) - len(self.ends or {})
        if missing:
            lines.append(
                f"{missing} of {len(self.reasons)} relaxations have no labelled end; raise `labels` or `force_calls`"
            )
        return lines

    def summary(self) -> Summary:
        """Return the numbers that ``mlopt run --json`` prints, and the content of the report."""
        rounds = self.record.rounds
        reasons = Counter(one.name.lower().replace("_", "-") for one in self.reasons)
        lowest = self.learned.lowest
        headline = f"{len(self.record.labels)} labels in {len(rounds) - 1} rounds"
        if lowest is not None:
            headline += f"; lowest energy {lowest:.6g}"
        used = self.walk.used
        numbers: dict[str, Any] = {
            "labels": len(self.record.labels),
            "failed_labels": self.record.failed,
            "rounds": len(rounds) - 1,
            **self.learned.told(),
            "force_calls": int(used.sum()),
            "lowest_energy": lowest,
            "unanswered": self.unanswered,
            "walkers": dict(reasons),
            "history": rounds,
            "wall_s": round(self.seconds, 3),
            "units": "eV, angstrom",
        }
        triggers = Counter(one["trigger"] for one in self.record.labels)
        told = ", ".join(f"{count} {name}" for name, count in triggers.items())
        cards = list[Card]()
        if self.barrier is not None and isinstance(self.walk, BandWalk):
            forward, reverse = self.barrier
            numbers |= {"barrier_forward": forward, "barrier_reverse": reverse}
            numbers["largest_force_of_labels"] = self.walk.largest_force
            headline = f"barrier {forward:.5g}, back {reverse:.5g}, from {len(self.record.labels)} labels"
            cards = [
                Card("barrier", forward, "eV", "saddle over the initial state, both labels"),
                Card("barrier back", reverse, "eV", "saddle over the final state, both labels"),
            ]
        if self.ends is not None:
            force = max(self._forces, default=None)
            numbers |= {"ends": len(self.ends), "largest_force_of_labels": force}
            cards = [
                Card("labelled ends", len(self.ends), "", f"of {len(used)} relaxations"),
                Card("largest force of a label there", force, "eV/angstrom"),
            ]
        lost = all(one is Reason.NON_FINITE for one in self.reasons)
        return Summary(
            numbers,
            headline=headline,
            failure="every walker was given up" if lost else "",
            reached=not self.unanswered and (not isinstance(self.walk, BandWalk) or self.barrier is not None),
            missed="walkers still ask for labels" if self.unanswered else "the band has no labelled saddle",
            cards=[
                *cards,
                Card("labels", len(self.record.labels), "", told),
                Card("lowest labelled energy", lowest, "eV"),
                Card("force calls of the fitted potential", int(used.sum()), "", f"{len(used)} walkers"),
                Card("parameters", rounds[-1]["parameters"], "", self.learned.grounds()),
            ],
            tables=self._tables(),
            figures=self._figures(),
            remarks=self.warnings,
        )

    def _tables(self) -> list[Table]:
        columns = [
            Column("round"), Column("labels"), Column("asked for"),
            Column("energies before", "meV/atom", 2), Column("after", "meV/atom", 2),
            Column("forces before", "eV/angstrom", 4), Column("after", "eV/angstrom", 4), Column("lowest", "eV", 5),
        ]  # fmt: skip
        rows = []
        for number, one in enumerate(self.record.rounds):
            energies = [one.get("energy_before"), one.get("energy_after")]
            told = [None if value is None else 1e3 * value for value in energies]
            forces = [one.get("force_before"), one.get("force_after")]
            rows.append([number, one["labels"], one["asked"], *told, *forces, one["lowest"]])
        caption = "Root mean square errors on the labels of each round, before and after the fit to them."
        costs: list[list[Value]] = [
            [one.labeller, one.done, one.failed, one.seconds, one.wasted, one.electrons]
            for one in self.counts
        ]
        heads = [
            Column("labeller"), Column("labels"), Column("failed"), Column("time", "s", 2),
            Column("time of failures", "s", 2), Column("electrons"),
        ]  # fmt: skip
        return [
            Table("Rounds", columns, rows, caption),
            Table("Cost", heads, costs, "What the ledger holds, of this run and of others that share it."),
            self._walkers(),
        ]

    def _walkers(self) -> Table:
        asked = Counter(one["walker"] for one in self.record.labels if "walker" in one)
        used, reasons = self.walk.used.tolist(), self.reasons
        rows = [
            [walker, asked.get(walker, 0), used[walker], reasons[walker].value] for walker in range(len(used))
        ]
        rows.sort(key=lambda row: -row[1])
        heads = [Column("walker"), Column("labels"), Column("force calls"), Column("end")]
        return Table("Walkers", heads, rows[:50], "Those that asked for the most labels first.")

    def _figures(self) -> list[Figure | Gallery]:
        found: list[Figure | Gallery] = []
        if self.record.labels:
            text = "Labels against force calls of the walker that asked, by what triggered them."
            found.append(Figure("Labels", "labels.svg", text))
        if self.record.tested:
            text = "Errors on new labels before and after the fit to them, by round."
            found.append(Figure("Errors", "errors.svg", text))
        if self.record.graded:
            text = (
                "Error of forces before the label against the extrapolation grade, one point a label; labels of "
                "infinite grade are left out."
            )
            found.append(Figure("Grade and error", "grades.svg", text))
        if isinstance(self.walk, BandWalk) and self.walk.stationary is not None:
            frames = [
                Structure("saddle.extxyz", place, f"{name}: {float(self.learned.data.energy[index]):.5g} eV")
                for place, (name, index) in enumerate(
                    zip(("initial", "saddle", "final"), self.walk.stationary, strict=True)
                )
            ]
            found.append(Gallery("Ends and saddle", frames, "With the energies of their labels."))
        shown = self.minima[:_SHOWN]
        if shown:
            frames = [
                Structure("minima.extxyz", place, f"{float(self.learned.data.energy[index]):.5g} eV")
                for place, index in enumerate(shown)
            ]
            found.append(Gallery("Lowest structures", frames, "With the energies of their labels."))
        return found

    def training(self) -> dict[str, Any]:
        """Return the facts about labels and fit for the card of the potential."""
        config = self.config
        return {
            "task_family": {name: config[name] for name in ("system", "optimizer", "labeller")},
            "horizon": len(self.learned.data),
            "estimator": {name: config[name] for name in (*self.learned.of_fit, "soften", "asking")},
            "seeds": [config["seed"]],
            "cost": {"labels": len(self.record.labels)},
            "results": self.record.rounds[-1],
            "command": "mlopt run, with the `config.resolved.yaml` of this run",
        }

    def _labels(self) -> Dataset:
        """Return all labels, with cut-outs as a group of their own."""
        data = self.learned.data
        groups = zip(data.group, self.learned.whole.tolist(), strict=True)
        return replace(data, group=tuple(group if whole else "cut-out" for group, whole in groups))

    def _ends(self) -> list[Atoms]:
        """Return the structures of walkers, with energy and forces of the label where a relaxation has ended."""
        found = self.walk.systems.with_pos(self.walk.points).to_atoms()
        for walker, place in (self.ends or {}).items():
            (found[walker],) = self.learned.data.select([place]).to_atoms()
        return found

    def write(self, folder: Path) -> None:
        """Write labels, the potential, where walkers are, and the pictures."""
        write_extxyz(folder / "labels.extxyz", self._labels().to_atoms())
        write_extxyz(folder / "walkers.extxyz", self._ends())
        if isinstance(self.walk, BandWalk) and self.walk.stationary is not None:
            chosen = self.learned.data.select(list(self.walk.stationary))
            write_extxyz(folder / "saddle.extxyz", chosen.to_atoms())
        minima = self.minima
        if minima:
            write_extxyz(folder / "minima.extxyz", self.learned.data.select(minima).to_atoms())
        atomic.write_text(folder / "labels.csv", _csv(self.record.labels))
        try:
            self.potential.save(str(folder / "potential.safetensors"), self.training())
            members = self.learned.members if len(self.learned.members) > 1 else ()
            for number, theta in enumerate(members, 1):
                own = self.potential.with_theta(theta)
                own.save(str(folder / f"member-{number}.safetensors"), self.training())
        except InputError as error:  # it has no file format
            atomic.write_text(folder / "no-potential.txt", f"{error}\n")
        pictures.write(self.record, folder)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: one.get(name, "") for name in _COLUMNS} for one in rows)
    return out.getvalue()
