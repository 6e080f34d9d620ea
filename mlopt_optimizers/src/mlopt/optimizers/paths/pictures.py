"""Pictures of a path: its energy, its way over a surface, its spins."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.drawing import pyplot, save
from mlopt.core.lazy import torch
from mlopt.core.units import Units

if TYPE_CHECKING:
    from mlopt.optimizers.paths.path_result import PathResult

#: images of spins that are drawn, evenly chosen
_SHOWN = 5


def write(found: PathResult, folder: Path) -> None:
    """``profile.svg``; ``surface.svg`` for two coordinates and for one spin; ``spins.svg`` for more of them."""
    save(_profile(found), folder / "profile.svg")
    rows, d = found.path.shape[1:]
    window = getattr(type(found.experiment.model), "window", None)
    if rows == 1 and d == 2 and window is not None:
        save(_surface(found, window), folder / "surface.svg")
    elif rows == 1 and d == 3 and _are_spins(found):
        save(_sphere(found), folder / "surface.svg")
    elif _are_spins(found):
        save(_spins(found), folder / "spins.svg")


def _are_spins(found: PathResult) -> bool:
    return found.experiment.model.moments() is not None


def _profile(found: PathResult) -> Any:
    """Energies of the images over the start, the cubic curve through them, and the barriers."""
    plt = pyplot()

    figure, axis = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    base = float(found.energy[0])
    s, energy = found.curve
    axis.plot(s, energy - base, color="#3b6ea5")
    axis.plot(found.s, found.energy - base, "o", color="#1d3d5c", markersize=4)
    top = found.saddle_energy - base
    units = Units.of(found.experiment.model.energy_units)
    axis.axhline(top, color="0.6", linewidth=0.8, linestyle="--")
    axis.annotate(
        f"barrier {units.say(found.barrier_forward)}, back {units.say(found.barrier_reverse)}",
        (0.0, top),
        xytext=(2, 4),
        textcoords="offset points",
        fontsize=9,
    )
    axis.margins(y=0.15)
    axis.set_xlabel("distance along the path")
    axis.set_ylabel(f"energy over the start ({units.label})")
    return figure


def _surface(found: PathResult, window: tuple[float, float, float, float]) -> Any:
    """Contours of a surface of two coordinates, with the path on it."""
    plt = pyplot()

    x = torch.linspace(window[0], window[1], 160, dtype=torch.float64)
    y = torch.linspace(window[2], window[3], 160, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    with torch.no_grad():
        energy = found.experiment.model.landscape(len(grid)).evaluate(grid).energy.reshape(160, 160)
    figure, axis = plt.subplots(figsize=(5.6, 5.0), layout="constrained")
    _contours(axis, x, y, energy, found)
    axis.plot(*found.path[:, 0].T, "o-", color="#c0392b", markersize=3.5, linewidth=1.2)
    axis.plot(*found.saddle[0], "x", color="black", markersize=9)
    axis.set_xlabel("x")
    axis.set_ylabel("y")
    return figure


def _contours(axis: Any, x: torch.Tensor, y: torch.Tensor, energy: torch.Tensor, found: PathResult) -> None:
    low = float(found.energy.min())
    high = found.saddle_energy + 1.0 * (found.saddle_energy - low)
    levels = torch.linspace(low, high, 30).tolist() if high > low else 20
    axis.contourf(x, y, energy.clamp(max=high), levels=levels, cmap="viridis")
    axis.contour(x, y, energy, levels=levels, colors="white", linewidths=0.3)


def _sphere(found: PathResult) -> Any:
    """The energy of one spin over its direction, with the path: azimuth and height."""
    plt = pyplot()

    azimuth = torch.linspace(-math.pi, math.pi, 181, dtype=torch.float64)
    height = torch.linspace(-1.0, 1.0, 91, dtype=torch.float64)
    z, phi = torch.meshgrid(height, azimuth, indexing="ij")
    across = (1.0 - z * z).clamp(min=0.0).sqrt()
    spins = torch.stack([across * phi.cos(), across * phi.sin(), z], -1).reshape(-1, 3)
    with torch.no_grad():
        energy = found.experiment.model.landscape(len(spins)).evaluate(spins).energy.reshape(z.shape)
    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    shown = axis.contourf(azimuth, height, energy, levels=30, cmap="viridis")
    figure.colorbar(shown, label=f"energy ({Units.of(found.experiment.model.energy_units).label})")
    path = found.path[:, 0]
    axis.plot(torch.atan2(path[:, 1], path[:, 0]), path[:, 2], "o", color="#c0392b", markersize=4)
    saddle = found.saddle[0]
    axis.plot(float(torch.atan2(saddle[1], saddle[0])), float(saddle[2]), "x", color="black", markersize=9)
    axis.set_xlabel("azimuth (rad)")
    axis.set_ylabel("z")
    return figure


def _spins(found: PathResult) -> Any:
    """Some images from above: colour for z, arrows for x and y; the saddle in the middle of them is the highest."""
    plt = pyplot()

    positions = found.experiment.model.positions()
    assert positions is not None  # models with moments have places
    chosen = torch.linspace(0, len(found.path) - 1, min(_SHOWN, len(found.path))).round().long().tolist()
    frames = [(f"image {k}", found.path[k]) for k in chosen] + [("saddle", found.saddle)]
    figure, axes = plt.subplots(1, len(frames), figsize=(2.6 * len(frames), 2.9), layout="constrained")
    size = max(4.0, 22000.0 / len(positions))  # squares that touch
    extent = positions[:, :2].amax(0) - positions[:, :2].amin(0)
    spacing = float(extent.max()) / max(1.0, len(positions) ** 0.5 - 1.0) or 1.0
    for axis, (title, spins) in zip(axes, frames, strict=True):
        shown = axis.scatter(
            *positions[:, :2].T,
            c=spins[:, 2],
            s=size,
            marker="s",
            cmap="RdBu_r",
            vmin=-1,
            vmax=1,
            linewidths=0,
        )
        if len(positions) <= 1024:
            arrows = {
                "pivot": "mid",
                "width": 0.006,
                "angles": "xy",
                "scale_units": "xy",
                "scale": 1.0 / spacing,
            }
            axis.quiver(*positions[:, :2].T, spins[:, 0], spins[:, 1], **arrows)
        axis.set_title(title, fontsize=9)
        axis.set_aspect("equal")
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(shown, ax=axes, label="z", shrink=0.8)
    return figure
