"""The result of a meta-training: parameters, history, held-out problems, and the files that it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlopt.core.files import atomic
from mlopt.core.lazy import torch
from mlopt.core.protocols.learning import Learnable, Task
from mlopt.core.reporting.summary import Card, Column, Figure, Summary, Table
from mlopt.optimizers.experiments.meta_train import pictures

#: parameters that get a card of their own
_CARDS = 6
_START = "_at_start"


@dataclass(frozen=True)
class MetaTrained:
    """The outcome of a training.

    task: the task that was trained.
    theta (p,): the parameters.
    epoch: the epoch of theta.
    start (p,): the initial theta.
    history: one row of numbers per epoch.
    epochs: number of epochs.
    held_out: the last evaluation on held-out problems.
    wall_s: seconds over all sittings.
    ranks: number of processes.
    training: facts about the training, for the card of a file of weights.
    """

    task: Task
    theta: torch.Tensor
    start: torch.Tensor
    history: list[dict[str, float]]
    held_out: dict[str, float]
    epoch: int
    epochs: int
    wall_s: float
    ranks: int = 1
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters that theta stands for, by name."""
        return self.task.named(self.theta)

    def write(self, folder: Path) -> None:
        """Write ``parameters.json``, ``history.json`` and ``training.svg``.

        Where the task has a learnable whose optimizer reads weights, ``weights.safetensors`` too, with its card.
        """
        atomic.write_json(folder / "parameters.json", self.parameters)
        atomic.write_json(folder / "history.json", self.history)
        learnable = getattr(self.task, "learnable", None)
        if isinstance(learnable, Learnable):
            learnable.write_weights(self.theta, folder / "weights.safetensors", self.training)
        pictures.draw(self.history, list(self.parameters), folder / "training.svg")

    def summary(self) -> Summary:
        """Return the numbers that ``mlopt run --json`` prints, and the content of the report.

        A training has no goal that could be missed.
        """
        start = self.task.named(self.start)
        figure = Figure(
            "Training",
            "training.svg",
            "The loss against epochs, and the parameters where they are few numbers.",
        )
        return Summary(
            self._numbers(),
            headline=self.headline,
            cards=self._cards(start),
            tables=[*self._parameters(start), *self._held_out()],
            figures=[figure],
        )

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        told = ("held_out", ".mean", ".hits", ".calls_to_hit")
        judged = {name: one for name, one in self.held_out.items() if name.endswith(told)}
        named = judged or self.parameters or self.held_out
        return "learned " + ", ".join(f"{name} {one:.4g}" for name, one in named.items())

    def _numbers(self) -> dict[str, Any]:
        return {
            "parameters": self.parameters,
            **self.held_out,
            "loss": self.history[-1]["loss"],
            "epochs": self.epochs,
            "epoch_kept": self.epoch,
            "ranks": self.ranks,
            "wall_s": round(self.wall_s, 3),
        }

    def _cards(self, start: Mapping[str, float]) -> list[Card]:
        learned = self.parameters
        cards = [
            Card(_words(name), f"{value:.4g}", note=f"at the start {start[name]:.4g}")
            for name, value in learned.items()
        ]
        if len(learned) > _CARDS:
            cards = [Card("parameters", len(learned))]
        losses = [row["loss"] for row in self.history]
        cards.append(Card("loss", f"{losses[-1]:.4g}", note=f"in the first epoch {losses[0]:.4g}"))
        judged = [row["held_out"] for row in self.history if "held_out" in row]
        for name, value in self.held_out.items():
            if name.endswith(_START) or "." in name:
                continue
            note = "on held-out problems"
            if name + _START in self.held_out:
                note = f"at the start {self.held_out[name + _START]:.4g}"
            elif name == "held_out" and len(judged) > 1:
                note = f"at the first look {judged[0]:.4g}"
            label = "held-out loss" if name == "held_out" else _words(name)
            cards.append(Card(label, f"{value:.4g}", note=note))
        hits = [value for name, value in self.held_out.items() if name.endswith(".hits")]
        if hits:
            cards.append(Card("held-out hits", round(sum(hits)), note="starts that reached the target"))
        told = "" if self.epoch == self.epochs else f"the parameters are those of epoch {self.epoch:,}"
        return [*cards, Card("epochs", self.epochs, note=told)]

    def _parameters(self, start: Mapping[str, float]) -> list[Table]:
        if not self.parameters:
            return []
        columns = [Column("parameter"), Column("at the start"), Column("learned")]
        rows = [[_words(name), start.get(name), value] for name, value in self.parameters.items()]
        return [Table("Learned parameters", columns, rows)]

    def _held_out(self) -> list[Table]:
        """Return one row per problem, such as ``Ar13``, whose numbers are named ``Ar13.mean``, ``Ar13.hits``."""
        problems: dict[str, dict[str, float]] = {}
        for name, value in self.held_out.items():
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
