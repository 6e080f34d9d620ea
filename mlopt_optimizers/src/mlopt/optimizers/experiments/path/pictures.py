"""Pictures of a path: its energy profile, its course over a surface, its spins."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlopt.core.lazy import torch
from mlopt.core.reporting.drawing import pyplot, save
from mlopt.optimizers.experiments.path.relaxed import RelaxedPath

#: images of spins that are drawn, evenly chosen
_SHOWN = 5
_MARK: dict[str, Any] = {"marker": "X", "color": "black", "markeredgecolor": "white", "markersize": 9}


@dataclass(frozen=True)
class Picture:
    """A function that draws one picture of a path, with the picture's title and description."""

    title: str
    caption: str
    draw: Callable[[RelaxedPath], Any]


def of(found: RelaxedPath) -> dict[str, Picture]:
    """Return the pictures of a path by file name: its profile, and its course if that can be shown."""
    pictures = {"profile": _PROFILE}
    rows, d = found.path.shape[1:]
    if rows == 1 and d == 2 and _window(found) is not None:
        pictures["surface"] = _SURFACE
    elif rows == 1 and d == 3 and _are_spins(found):
        pictures["surface"] = _SPHERE
    elif _are_spins(found):
        pictures["spins"] = _SPINS
    return pictures


def write(found: RelaxedPath, folder: Path) -> None:
    """Write ``profile.svg``; ``surface.svg`` for two coordinates or one spin; ``spins.svg`` for several spins."""
    for name, picture in of(found).items():
        save(picture.draw(found), folder / f"{name}.svg")


def _window(found: RelaxedPath) -> tuple[float, float, float, float] | None:
    return getattr(type(found.model), "window", None)


def _are_spins(found: RelaxedPath) -> bool:
    return found.model.moments() is not None


def _profile(found: RelaxedPath) -> Any:
    """Draw energies of the images relative to the start, the cubic curve through them, and the barriers."""
    plt = pyplot()

    figure, axis = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    base = float(found.energy[0])
    s, energy = found.curve
    axis.plot(s, energy - base, color="#3b6ea5")
    axis.plot(found.s, found.energy - base, "o", color="#1d3d5c", markersize=4)
    top = found.saddle_energy - base
    units = found.units
    axis.axhline(top, color="0.6", linewidth=0.8, linestyle="--")
    axis.set_title(
        f"barrier {units.say(found.barrier_forward)}, back {units.say(found.barrier_reverse)}",
        loc="left",
        fontsize=10,
    )
    axis.margins(y=0.15)
    axis.set_xlabel("distance along the path" + ("" if units.reduced else f" ({units.length})"))
    axis.set_ylabel(f"energy over the start ({units.label})")
    return figure


def _surface(found: RelaxedPath) -> Any:
    """Draw contours of a surface of two coordinates, with the path on it."""
    plt = pyplot()
    window = _window(found)
    assert window is not None  # `of` has looked

    x = torch.linspace(window[0], window[1], 160, dtype=torch.float64)
    y = torch.linspace(window[2], window[3], 160, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    with torch.no_grad():
        energy = found.model.landscape(len(grid)).evaluate(grid).energy.reshape(160, 160)
    figure, axis = plt.subplots(figsize=(5.6, 5.0), layout="constrained")
    shown = _contours(axis, x, y, energy, found)
    figure.colorbar(shown, label=f"energy ({found.units.label})")
    axis.plot(*found.path[:, 0].T, "o-", color="#c0392b", markersize=3.5, linewidth=1.2)
    axis.plot(*found.saddle[0], **_MARK)
    for name, place in (("start", found.path[0, 0]), ("end", found.path[-1, 0])):
        axis.annotate(name, place.tolist(), xytext=(5, 5), textcoords="offset points", color="white")
    axis.set_xlabel("x")
    axis.set_ylabel("y")
    return figure


def _contours(axis: Any, x: torch.Tensor, y: torch.Tensor, energy: torch.Tensor, found: RelaxedPath) -> Any:
    low = float(found.energy.min())
    high = found.saddle_energy + 1.0 * (found.saddle_energy - low)
    levels = torch.linspace(low, high, 30).tolist() if high > low else 20
    shown = axis.contourf(x, y, energy.clamp(max=high), levels=levels, cmap="viridis")
    axis.contour(x, y, energy, levels=levels, colors="white", linewidths=0.3)
    return shown


def _sphere(found: RelaxedPath) -> Any:
    """Draw the energy of one spin over its direction (azimuth and height), with the path."""
    plt = pyplot()

    azimuth = torch.linspace(-math.pi, math.pi, 181, dtype=torch.float64)
    height = torch.linspace(-1.0, 1.0, 91, dtype=torch.float64)
    z, phi = torch.meshgrid(height, azimuth, indexing="ij")
    across = (1.0 - z * z).clamp(min=0.0).sqrt()
    spins = torch.stack([across * phi.cos(), across * phi.sin(), z], -1).reshape(-1, 3)
    with torch.no_grad():
        energy = found.model.landscape(len(spins)).evaluate(spins).energy.reshape(z.shape)
    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    shown = axis.contourf(azimuth, height, energy, levels=30, cmap="viridis")
    figure.colorbar(shown, label=f"energy ({found.units.label})")
    path = found.path[:, 0]
    axis.plot(torch.atan2(path[:, 1], path[:, 0]), path[:, 2], "o", color="#c0392b", markersize=4)
    saddle = found.saddle[0]
    axis.plot(float(torch.atan2(saddle[1], saddle[0])), float(saddle[2]), **_MARK)
    axis.set_xlabel("azimuth (rad)")
    axis.set_ylabel("z")
    return figure


def _spins(found: RelaxedPath) -> Any:
    """Draw some states along the path from above, including the saddle: colour for z, arrows for x and y."""
    plt = pyplot()

    positions = found.model.positions()
    assert positions is not None  # models with moments have places
    frames = _frames(found)
    columns = 3
    lines = -(-len(frames) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(6.6, 0.2 + 1.95 * lines), layout="constrained", squeeze=False
    )
    low, high = positions[:, :2].amin(0), positions[:, :2].amax(0)
    spacing = float((high - low).max()) / max(1.0, len(positions) ** 0.5 - 1.0) or 1.0
    drawn = []
    for axis, (title, spins) in zip(axes.flat, frames, strict=False):
        places = positions[:, :2].T
        style = {"marker": "s", "cmap": "RdBu_r", "vmin": -1, "vmax": 1, "linewidths": 0}
        drawn.append((axis, axis.scatter(*places, c=spins[:, 2], **style)))
        if len(positions) <= 1024:
            style = {"pivot": "mid", "width": 0.006, "angles": "xy", "scale_units": "xy"}
            axis.quiver(*places, spins[:, 0], spins[:, 1], scale=1.0 / spacing, **style)
        axis.set_title(title, fontsize=10)
        axis.set_xlim(float(low[0]) - spacing / 2, float(high[0]) + spacing / 2)
        axis.set_ylim(float(low[1]) - spacing / 2, float(high[1]) + spacing / 2)
        axis.set_aspect("equal")
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in axes.flat[len(frames) :]:
        axis.set_axis_off()
    bar = figure.colorbar(drawn[0][1], ax=axes, label="z component of a spin", shrink=0.8, ticks=[-1, 0, 1])
    bar.ax.set_yticklabels(["-1, down", "0, in plane", "1, up"])
    figure.canvas.draw()  # only now is it known how large the axes are
    for axis, squares in drawn:
        width = axis.get_window_extent().width * 72.0 / figure.dpi
        left, right = axis.get_xlim()
        squares.set_sizes([(1.04 * width * spacing / (right - left)) ** 2])  # squares that touch
    return figure


def _frames(found: RelaxedPath) -> list[tuple[str, torch.Tensor]]:
    """Return the states to show, in the order of the path: start, saddle, end, and some between them."""
    last = len(found.path) - 1
    top = int(found.energy.argmax())
    between = torch.linspace(0, last, min(_SHOWN, last + 1)).round().long().tolist()
    shown = [
        (float(k), {0: "start", last: "end"}.get(k, f"image {k}"), found.path[k])
        for k in between
        if k in (0, last) or not torch.equal(found.path[k], found.saddle)
    ]
    shown.append((min(max(top, 0.5), last - 0.5), "saddle", found.saddle))
    return [(title, state) for _, title, state in sorted(shown, key=lambda one: one[0])]


_PROFILE = Picture(
    "Energy along the path",
    "Points are the images, the curve between them has their energies and slopes; the broken line is the saddle.",
    _profile,
)
_SURFACE = Picture(
    "The path on the surface", "Red: the path with its images. The cross is the saddle.", _surface
)
_SPHERE = Picture(
    "The path of the spin",
    "Every direction of the spin, by its azimuth about z and its z component. Red: the images; cross: the saddle.",
    _sphere,
)
_SPINS = Picture(
    "Spins along the path",
    "Seen from above. Colour: the z component of a spin; arrows: its components x and y.",
    _spins,
)
