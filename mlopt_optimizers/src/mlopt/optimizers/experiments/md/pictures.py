"""The picture of molecular dynamics: temperature, potential and conserved energy of the walkers over time."""

from __future__ import annotations

from pathlib import Path

from mlopt.core.atoms.units import Units
from mlopt.core.lazy import torch
from mlopt.core.reporting import drawing
from mlopt.optimizers.experiments.md.recording import CONSERVED, POTENTIAL, TEMPERATURE

#: walkers and frames of one that are drawn, at most
_WALKERS, _FRAMES = 16, 2000


def draw(
    time: torch.Tensor, series: torch.Tensor, temperature: torch.Tensor, units: Units, file: Path
) -> None:
    """Draw three panels over ``time (n_frames,)``; a line ends where its walker failed.

    Walkers of one temperature have one colour.
    series: (n_frames, n_walkers, 4), see `mlopt.optimizers.experiments.md.result.MdResult`.
    temperature: (n_walkers,) that each walker is set to.
    """
    plt = drawing.pyplot()
    figure, axes = plt.subplots(3, 1, figsize=(6.4, 5.6), sharex=True, layout="constrained")
    stride = max(1, len(time) // _FRAMES)
    reduced = units.reduced
    energy = "" if reduced else f" ({units.energy})"
    labels = (
        "temperature" + ("" if reduced else " (K)"),
        f"potential{energy}",
        f"change of conserved{energy}",
    )
    given = temperature[:_WALKERS].tolist()
    colours = {one: f"C{place}" for place, one in enumerate(sorted(set(given)))}
    for axis, column, label in zip(axes, (TEMPERATURE, POTENTIAL, CONSERVED), labels, strict=True):
        lines = series[:, :_WALKERS, column]
        if column == CONSERVED and len(lines):
            lines = lines - lines[0]
        for walker, one in enumerate(given[: lines.shape[1]]):
            axis.plot(
                time[::stride].numpy(), lines[::stride, walker].numpy(), color=colours[one], linewidth=0.7
            )
        axis.set_ylabel(label, fontsize=8)
        axis.tick_params(labelsize=7)
    axes[-1].set_xlabel("time" + ("" if reduced else " (fs)"), fontsize=8)
    handles = [plt.Line2D([], [], color=colour, label=f"{one:g}") for one, colour in colours.items()]
    figure.legend(
        handles=handles,
        title=labels[0],
        loc="outside right upper",
        frameon=False,
        fontsize=7,
        title_fontsize=7,
    )
    drawing.save(figure, file)
