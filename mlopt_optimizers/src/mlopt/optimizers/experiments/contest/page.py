"""What the report of a contest shows: one table for people, and how the energies of each pair are distributed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlopt.core.reporting import drawing
from mlopt.core.reporting.statistics import Estimate
from mlopt.core.reporting.summary import Card, Column, Figure, Summary, Table, Value


def summarise(rows: Sequence[Mapping[str, Any]], starts: int, numbers: Mapping[str, Any]) -> Summary:
    """Return the numbers of a contest with what its report shows; it has no goal that could be missed."""
    systems = dict.fromkeys(row["system"] for row in rows)
    optimizers = dict.fromkeys(row["optimizer"] for row in rows)
    cards = [
        Card("systems", len(systems)),
        Card("optimizers", len(optimizers)),
        Card("starts", starts, note="of each pair, the same for all optimizers"),
        Card("force calls", numbers["force_calls"], note="in all"),
    ]
    caption = (
        "In brackets: 95 % intervals. Calls a hit: all force calls before a hit, or without one, divided by the hits."
        " Mean: of the final energies of all starts, with its standard error. All digits are in contest.json."
    )
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
    figure = Figure(
        "Final energies", "energies.svg", "One histogram for each pair; all of a system have one scale."
    )
    table = Table("Results", columns, [_row(row) for row in rows], caption)
    remarks = numbers.get("warnings", ())
    return Summary(numbers, cards=cards, tables=[table], figures=[figure], remarks=remarks)


def _row(row: Mapping[str, Any]) -> list[Value]:
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


def draw_energies(
    rows: Sequence[dict[str, Any]], energies: Sequence[Sequence[float | None]], file: Path
) -> None:
    """Histograms of the final energies, a column for each system, a line of axes for each optimizer (paper: Fig. 5)."""
    plt = drawing.pyplot()
    systems = list(dict.fromkeys(row["system"] for row in rows))
    optimizers = list(dict.fromkeys(row["optimizer"] for row in rows))
    size = (max(4.2, 3.6 * len(systems)), 0.5 + 1.1 * len(optimizers))
    figure, axes = plt.subplots(
        len(optimizers), len(systems), figsize=size, squeeze=False, sharex="col", layout="constrained"
    )
    spans: dict[str, list[float]] = {}
    for row, found in zip(rows, energies, strict=True):
        spans.setdefault(row["system"], []).extend(one for one in found if one is not None)
    drawn = set()
    for row, found in zip(rows, energies, strict=True):
        i, j = optimizers.index(row["optimizer"]), systems.index(row["system"])
        drawn.add((i, j))
        axis, span = axes[i, j], spans[row["system"]]
        kept = [one for one in found if one is not None]
        if kept:
            axis.hist(kept, bins=60, range=(min(span), max(span) + 1e-9), color="#3b6ea5")
        hits = "" if row["hits"] is None else f", {row['hits']} hits"
        mean = "no finite energy" if row["mean"] is None else f"mean {row['mean']:.2f}{hits}"
        axis.set_title(f"{row['optimizer']} on {row['system']}: {mean}", loc="left", fontsize=7, pad=2.0)
        axis.set_yticks([])
        axis.tick_params(labelsize=7)
        axis.locator_params(axis="x", nbins=5)
    for i, j in ((i, j) for i in range(len(optimizers)) for j in range(len(systems)) if (i, j) not in drawn):
        axes[i, j].set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel("energy", fontsize=8)
    drawing.save(figure, file)
