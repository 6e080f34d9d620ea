"""The experiment `meta-train`: epochs of a meta-trainer on a task."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from mlopt.core.errors import InputError, MloptError
from mlopt.core.lazy import torch
from mlopt.core.plugins.input_file import InputFile
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.learning import MetaState, MetaTrainer, Task
from mlopt.core.runs import processes
from mlopt.core.runs.checkpoint import dumps, loads
from mlopt.core.runs.experiment import Context, Experiment, Preempted
from mlopt.core.runs.pace import Pace
from mlopt.core.runs.session import Session
from mlopt.optimizers.experiments.meta_train.result import MetaTrained
from mlopt.optimizers.experiments.meta_train.theta import load_theta, save_theta

_MEMORY = "memory."


class MetaTrain(Experiment):
    """A training of a task's parameters, judged on problems outside the training.

    Under ``torchrun`` all processes train together, see `mlopt.core.runs.processes`; only the first writes.
    """

    ranked: ClassVar[bool] = True

    task: Annotated[Task, FromRegistry("task")] = setting(..., "parameters to train, and their problems")
    trainer: Annotated[MetaTrainer, FromRegistry("meta-trainer")] = setting(..., "meta-trainer")
    epochs: int = setting(200, "number of epochs", ge=1)
    evaluate_every: int = setting(20, "epochs between two evaluations on held-out problems", ge=1)
    keep: Literal["last", "best"] = setting(
        "last",
        "parameters to return: the last, or those with the lowest held-out loss, which are then "
        "judged again on fresh starts",
    )
    theta: InputFile | None = setting(
        None, "initial parameters: a `theta.safetensors` of an earlier training"
    )
    seed: int = setting(0, "seed of random numbers; the same seed gives the same result", ge=0, le=2**62)
    max_minutes: float | None = setting(
        None, "wall time of one sitting, after which the run stops and can be resumed", gt=0
    )
    ranks: int | None = setting(None, "smallest number of processes; none: any number", ge=1)
    rank_timeout: float = setting(1800.0, "time to wait for the slowest process", unit="s", gt=0)

    def check(self) -> None:
        """Evaluate the task's first parameters, to detect a faulty model, file or path.

        Raises:
            InputError: with the fault.
        """
        processes.check(self.ranks)
        theta = self.first_theta()
        if theta.ndim != 1 or not bool(torch.isfinite(theta).all()):
            raise InputError(
                f"{type(self.task).__name__} starts at parameters that are no vector of finite numbers; check what it "
                f"starts from"
            )

    def first_theta(self) -> torch.Tensor:
        """Return the initial theta, (p,) float64, from the file or from the task; errors as in `check`."""
        theta = self.task.theta
        return theta if self.theta is None else load_theta(Path(self.theta), theta.numel())

    def run(self, context: Context | None = None) -> MetaTrained:
        """Train, and write results if ``context`` has a folder for them.

        Raises:
            InputError: as in `check`.
            Preempted: ``context`` asked to stop, or the time of this sitting is up; a checkpoint has been saved.
            MloptError: a rank has ended or hangs.
        """
        self.check()
        context = context or Context()
        with processes.joined(self.ranks, self.rank_timeout) as here:
            # results and checkpoints are the first rank's alone
            return _Training(self, context if here.rank == 0 else processes.Worker(context), here).run()

    def made_by(self, epoch: int) -> dict[str, Any]:
        """Return the origin of the parameters of that epoch, for their file."""
        plugins = {"task": type(self.task).__name__, "trainer": type(self.trainer).__name__}
        return plugins | {"seed": self.seed, "epoch": epoch}

    def training(
        self, held_out: Mapping[str, float], *, epoch: int, wall_s: float, ranks: int = 1
    ) -> dict[str, Any]:
        """Return the facts about the training, for the card of a file of weights."""
        config = self.config()
        return {
            "task_family": config["task"],
            "horizon": config["task"].get("horizon", config["task"].get("force_calls")),
            "estimator": config["trainer"],
            "seeds": [self.seed],
            "epoch": epoch,
            "cost": {"epochs": self.epochs, "ranks": ranks, "wall_s": round(wall_s, 1)},
            "results": dict(held_out),
            "command": "mlopt run, with the `config.resolved.yaml` of this training",
        }


class _Training:
    """One sitting of a training, on one rank."""

    def __init__(self, experiment: MetaTrain, context: Context, here: processes.Ranks) -> None:
        self.experiment, self.here = experiment, here
        self.session = Session(context)
        self.context, self.began = self.session.context, time.monotonic()
        self.task = experiment.task.within(context)
        self.prepared = False
        self.history: list[dict[str, float]] = []
        self.held_out: dict[str, float] = {}
        self.best: MetaState | None = None  # whose held-out loss was lowest so far
        self.best_loss = math.inf
        self.judging = 0.0  # seconds of the last evaluation on held-out problems
        self.pace = Pace(context, unit="epoch", bounded=False, after=0.0)

    def run(self) -> MetaTrained:
        """Resume from the checkpoint, if any, and train to the end or to a stop."""
        experiment, start = self.experiment, self.experiment.first_theta()
        state = self._restored()
        if state is None:
            state = MetaState(start)
            self._save(state)
        self.task.prepare()
        if not self.prepared:
            self.prepared = True
            self._save(state)  # what `prepare` computed can be costly
        self.pace.look(state.epoch, experiment.epochs - state.epoch)
        while state.epoch < experiment.epochs:
            began = time.monotonic()
            before = state
            try:
                state, metrics = experiment.trainer.advance(self.task, before, experiment.seed)
                took = time.monotonic() - began
                self._record(state, metrics)
            except Preempted:
                self._save(before)  # the resumed run repeats this epoch
                raise
            pausing = self.context.pause()
            if self._stopping(state, took) and state.epoch < experiment.epochs:
                self._save(state)
                raise Preempted
            if pausing:
                self._save(state)
        self._save(state)
        if experiment.keep == "best" and self.best is not None:
            state = self.best
            self.held_out = self.task.evaluate(state.theta, experiment.seed + 1)
        wall_s = self.session.seconds
        told = experiment.training(self.held_out, epoch=state.epoch, wall_s=wall_s, ranks=self.here.size)
        found = MetaTrained(
            self.task,
            state.theta,
            start,
            self.history,
            self.held_out,
            epoch=state.epoch,
            epochs=experiment.epochs,
            wall_s=wall_s,
            ranks=self.here.size,
            training=told,
        )
        folder = self.context.results()
        if folder is not None:
            save_theta(folder / "theta.safetensors", state.theta, experiment.made_by(state.epoch))
            found.write(folder)
        return found

    def _stopping(self, state: MetaState, took: float) -> bool:
        """Return whether all ranks stop now. took: seconds of the last epoch; the next one has to fit in as well."""
        limit = self.experiment.max_minutes
        left = self.context.seconds_left
        if limit is not None:
            left = min(left, self.began + 60.0 * limit - time.monotonic())
        needed = took + (self.judging if self._judges(state.epoch + 1) else 0.0)
        return self.here.agree(self.context.stopping or needed > left)

    def _judges(self, epoch: int) -> bool:
        return epoch % self.experiment.evaluate_every == 0 or epoch == self.experiment.epochs

    def _record(self, state: MetaState, metrics: dict[str, float]) -> None:
        experiment = self.experiment
        self._compare(state)
        row = {"epoch": float(state.epoch)} | metrics | self.task.named(state.theta)
        if self._judges(state.epoch):
            began = time.monotonic()
            self.held_out = self.task.evaluate(state.theta, experiment.seed)
            self.judging = time.monotonic() - began
            row |= self.held_out
            self._choose(state)
            folder = self.context.results()
            if folder is not None:
                file = folder / "theta" / f"epoch-{state.epoch:06d}.safetensors"
                save_theta(file, state.theta, experiment.made_by(state.epoch))
        self.history.append(row)
        self.context.metric(state.epoch, **row)
        self.pace.look(state.epoch, experiment.epochs - state.epoch)
        self.pace.show(state.epoch / experiment.epochs, _line(row, experiment.epochs))

    def _choose(self, state: MetaState) -> None:
        """Keep the parameters if they are the best so far."""
        if self.experiment.keep == "last":
            return
        if "held_out" not in self.held_out:
            raise InputError(
                f"`keep: best` needs a held-out loss, and {type(self.task).__name__} tells none; take `keep: last`"
            )
        loss = self.held_out["held_out"]
        if loss < self.best_loss:
            self.best, self.best_loss = MetaState(state.theta.clone(), state.epoch), loss

    def _compare(self, state: MetaState) -> None:
        """Refuse to continue if theta differs between ranks, because then their processors compute differently."""
        if self.here.size == 1:
            return
        digest = hashlib.sha256(state.theta.contiguous().numpy().tobytes()).digest()
        number = float(int.from_bytes(digest[:6], "little"))  # 48 bits: exact in float64
        found = self.here.gather(torch.tensor([number], dtype=torch.float64))[:, 0].tolist()
        if len(set(found)) > 1:
            different = [rank for rank, one in enumerate(found) if one != found[0]]
            raise MloptError(
                f"after epoch {state.epoch} ranks {different} have other parameters than rank 0: nodes with different "
                f"processors or versions of torch do not round alike. Train on nodes of one kind"
            )

    def _restored(self) -> MetaState | None:
        """Return the state to resume from; every rank gets that of the first."""
        restored = self.session.restored
        data = self.here.broadcast(dumps(restored) if restored is not None else b"")
        if not data:
            return None
        restored = loads(data, "the checkpoint of rank 0")
        self.judging = float(restored.meta["judging"])
        self.history, self.held_out = list(restored.meta["history"]), dict(restored.meta["held_out"])
        if "best" in restored.tensors:
            self.best = MetaState(restored.tensors["best"], int(restored.meta["best_epoch"]))
            self.best_loss = float(restored.meta["best_loss"])
        self.prepared = "constants" in restored.tensors
        if self.prepared:
            self.task = self.task.with_constants(restored.tensors["constants"])
        memory = {
            name.removeprefix(_MEMORY): one
            for name, one in restored.tensors.items()
            if name.startswith(_MEMORY)
        }
        return MetaState(restored.tensors["theta"], int(restored.meta["epoch"]), memory)

    def _save(self, state: MetaState) -> None:
        tensors = {"theta": state.theta}
        if self.prepared:
            tensors["constants"] = self.task.constants()
        tensors |= {_MEMORY + name: one for name, one in state.memory.items()}
        meta: dict[str, Any] = {"epoch": state.epoch, "judging": self.judging}
        meta |= {"history": self.history, "held_out": self.held_out}
        if self.best is not None:
            tensors["best"] = self.best.theta
            meta |= {"best_epoch": self.best.epoch, "best_loss": self.best_loss}
        self.session.save(state.epoch, tensors, meta)


def _line(row: dict[str, float], epochs: int) -> str:
    names = [name for name in row if name not in ("epoch", "gradient", "loss_before")]
    return f"epoch {int(row['epoch'])} of {epochs}: " + ", ".join(f"{name} {row[name]:.4g}" for name in names)
