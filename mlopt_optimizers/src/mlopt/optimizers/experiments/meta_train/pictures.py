"""The picture of a training: loss and parameters against epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlopt.core.reporting import drawing


def draw(history: Sequence[Mapping[str, float]], names: Sequence[str], file: Path) -> None:
    """Draw losses and the named parameters against epochs, and the held-out loss where it was measured."""
    plt = drawing.pyplot()
    size = (6.4, 6.0 if names else 3.4)
    figure, axes = plt.subplots(2 if names else 1, 1, figsize=size, layout="constrained", squeeze=False)
    epochs = [row["epoch"] for row in history]
    axes[0, 0].plot(epochs, [row["loss"] for row in history], color="#3b6ea5", label="training")
    judged = [(row["epoch"], row["held_out"]) for row in history if "held_out" in row]
    if judged:
        axes[0, 0].plot(*zip(*judged, strict=True), "o-", color="#b5532a", label="held out")
        axes[0, 0].legend(frameon=False)
    axes[0, 0].set(xlabel="epoch", ylabel="loss")
    for name in names:
        axes[1, 0].semilogy(epochs, [row[name] for row in history], label=name.replace("_", " "))
    if names:
        axes[1, 0].set(xlabel="epoch", ylabel="parameters")
        axes[1, 0].legend(frameon=False)
    drawing.save(figure, file)
