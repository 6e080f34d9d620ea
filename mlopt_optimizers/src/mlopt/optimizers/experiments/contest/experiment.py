"""The experiment `contest`: optimizers on the same systems, from the same starts, at equal force calls."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import field_validator, model_validator

from mlopt.core.driver.engine import EngineName
from mlopt.core.files import atomic
from mlopt.core.plugins.plugin import FromRegistry, Plugin, setting
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.quoting import quoted
from mlopt.core.reporting.statistics import mean_calls_to_hit, wilson
from mlopt.core.reporting.summary import Summary
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.experiment import Context, Experiment
from mlopt.optimizers.experiments.contest import page
from mlopt.optimizers.experiments.search.experiment import Search
from mlopt.optimizers.experiments.search.polish import Polish
from mlopt.optimizers.experiments.search.result import SearchResult
from mlopt.optimizers.searches.settings import Budget, MinimaSettings, Target
from mlopt.optimizers.training.tasks.systems import Case, labels_of

_INNER = "search."


class Contestant(Plugin):
    """An optimizer and what it is called."""

    label: str = setting(..., "what it is called in tables", min_length=1)
    optimizer: Annotated[Optimizer, FromRegistry("optimizer")] = setting(..., "local optimizer or search")
    systems: list[str] | None = setting(
        None, "labels of the systems that it meets, such as Ar38; none: all of them"
    )


class Contest(Experiment):
    """Run every optimizer on every system, from the same starts: who ends lowest, who hits, at what cost.

    Each pair is a `Search` of its own, with the same random numbers for all optimizers; its files are in a folder of
    its own. What is counted are all force calls, those of the final descent included. A mean is over all starts that
    ended at a finite energy.

    With ``stop: start`` a start ends when it hits. If the target is the lowest energy that there is, mean, lowest
    energy and hits are the same as without; ``force_calls`` are fewer.
    """

    systems: list[Case] = setting(..., "on what; several sizes, species and potentials", min_length=1)
    contestants: list[Contestant] = setting(..., "the optimizers", min_length=1)
    starts: int = setting(150, "of every optimizer on every system", ge=1, le=1_000_000)
    force_calls: int = setting(50_000, "of each start", ge=1)
    stop: Literal["never", "start"] = setting("start", "what a hit ends")
    polish: Polish = setting(Polish(), "the descent at the end, for everyone")
    seed: int = setting(0, "same seed, same result", ge=0, le=2**62)
    dtype: Literal["float64", "float32"] = setting("float64", "of the searches; the polish is in float64")
    device: str = setting("cpu", "cpu, cuda, cuda:1, ...")
    engine: EngineName = setting("auto", "see engines: eager, fused, or auto")

    @field_validator("contestants")
    @classmethod
    def _different(cls, value: list[Contestant]) -> list[Contestant]:
        labels = [one.label for one in value]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(
                f"two contestants are called {quoted(twice[0])}; tables could not tell them apart"
            )
        return value

    @model_validator(mode="after")
    def _meet(self) -> Contest:
        labels = labels_of(self.systems)
        for one in self.contestants:
            for name in one.systems or []:
                if name not in labels:
                    raise ValueError(
                        f"contestant {quoted(one.label)} is to meet {quoted(name)}, which is none of the systems; "
                        f"these are {', '.join(labels)}"
                    )
        return self

    @property
    def pairs(self) -> list[tuple[str, Contestant, Search]]:
        """Label of the system, contestant, and its search, in the order of the table."""
        return [
            (label, one, self._search(case, one))
            for label, case in zip(labels_of(self.systems), self.systems, strict=True)
            for one in self.contestants
            if one.systems is None or label in one.systems
        ]

    def check(self) -> None:
        """Check every search."""
        for _, _, search in self.pairs:
            search.check()

    def run(self, context: Context | None = None) -> ContestResult:
        """Run all searches, one after the other; write results where ``context`` has a place for them.

        Raises:
            InputError: as `check`.
            Preempted: ``context`` asked to stop; a checkpoint has been saved.
        """
        context = context or Context()
        table, restored = _Table(), context.restored()
        if restored is not None:
            table = _Table.of(restored)
        pairs = self.pairs
        for number in range(len(table.rows), len(pairs)):
            label, contestant, search = pairs[number]
            began = time.monotonic()
            to_follow = (len(pairs) - number - 1) * self.starts * self.force_calls
            inner = _Inner(
                context, table, number, len(pairs), f"{contestant.label} on {label}", restored, to_follow
            )
            table.add(label, contestant.label, search.run(inner))
            context.log(
                f"{contestant.label} on {label}: {_line(table.rows[-1])}, {time.monotonic() - began:.0f} s"
            )
            inner.save_table()
        found = ContestResult(self, table.rows, table.energies, table.warnings)
        folder = context.results()
        if folder is not None:
            found.write(folder)
        return found

    def _search(self, case: Case, contestant: Contestant) -> Search:
        target = None
        if case.target is not None:
            target = Target(energy=case.target, tolerance=case.tolerance, stop=self.stop)
        return Search(
            system=case.system,
            potential=case.potential,
            optimizer=contestant.optimizer,
            start=case.start,
            starts=self.starts,
            budget=Budget(force_calls=self.force_calls),
            target=target,
            polish=self.polish,
            minima=MinimaSettings(keep=1, per_start=1),
            seed=self.seed,
            dtype=self.dtype,
            device=self.device,
            engine=self.engine,
        )


@dataclass(frozen=True)
class ContestResult:
    """The table, one row a pair, and the energies of all starts after the polish, in the order of the rows.

    warnings: of the potentials and the minima, each once, with the system that it is about.
    """

    experiment: Contest
    rows: list[dict[str, Any]]
    energies: list[list[float | None]]
    warnings: list[str] = field(default_factory=list)

    def table(self) -> list[dict[str, Any]]:
        """One row a pair, ready for ``pandas.DataFrame``."""
        return self.rows

    def summary(self) -> Summary:
        """The numbers that ``mlopt run --json`` prints, and what the report shows."""
        return page.summarise(self.rows, self.experiment.starts, self._numbers())

    def _numbers(self) -> dict[str, Any]:
        ahead: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            kept = ahead.get(row["system"])
            if kept is None or _rank(row) < _rank(kept):
                ahead[row["system"]] = row
        ended = {"status": "finished"}
        if all(row["min"] is None for row in self.rows):
            ended = {"status": "failed", "failure": "the run failed: every start of every search did"}
        told = (f"on {label} {row['optimizer']} ({_line(row)})" for label, row in ahead.items())
        return {
            "experiment": "contest",
            **ended,
            "headline": "ahead: " + "; ".join(told),
            "starts": self.experiment.starts,
            "force_calls": sum(row["force_calls"] for row in self.rows),
            "wall_s": round(sum(row["wall_s"] for row in self.rows), 3),
            # rows of checkpoints of older versions have none
            "compile_s": round(sum(row.get("compile_s", 0.0) for row in self.rows), 3),
            "rows": self.rows,
        } | ({"warnings": self.warnings} if self.warnings else {})

    def write(self, folder: Path) -> None:
        """Write ``contest.json`` and ``energies.svg``: how the starts of each pair are distributed."""
        atomic.write_json(folder / "contest.json", {"rows": self.rows, "energies": self.energies})
        page.draw_energies(self.rows, self.energies, folder / "energies.svg")


@dataclass
class _Table:
    """The rows so far, and the number of the last checkpoint of the searches that they are of."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    energies: list[list[float | None]] = field(default_factory=list)
    step: int = 0
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> _Table:
        meta = checkpoint.meta
        return cls(meta["rows"], meta["energies"], meta["step"], meta.get("warnings", []))

    def add(self, system: str, optimizer: str, found: SearchResult) -> None:
        energies = [one if math.isfinite(one) else None for one in found.polished.energy.tolist()]
        sound = [one for one in energies if one is not None]
        hits, target = found.first_hits, found.search.target
        calls = found.result.calls.tolist()
        count = sum(hit is not None for hit in hits)
        row: dict[str, Any] = {
            "optimizer": optimizer,
            "system": system,
            "runs": len(energies),
            "mean": math.fsum(sound) / len(sound) if sound else None,
            "min": min(sound, default=None),
            "hits": count if target is not None else None,
        }
        if target is not None:
            rate = wilson(count, len(energies))
            cost = mean_calls_to_hit(hits, calls)
            row |= {"hit_rate": rate.mean, "hit_rate_low": rate.low, "hit_rate_high": rate.high}
            row |= {
                f"calls_to_hit{name}": value if math.isfinite(value) else None
                for name, value in (("", cost.mean), ("_low", cost.low), ("_high", cost.high))
            }
        row |= {
            "mean_error": _error(sound),
            "force_calls": sum(calls) + int(found.polished.spent.sum()),
            "wall_s": round(found.wall_s, 3),
            "compile_s": round(found.compile_s, 3),
            "engine": found.engine,
        }
        self.rows.append(row)
        self.energies.append(energies)
        told = [f"{system}: {warning}" for warning in found.warnings]
        self.warnings = list(dict.fromkeys([*self.warnings, *told]))


def _error(values: Sequence[float]) -> float | None:
    """Standard error of the mean."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    return math.sqrt(math.fsum((one - mean) ** 2 for one in values) / (n - 1) / n)


class _Inner(Context):
    """The surroundings of one search in a contest: its checkpoint carries the table of those before it."""

    def __init__(
        self,
        outer: Context,
        table: _Table,
        number: int,
        count: int,
        label: str,
        restored: Checkpoint | None,
        to_follow: int,
    ) -> None:
        super().__init__()
        self._to_follow = to_follow
        self._outer, self._table, self._number, self._count, self._label = outer, table, number, count, label
        self._last = table.step
        self._found: Checkpoint | None = None
        if restored is not None and restored.meta["number"] == number and "search" in restored.meta:
            tensors = {name.removeprefix(_INNER): one for name, one in restored.tensors.items()}
            self._found = Checkpoint(tensors, restored.meta["search"])
            # a search that had ended before the stop saves nothing more, so the number has to come from here
            self._last = _last_number(restored)

    @property
    def run_id(self) -> str:
        return self._outer.run_id

    @property
    def stopping(self) -> bool:
        return self._outer.stopping

    @property
    def interrupted(self) -> bool:
        return self._outer.interrupted

    @property
    def seconds_left(self) -> float:
        return self._outer.seconds_left

    @property
    def calls_to_follow(self) -> int:
        return self._to_follow

    def pause(self) -> bool:
        return self._outer.pause()

    def restored(self) -> Checkpoint | None:
        return self._found

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        tensors = {_INNER + name: one for name, one in checkpoint.tensors.items()}
        number = self._numbered(step)
        self._save(number, tensors, {"search": checkpoint.meta, "number": self._number, "last": self._last})

    def save_table(self) -> None:
        """After the search, when the table has its row: what comes next is numbered on from here."""
        self._table.step = self._last + 1
        self._save(self._table.step, {}, {"number": self._number + 1})

    def _save(self, number: int, tensors: dict[str, Any], meta: dict[str, Any]) -> None:
        meta |= {name: getattr(self._table, name) for name in ("rows", "energies", "step", "warnings")}
        self._outer.save(number, Checkpoint(tensors, meta))

    def metric(self, step: int, **values: float | int | str | None) -> None:
        self._outer.metric(self._numbered(step), pair=self._label, **values)

    def _numbered(self, step: int) -> int:
        self._last = max(self._last, self._table.step + step)
        return self._table.step + step

    def progress(self, done: float, message: str) -> None:
        self._outer.progress((self._number + done) / self._count, f"{self._label}: {message}")

    def log(self, message: str) -> None:
        self._outer.log(f"{self._label}: {message}")

    def results(self) -> Path | None:
        folder = self._outer.results()
        if folder is None:
            return None
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{self._number + 1:02d}-{self._label}").strip("-")
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def _last_number(checkpoint: Checkpoint) -> int:
    """The highest number that had been given out when a search inside a contest was saved."""
    meta = checkpoint.meta
    if "last" in meta:
        return int(meta["last"])
    # written by an mlopt that did not keep it: the calls of the search say it, unless its problems ran one by one
    return int(meta["step"]) + int(meta["search"].get("calls", 0))


def _rank(row: dict[str, Any]) -> tuple[float, float]:
    """Smaller is better: first by hits, then by mean."""
    return -(row["hits"] or 0), math.inf if row["mean"] is None else row["mean"]


def _line(row: dict[str, Any]) -> str:
    mean = "no finite energy" if row["mean"] is None else f"mean {row['mean']:.3f}"
    return mean if row["hits"] is None else f"{mean}, {row['hits']} of {row['runs']} hits"
