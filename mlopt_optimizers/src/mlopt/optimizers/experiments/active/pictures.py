"""Pictures of an active run: when labels were asked for, grades beside errors, and errors by round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlopt.core.reporting.drawing import logarithmic, pyplot, save
from mlopt.optimizers.experiments.active.record import Record

_COLOURS = {
    "beginning": "#9a9a9a",
    "put aside": "#3b6ea5",
    "stopped": "#b4442c",
    "lowest": "#3d8b54",
    "polish": "#8a5fa8",
    "end": "#c98a1b",
    "saddle": "#2a2a2a",
}


def write(record: Record, folder: Path) -> None:
    """Write the pictures for which there is something to draw."""
    if record.labels:
        save(_labels(record), folder / "labels.svg")
    if record.tested:
        save(_errors(record), folder / "errors.svg")
    if record.graded:
        save(_grades(record), folder / "grades.svg")


def _labels(record: Record) -> Any:
    figure, axis = pyplot().subplots(figsize=(5.2, 3.4), layout="constrained")
    end = max((one.get("calls", 0) for one in record.labels), default=0)
    for trigger, colour in _COLOURS.items():
        points = [
            (one.get("calls", end if trigger == "polish" else 0), number + 1)
            for number, one in enumerate(record.labels)
            if one["trigger"] == trigger
        ]
        if points:
            axis.plot(*zip(*points, strict=True), ".", color=colour, markersize=5, label=trigger)
    axis.set_xlabel("force calls of the walker")
    axis.set_ylabel("labels")
    axis.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axis.legend(frameon=False)
    return figure


def _errors(record: Record) -> Any:
    figure, axes = pyplot().subplots(1, 2, figsize=(7.0, 3.2), layout="constrained")
    for axis, name, factor, unit in (
        (axes[0], "energy", 1e3, "meV/atom"),
        (axes[1], "force", 1.0, "eV/angstrom"),
    ):
        for when, colour in (("before", "#b4442c"), ("after", "#3b6ea5")):
            rows = [
                (one["labels"], factor * one[f"{name}_{when}"])
                for one in record.rounds
                if f"{name}_{when}" in one
            ]
            if rows:
                axis.plot(*zip(*rows, strict=True), "o-", color=colour, markersize=3, label=f"{when} the fit")
                logarithmic(axis, x=False)
                axis.legend(frameon=False)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.set_xlabel("labels")
        axis.set_ylabel(f"error of {name} ({unit})")
    return figure


def _grades(record: Record) -> Any:
    figure, axis = pyplot().subplots(figsize=(5.2, 3.4), layout="constrained")
    for trigger, colour in _COLOURS.items():
        points = [
            (one["grade"], one["force_error"])
            for one in record.labels
            if one["trigger"] == trigger and one.get("grade") is not None
        ]
        if points:
            axis.plot(*zip(*points, strict=True), ".", color=colour, markersize=5, label=trigger)
    logarithmic(axis)
    axis.set_xlabel("extrapolation grade")
    axis.set_ylabel("largest error of a force (eV/angstrom)")
    axis.legend(frameon=False)
    return figure
