"""Candidates that are not linear in their parameters: each is trained, and the structures held back decide."""

from __future__ import annotations

from typing import Any

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.core.runs.experiment import Preempted
from mlopt.core.runs.processes import Ranks
from mlopt.core.runs.session import Session
from mlopt.optimizers.experiments.fit.candidate import Candidate
from mlopt.optimizers.fitting.training import Look, Trained, Trainer, Training


def train_all(
    session: Session,
    here: Ranks,
    candidates: list[tuple[dict[str, Any], FittablePotential]],
    *,
    training: Training,
    data: Dataset,
    seed: int,
) -> tuple[FittablePotential, Trained, list[Candidate]]:
    """Train every candidate; return the best with its training, and the measure that decided between all.

    Raises:
        Preempted: the run was asked to stop; a checkpoint has been saved.
    """
    so_far = _SoFar()
    trainer: Trainer | None = None
    restored = session.restored
    if restored is not None:
        so_far = _SoFar.of(restored.tensors, restored.meta)
        trainer = Trainer(training, candidates[len(so_far.done)][1], data, seed)
        if "trainer" in restored.meta:
            trainer.load_checkpoint(_named("trainer.", restored.tensors), restored.meta["trainer"])
    for number in range(len(so_far.done), len(candidates)):
        choice, potential = candidates[number]
        trainer = trainer or Trainer(training, potential, data, seed)
        before, whole = number * trainer.total, len(candidates) * trainer.total
        while not trainer.done:
            # several processes stop together, at a look
            look = trainer.advance(session.context.pause if here.size == 1 else None)
            at = before + trainer.evaluations
            if look is not None:
                _tell(session, look, at, at / whole)
            leaving = here.agree(session.context.stopping)
            if (look is None or leaving or session.context.pause()) and not trainer.done:
                so_far.save(session, 2 * at, trainer)
                if leaving:
                    raise Preempted
        so_far.add(choice, trainer.result())
        if number + 1 < len(candidates):
            so_far.save(session, 2 * (before + trainer.evaluations) + 1, None)
            if here.agree(session.context.stopping):
                raise Preempted
        trainer = None
    return candidates[so_far.chosen][1], so_far.best, so_far.done


class _SoFar:
    """The candidates that have been trained, and the training of the best."""

    best: Trained

    def __init__(self) -> None:
        self.done: list[Candidate] = []

    @classmethod
    def of(cls, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> _SoFar:
        """Return what `save` has kept."""
        made = cls()
        made.done = [Candidate(**one) for one in meta["candidates"]]
        if made.done:
            looks = [Look(**one) for one in meta["best"]["looks"]]
            evaluations = int(meta["best"]["evaluations"])
            made.best = Trained(**_named("best.", tensors), looks=looks, evaluations=evaluations)
        return made

    @property
    def chosen(self) -> int:
        """The place of the best candidate."""
        return max(range(len(self.done)), key=lambda k: self.done[k].merit)

    def add(self, choice: dict[str, Any], found: Trained) -> None:
        held_back = float(found.held_back[found.best])
        self.done.append(Candidate(choice, found.theta.shape[-1], held_back=held_back))
        if self.chosen == len(self.done) - 1:
            self.best = found

    def save(self, session: Session, step: int, trainer: Trainer | None) -> None:
        """Keep all, and the training in flight."""
        tensors: dict[str, torch.Tensor] = {}
        meta: dict[str, Any] = {"candidates": [one.plain() for one in self.done]}
        if self.done:
            best = self.best
            tensors |= {"best.theta": best.theta, "best.loss": best.loss, "best.held_back": best.held_back}
            meta["best"] = {"looks": [vars(one) for one in best.looks], "evaluations": best.evaluations}
        if trainer is not None:
            own, meta["trainer"] = trainer.to_checkpoint()
            tensors |= {f"trainer.{name}": one for name, one in own.items()}
        session.save(step, tensors, meta)


def _named(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return the entries whose names begin with a prefix, without that prefix."""
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def _tell(session: Session, look: Look, step: int, share: float) -> None:
    """Write a look to the metrics and the log."""
    loss, held = min(look.loss), min(look.held_back)
    session.context.metric(
        2 * step, loss=loss, held_back=held, evaluations=look.evaluations, stage=look.stage
    )
    told = f"{look.evaluations} evaluations, loss {loss:.4g}, held back {held:.4g}"
    session.context.progress(share, told)
