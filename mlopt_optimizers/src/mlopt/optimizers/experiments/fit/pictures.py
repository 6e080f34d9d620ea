"""Pictures of a fit: predictions against labels, distribution of errors, learning curve, scan."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.lazy import torch
from mlopt.core.reporting.drawing import logarithmic, pyplot, save
from mlopt.optimizers.experiments.fit.candidate import Candidate, front
from mlopt.optimizers.fitting.deviations import OUTSIDE, Deviations
from mlopt.optimizers.fitting.metrics import GPA, Errors
from mlopt.optimizers.fitting.training import Trained

if TYPE_CHECKING:
    from mlopt.optimizers.experiments.fit.result import FitResult

#: points of a parity plot, at most: those with the largest errors are always among them
_POINTS = 4000
_COLOURS = {"train": "#9db4cc", "test": "#b4442c"}
#: candidates of a scan, and the one that was taken
_BLUE, _RED = "#3b6ea5", "#b4442c"


def write(found: FitResult, folder: Path) -> None:
    """Write the figures that `page.figures` names."""
    save(_parity(found), folder / "parity.svg")
    save(_residuals(found), folder / "residuals.svg")
    if isinstance(found.how, Trained):
        save(_training(found.how), folder / "training.svg")
    else:
        save(_learning(found), folder / "learning.svg")
    if found.deviations is not None and len(found.deviations.test):
        save(_extrapolation(found, found.deviations), folder / "extrapolation.svg")
    if len(found.candidates) > 1:
        save(_scan(found), folder / "scan.svg")
        save(_cost(found), folder / "cost.svg")


def _quantities(errors: Errors) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Labels and errors of each quantity that is labelled, flat; energies an atom, less their mean."""
    atoms = errors.data.systems.segments.counts.to(torch.float64)
    parts = {
        "energy (eV/atom)": (errors.data.energy / atoms, errors.energy),
        "force (eV/angstrom)": (errors.data.force, errors.force),
        "stress (GPa)": (GPA * errors.data.stress, errors.stress),
    }
    found = {}
    for name, (label, off) in parts.items():
        label, off = label.flatten(), off.flatten()
        known = torch.isfinite(label) & torch.isfinite(off)
        if bool(known.any()):
            found[name] = label[known], off[known]
    return found


def _parity(found: FitResult) -> Any:
    plt = pyplot()
    sets = {name: _quantities(found.errors[name]) for name in ("train", "test") if name in found.errors}
    names = list(dict.fromkeys(name for one in sets.values() for name in one))
    figure, axes = plt.subplots(
        1, len(names), figsize=(3.4 * len(names), 3.4), layout="constrained", squeeze=False
    )
    for axis, name in zip(axes[0], names, strict=True):
        for which, quantities in sets.items():
            if name not in quantities:
                continue
            label, off = quantities[name]
            if len(label) > _POINTS:
                order = off.abs().argsort(descending=True)
                rest = order[_POINTS // 4 :]
                chosen = torch.cat([order[: _POINTS // 4], rest[:: max(1, len(rest) // (3 * _POINTS // 4))]])
                label, off = label[chosen], off[chosen]
            axis.plot(
                label, label + off, ".", color=_COLOURS[which], markersize=3, label=which, rasterized=True
            )
        low, high = axis.get_xlim()
        axis.plot([low, high], [low, high], color="0.4", linewidth=0.8)
        axis.set_xlabel(f"labelled {name}")
        axis.set_ylabel("predicted")
        axis.legend(frameon=False)
    return figure


def _residuals(found: FitResult) -> Any:
    plt = pyplot()
    sets = {name: _quantities(found.errors[name]) for name in ("train", "test") if name in found.errors}
    names = list(dict.fromkeys(name for one in sets.values() for name in one))
    figure, axes = plt.subplots(
        1, len(names), figsize=(3.4 * len(names), 2.8), layout="constrained", squeeze=False
    )
    for axis, name in zip(axes[0], names, strict=True):
        for which, quantities in sets.items():
            if name in quantities:
                off = quantities[name][1].numpy()
                axis.hist(
                    off,
                    bins=60,
                    histtype="step",
                    color=_COLOURS[which],
                    label=f"{which}, {len(off):,}",
                    density=True,
                )
        axis.set_yscale("log")
        axis.set_xlabel(f"error of the {name}")
        axis.legend(frameon=False)
    axes[0][0].set_ylabel("density")
    return figure


def _learning(found: FitResult) -> Any:
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    counts = [count for count, _ in found.curve]
    rows = [errors.row("") for _, errors in found.curve]
    other = axis.twinx()
    for here, name, factor, colour, label in (
        (axis, "energy_mae", 1e3, "#3b6ea5", "energy MAE (meV/atom)"),
        (other, "force_mae", 1.0, "#b4442c", "force MAE (eV/angstrom)"),
    ):
        values = [row[name] for row in rows]
        if all(value is not None for value in values):
            here.plot(counts, [factor * value for value in values], "o-", color=colour, markersize=4)
            here.set_yscale("log")
        here.set_ylabel(label, color=colour)
    axis.set_xscale("log")
    axis.set_xlabel("structures that were fitted to")
    return figure


def _training(trained: Trained) -> Any:
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    counts = [one.evaluations for one in trained.looks]
    for seed in range(len(trained.theta)):
        colour = "#b4442c" if seed == trained.best else "#9db4cc"
        axis.plot(counts, [one.loss[seed] for one in trained.looks], color=colour, linewidth=1.0)
        axis.plot(counts, [one.held_back[seed] for one in trained.looks], "--", color=colour, linewidth=1.0)
    for before, after in pairwise(trained.looks):
        if before.stage != after.stage:
            axis.axvline(before.evaluations, color="0.7", linewidth=0.8)
    axis.set_yscale("log")
    axis.set_xlabel("evaluations of the loss, for each seed")
    axis.set_ylabel("loss")
    return figure


def _extrapolation(found: FitResult, deviations: Deviations) -> Any:
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    drawn = 0
    for which, deviation in (("train", deviations.train), ("test", deviations.test)):
        relative, error = deviations.relative(deviation), 1e3 * found.errors[which].energy.abs()
        known = torch.isfinite(error) & (error > 0) & (relative > 0)
        drawn += int(known.sum())
        label = {"color": _COLOURS[which], "label": which}
        axis.plot(relative[known], error[known], ".", markersize=4, rasterized=len(error) > _POINTS, **label)
    if drawn:
        logarithmic(axis)
    right = max(axis.get_xlim()[1], 1.2 * OUTSIDE)
    axis.axvspan(OUTSIDE, right, color="0.92", zorder=0)
    axis.set_xlim(right=right)
    axis.set_xlabel("predicted deviation of the energy, relative")
    axis.set_ylabel("error of the energy (meV/atom)")
    axis.legend(frameon=False)
    return figure


def _candidate(axis: Any, found: FitResult, one: Candidate, x: float, y: float) -> None:
    """Return a candidate of a scan as a point with its settings."""
    chosen = one is found.chosen
    axis.plot(x, y, "o", color=_RED if chosen else _BLUE, markersize=6 if chosen else 4)
    label = ", ".join(f"{value}" for value in one.settings.values())
    axis.annotate(label, (x, y), fontsize=7, xytext=(3, 3), textcoords="offset points")


def _scan(found: FitResult) -> Any:
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    for one in found.candidates:
        _candidate(axis, found, one, one.parameters, one.merit)
    axis.set_xlabel("parameters")
    decides = found.chosen.decides
    labels = {"evidence": "log evidence", "loss": "minus the loss, held back"}
    axis.set_ylabel(labels.get(decides, f"minus the {decides}"))
    axis.margins(x=0.2, y=0.1)
    return figure


def _cost(found: FitResult) -> Any:
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    points = [(1e6 * one.seconds, one.error) for one in front(found.candidates) if one.seconds is not None]
    axis.plot(*zip(*points, strict=True), "-", color="0.6", linewidth=1.0, zorder=0)
    for one in found.candidates:
        if one.seconds is not None and one.error is not None:
            _candidate(axis, found, one, 1e6 * one.seconds, one.error)
    logarithmic(axis)
    axis.set_xlabel("energy and forces (microseconds/atom)")
    axis.set_ylabel("weighted error, left out")
    axis.margins(x=0.2, y=0.1)
    return figure
