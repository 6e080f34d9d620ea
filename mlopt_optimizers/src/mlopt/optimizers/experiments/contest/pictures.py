"""The picture of a contest: the distribution of final energies for each optimizer on each system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlopt.core.reporting import drawing


def draw_energies(
    rows: Sequence[Mapping[str, Any]], energies: Sequence[Sequence[float | None]], file: Path
) -> None:
    """Draw histograms, a column for each system and a row of axes for each optimizer (as Learn2Hop's Fig. 5).

    rows: of the table, one per pair. energies: of the starts of each pair, None where not finite.
    """
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
