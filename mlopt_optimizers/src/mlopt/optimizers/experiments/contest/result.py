"""The table of a contest, with one row for each optimizer on each system; its summary and its files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from mlopt.core.files import atomic
from mlopt.core.reporting.statistics import Estimate, mean_calls_to_hit, wilson
from mlopt.core.reporting.summary import Card, Column, Figure, Summary, Table, Value
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.optimizers.experiments.contest.pictures import draw_energies
from mlopt.optimizers.experiments.search.result import SearchResult

_CAPTION = (
    "In brackets: 95 % intervals. Calls a hit: all force calls before a hit, or without one, divided by the hits."
    " Mean: of the final energies of all starts, with its standard error. All digits are in contest.json."
)


@dataclass
class ContestResult:
    """The table so far: one row per pair, and the polished energies of all starts, in the order of the rows.

    starts: number of starts for each pair.
    warnings: warnings about the potentials and the minima, each once, with its system.
    """

    starts: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    energies: list[list[float | None]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, starts: int, checkpoint: Checkpoint | None) -> Self:
        """Return the table in a checkpoint, or an empty one."""
        if checkpoint is None:
            return cls(starts)
        meta = checkpoint.meta
        return cls(starts, meta["rows"], meta["energies"], meta.get("warnings", []))

    def to_checkpoint(self) -> Checkpoint:
        """Return a checkpoint that `of` reads."""
        return Checkpoint({}, {"rows": self.rows, "energies": self.energies, "warnings": self.warnings})

    def add(self, system: str, optimizer: str, found: SearchResult) -> None:
        """Add the row of a search."""
        energies = [one if math.isfinite(one) else None for one in found.polished.energy.tolist()]
        self.rows.append(_row(system, optimizer, found, [one for one in energies if one is not None]))
        self.energies.append(energies)
        told = [f"{system}: {warning}" for warning in found.warnings]
        self.warnings = list(dict.fromkeys([*self.warnings, *told]))

    def table(self) -> list[dict[str, Any]]:
        """Return one row per pair, ready for ``pandas.DataFrame``."""
        return self.rows

    def write(self, folder: Path) -> None:
        """Write ``contest.json`` and ``energies.svg``, the distribution of the starts of each pair."""
        atomic.write_json(folder / "contest.json", {"rows": self.rows, "energies": self.energies})
        draw_energies(self.rows, self.energies, folder / "energies.svg")

    @property
    def headline(self) -> str:
        """The leading optimizer on each system, in one line."""
        ahead: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            kept = ahead.get(row["system"])
            if kept is None or _rank(row) < _rank(kept):
                ahead[row["system"]] = row
        return "ahead: " + "; ".join(
            f"on {label} {row['optimizer']} ({line(row)})" for label, row in ahead.items()
        )

    def summary(self) -> Summary:
        """Return the numbers that ``mlopt run --json`` prints, and the content of the report.

        A contest has no goal that could be missed.
        """
        lost = all(row["min"] is None for row in self.rows)
        return Summary(
            self._numbers(),
            headline=self.headline,
            failure="the run failed: every start of every search did" if lost else "",
            cards=self._cards(),
            tables=[self._shown()],
            figures=[
                Figure(
                    "Final energies",
                    "energies.svg",
                    "One histogram for each pair; all of a system have one scale.",
                )
            ],
            remarks=self.warnings,
        )

    def _numbers(self) -> dict[str, Any]:
        return {
            "starts": self.starts,
            "force_calls": sum(row["force_calls"] for row in self.rows),
            "wall_s": round(sum(row["wall_s"] for row in self.rows), 3),
            # rows of checkpoints of older versions have none
            "compile_s": round(sum(row.get("compile_s", 0.0) for row in self.rows), 3),
            "rows": self.rows,
        } | ({"warnings": self.warnings} if self.warnings else {})

    def _cards(self) -> list[Card]:
        calls = sum(row["force_calls"] for row in self.rows)
        return [
            Card("systems", len({row["system"] for row in self.rows})),
            Card("optimizers", len({row["optimizer"] for row in self.rows})),
            Card("starts", self.starts, note="of each pair, the same for all optimizers"),
            Card("force calls", calls, note="in all"),
        ]

    def _shown(self) -> Table:
        columns = [
            Column("system"),
            Column("optimizer"),
            Column("hits"),
            Column("starts that hit", "%"),
            Column("force calls a hit"),
            Column("mean energy", decimals=3),
            Column("±", decimals=3),
            Column("lowest", decimals=6),
            Column("time", "s", 1),
        ]
        return Table("Results", columns, [_cells(row) for row in self.rows], _CAPTION)


def line(row: dict[str, Any]) -> str:
    """Return a few words on the result of a pair."""
    mean = "no finite energy" if row["mean"] is None else f"mean {row['mean']:.3f}"
    return mean if row["hits"] is None else f"{mean}, {row['hits']} of {row['runs']} hits"


def _row(system: str, optimizer: str, found: SearchResult, energies: list[float]) -> dict[str, Any]:
    """Return the numbers of a search; energies: the finite ones of its starts."""
    hits, calls = found.first_hits, found.result.calls.tolist()
    runs, count = len(hits), sum(hit is not None for hit in hits)
    row: dict[str, Any] = {
        "optimizer": optimizer,
        "system": system,
        "runs": runs,
        "mean": math.fsum(energies) / len(energies) if energies else None,
        "min": min(energies, default=None),
        "hits": count if found.target is not None else None,
    }
    if found.target is not None:
        rate, cost = wilson(count, runs), mean_calls_to_hit(hits, calls)
        row |= {"hit_rate": rate.mean, "hit_rate_low": rate.low, "hit_rate_high": rate.high}
        row |= {
            f"calls_to_hit{name}": value if math.isfinite(value) else None
            for name, value in (("", cost.mean), ("_low", cost.low), ("_high", cost.high))
        }
    return row | {
        "mean_error": _error(energies),
        "force_calls": sum(calls) + int(found.polished.spent.sum()),
        "wall_s": round(found.wall_s, 3),
        "compile_s": round(found.compile_s, 3),
        "engine": found.engine,
    }


def _error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    return math.sqrt(math.fsum((one - mean) ** 2 for one in values) / (n - 1) / n)


def _rank(row: dict[str, Any]) -> tuple[float, float]:
    """Return a pair that is smaller for a better result: first by hits, then by mean."""
    return -(row["hits"] or 0), math.inf if row["mean"] is None else row["mean"]


def _cells(row: dict[str, Any]) -> list[Value]:
    """Return a row for people."""
    hits: list[Value] = [None, None, None]
    if row["hits"] is not None:
        share = Estimate(*(100.0 * row[f"hit_rate{name}"] for name in ("", "_low", "_high")))
        # an unbounded estimate is None in the files, for JSON has no infinity
        mean, low, high = (row[f"calls_to_hit{name}"] for name in ("", "_low", "_high"))
        cost = None if low is None else Estimate(_bound(mean), low, _bound(high))
        hits = [f"{row['hits']:,} of {row['runs']:,}", share, cost]
    spread = [row["mean"], row["mean_error"], row["min"]]
    return [row["system"], row["optimizer"], *hits, *spread, row["wall_s"]]


def _bound(value: float | None) -> float:
    return math.inf if value is None else value
