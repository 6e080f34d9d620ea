"""What a meta-training comes to: parameters, history, files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.errors import InputError
from mlopt.core.files import atomic
from mlopt.core.lazy import torch
from mlopt.core.protocols.learning import Learnable
from mlopt.core.reporting.summary import Summary
from mlopt.optimizers.experiments.meta_train import page

if TYPE_CHECKING:
    from mlopt.optimizers.experiments.meta_train.experiment import MetaTrain


@dataclass(frozen=True)
class MetaTrained:
    """What training came to: theta (p,), one row of numbers an epoch, and the last look at held-out problems.

    epoch: at which theta was what it is.
    """

    experiment: MetaTrain
    theta: torch.Tensor
    history: list[dict[str, float]]
    held_out: dict[str, float]
    wall_s: float
    ranks: int = 1
    epoch: int = 0

    @property
    def parameters(self) -> dict[str, float]:
        """What theta stands for, by name."""
        return self.experiment.task.named(self.theta)

    def summary(self) -> Summary:
        """The numbers that ``mlopt run --json`` prints, and what the report shows."""
        return page.summarise(self, self._numbers())

    def _numbers(self) -> dict[str, Any]:
        told = ("held_out", ".mean", ".hits", ".calls_to_hit")
        judged = {name: one for name, one in self.held_out.items() if name.endswith(told)}
        named = judged or self.parameters or self.held_out
        return {
            "experiment": "meta-train",
            "status": "finished",
            "headline": "learned " + ", ".join(f"{name} {one:.4g}" for name, one in named.items()),
            "parameters": self.parameters,
            **self.held_out,
            "loss": self.history[-1]["loss"],
            "epochs": self.experiment.epochs,
            "epoch_kept": self.epoch,
            "ranks": self.ranks,
            "wall_s": round(self.wall_s, 3),
        }

    def write(self, folder: Path) -> None:
        """Write ``parameters.json``, ``history.json``, ``theta.safetensors`` and ``training.svg``.

        Where the task has a learnable whose optimizer reads weights, ``weights.safetensors`` too, with its card.
        """
        atomic.write_json(folder / "parameters.json", self.parameters)
        atomic.write_json(folder / "history.json", self.history)
        save_theta(folder / "theta.safetensors", self.theta, self.experiment, self.epoch)
        learnable = getattr(self.experiment.task, "learnable", None)
        if isinstance(learnable, Learnable):
            learnable.write_weights(self.theta, folder / "weights.safetensors", self.training())
        page.draw(self, folder / "training.svg")

    def training(self) -> dict[str, Any]:
        """What a card of weights tells of how they came about."""
        config = self.experiment.config()
        return {
            "task_family": config["task"],
            "horizon": config["task"].get("horizon", config["task"].get("force_calls")),
            "estimator": config["trainer"],
            "seeds": [self.experiment.seed],
            "epoch": self.epoch,
            "cost": {"epochs": self.experiment.epochs, "ranks": self.ranks, "wall_s": round(self.wall_s, 1)},
            "results": self.held_out,
            "command": "mlopt run, with the `config.resolved.yaml` of this training",
        }


def save_theta(path: Path, theta: torch.Tensor, experiment: MetaTrain, epoch: int) -> None:
    """Write the parameters alone: the tensor ``theta (p,)``, and which task, trainer, seed and epoch they are of.

    What they are of is one entry, ``made_by``, of JSON: safetensors writes several in no fixed order.
    """
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    made_by = {
        "task": type(experiment.task).__name__,
        "trainer": type(experiment.trainer).__name__,
        "seed": experiment.seed,
        "epoch": epoch,
    }
    atomic.write_bytes(
        path, save({"theta": theta.detach().cpu().contiguous()}, {"made_by": json.dumps(made_by)})
    )


def load_theta(path: Path, size: int) -> torch.Tensor:
    """The parameters in a file that `save_theta` has written: (size,) float64.

    Raises:
        InputError: no such file, no such tensor, another number of parameters, or one that is not finite.
    """
    from safetensors.torch import load

    try:
        theta = load(path.read_bytes())["theta"].to(torch.float64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # whatever safetensors finds wrong: nothing of the file is executed
        raise InputError(f"{path}: no file of parameters ({type(error).__name__}: {error})") from error
    if theta.shape != (size,):
        raise InputError(
            f"{path}: {theta.numel()} parameters, and this task has {size}: it was trained with other features, "
            f"another network or other species"
        )
    if not bool(torch.isfinite(theta).all()):
        raise InputError(f"{path}: holds NaN or infinity; take an older file")
    return theta
