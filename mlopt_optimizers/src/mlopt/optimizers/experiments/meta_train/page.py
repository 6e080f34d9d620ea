"""What the report of a meta-training shows: what was learned beside the start, losses, and held-out problems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.errors import MloptError
from mlopt.core.reporting import drawing
from mlopt.core.reporting.summary import Card, Column, Figure, Summary, Table

if TYPE_CHECKING:
    from mlopt.optimizers.experiments.meta_train.result import MetaTrained

#: parameters that get a card of their own
_CARDS = 6
_START = "_at_start"


def summarise(found: MetaTrained, numbers: Mapping[str, Any]) -> Summary:
    """Return the numbers of a training with what its report shows; it has no goal that could be missed."""
    start = _start(found)
    figure = Figure(
        "Training", "training.svg", "The loss against epochs, and the parameters where they are few numbers."
    )
    return Summary(
        numbers,
        cards=_cards(found, start),
        tables=[*_parameters(found, start), *_held_out(found)],
        figures=[figure],
    )


def _start(found: MetaTrained) -> dict[str, float]:
    """The parameters at the start, {} where they are not to be had any more: results do not depend on it."""
    try:
        return found.experiment.task.named(found.experiment.first_theta())
    except (MloptError, OSError):  # the file that training began with may have gone
        return {}


def _cards(found: MetaTrained, start: Mapping[str, float]) -> list[Card]:
    learned = found.parameters
    cards = []
    if len(learned) <= _CARDS:
        for name, value in learned.items():
            note = f"at the start {start[name]:.4g}" if name in start else ""
            cards.append(Card(_words(name), f"{value:.4g}", note=note))
    else:
        cards.append(Card("parameters", len(learned)))
    losses = [row["loss"] for row in found.history]
    cards.append(Card("loss", f"{losses[-1]:.4g}", note=f"in the first epoch {losses[0]:.4g}"))
    judged = [row["held_out"] for row in found.history if "held_out" in row]
    for name, value in found.held_out.items():
        if name.endswith(_START) or "." in name:
            continue
        note = "on held-out problems"
        if name + _START in found.held_out:
            note = f"at the start {found.held_out[name + _START]:.4g}"
        elif name == "held_out" and len(judged) > 1:
            note = f"at the first look {judged[0]:.4g}"
        cards.append(Card("held-out loss" if name == "held_out" else _words(name), f"{value:.4g}", note=note))
    hits = [value for name, value in found.held_out.items() if name.endswith(".hits")]
    if hits:
        cards.append(Card("held-out hits", round(sum(hits)), note="starts that reached the target"))
    told = f"the parameters are those of epoch {found.epoch:,}"
    cards.append(
        Card("epochs", found.experiment.epochs, note=told if found.epoch != found.experiment.epochs else "")
    )
    return cards


def _parameters(found: MetaTrained, start: Mapping[str, float]) -> list[Table]:
    if not found.parameters:
        return []
    columns = [Column("parameter"), Column("at the start"), Column("learned")]
    rows = [[_words(name), start.get(name), value] for name, value in found.parameters.items()]
    return [Table("Learned parameters", columns, rows)]


def _held_out(found: MetaTrained) -> list[Table]:
    """One row a problem, such as ``Ar13``, whose numbers are named ``Ar13.mean``, ``Ar13.hits``."""
    problems: dict[str, dict[str, float]] = {}
    for name, value in found.held_out.items():
        problem, dot, what = name.rpartition(".")
        if dot:
            problems.setdefault(problem, {})[what] = value
    if not problems:
        return []
    heads = list(dict.fromkeys(what for row in problems.values() for what in row))
    columns = [Column("problem"), *(Column(_words(head)) for head in heads)]
    rows = [[problem, *(row.get(head) for head in heads)] for problem, row in problems.items()]
    return [Table("Held-out problems", columns, rows, "Problems that were not trained on.")]


def _words(name: str) -> str:
    return name.replace("_", " ")


def draw(found: MetaTrained, file: Path) -> None:
    """Draw loss and parameters against epochs, and the loss on held-out problems where the task tells it."""
    plt = drawing.pyplot()
    names, rows = list(found.parameters), found.history
    size = (6.4, 6.0 if names else 3.4)
    figure, axes = plt.subplots(2 if names else 1, 1, figsize=size, layout="constrained", squeeze=False)
    epochs = [row["epoch"] for row in rows]
    losses = [row["loss"] for row in rows]
    axes[0, 0].plot(epochs, losses, color="#3b6ea5", label="training")
    judged = [(row["epoch"], row["held_out"]) for row in rows if "held_out" in row]
    if judged:
        axes[0, 0].plot(*zip(*judged, strict=True), "o-", color="#b5532a", label="held out")
        axes[0, 0].legend(frameon=False)
    axes[0, 0].set(xlabel="epoch", ylabel="loss")
    for name in names:
        axes[1, 0].semilogy(epochs, [row[name] for row in rows], label=_words(name))
    if names:
        axes[1, 0].set(xlabel="epoch", ylabel="parameters")
        axes[1, 0].legend(frameon=False)
    drawing.save(figure, file)
