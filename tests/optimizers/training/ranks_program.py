"""What every process of `test_processes.py` runs: a short training; the first writes what came of it.

python ranks_program.py FOLDER [KEY=VALUE ...]: ``trainer`` (names with commas), ``ranks``, ``timeout``;
``kill``, ``hang`` and ``fail`` name a rank that does so.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from mlopt.core.errors import MloptError
from mlopt.core.protocols.learning import Learnable
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.runs.checkpoint import Checkpoint, newest_sound, save
from mlopt.core.runs.experiment import Context
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.experiments.meta_train.experiment import MetaTrain
from mlopt.optimizers.local.adam import Adam
from mlopt.optimizers.training.es import ES, ESMC
from mlopt.optimizers.training.ga import GA
from mlopt.optimizers.training.pes import PES
from mlopt.optimizers.training.tasks.rollout import RolloutTask
from mlopt.optimizers.training.tasks.settings import HeldOut, Reference, RolloutCase
from mlopt.potentials import LennardJones, Morse

COUNT: list[int] = []
TRAINERS = {
    "es": ES(population=6),
    "esmc": ESMC(population=6),
    "ga": GA(population=5),
    "pes": PES(population=6, segment=8, cohorts=2),
}


class LearnedAdam(Learnable):
    def start(self, seed: int = 0) -> torch.Tensor:
        return torch.tensor([math.log(0.003)], dtype=torch.float64)

    def optimizer(self, theta: torch.Tensor) -> Optimizer:
        return Adam().replace(step_size=theta[..., 0].exp())


class Troubled(RolloutTask):
    """Where runs are carried on for the third time, one rank ends, hangs or fails, as the command line said."""

    def carry(self, run: Any, theta: torch.Tensor, steps: int) -> tuple[Any, torch.Tensor]:
        COUNT.append(steps)
        if len(COUNT) == 3:
            rank = os.environ.get("RANK", "0")
            if GIVEN.get("kill") == rank:
                os.kill(os.getpid(), signal.SIGKILL)
            if GIVEN.get("hang") == rank:
                time.sleep(60)
            if GIVEN.get("fail") == rank:
                raise ValueError("this rank has a fault")
        return super().carry(run, theta, steps)


class Folder(Context):
    """Checkpoints in a folder, one an epoch."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def pause(self) -> bool:
        return True

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        save(self.folder / "checkpoints", step, checkpoint)

    def restored(self) -> Checkpoint | None:
        found = newest_sound(self.folder / "checkpoints")
        return found[1] if found else None


def experiment(trainer: str, epochs: int) -> MetaTrain:
    members = [
        RolloutCase(system=SystemSpec(cluster="Ar6"), potential=LennardJones()),
        RolloutCase(system=SystemSpec(cluster="Ar4"), potential=Morse(), reference=-6.0),
    ]
    task = Troubled(
        members=members, learnable=LearnedAdam(), horizon=20, starts=2, engine="eager",
        reference=Reference(starts=3, steps=40), held_out=HeldOut(starts=3, steps=20, descent=5),
    )  # fmt: skip
    ranks = GIVEN.get("ranks")
    return MetaTrain(
        task=task,
        trainer=TRAINERS[trainer],
        epochs=epochs,
        evaluate_every=2,
        ranks=int(ranks) if ranks else None,
        rank_timeout=float(GIVEN.get("timeout", "60")),
    )


def main(folder: Path, trainer: str, epochs: int = 4) -> None:
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    rank = os.environ.get("RANK", "0")
    try:
        found = experiment(trainer, epochs).run(Folder(folder))
    except MloptError as error:
        (folder / f"error-{rank}.txt").write_text(str(error))
        raise
    (folder / f"theta-{rank}.json").write_text(json.dumps([found.theta.tolist(), found.history, found.ranks]))


if __name__ == "__main__":
    GIVEN = dict(one.split("=") for one in sys.argv[2:])
    for name in GIVEN.get("trainer", "esmc").split(","):
        main(Path(sys.argv[1], name), name)
else:
    GIVEN = {}
