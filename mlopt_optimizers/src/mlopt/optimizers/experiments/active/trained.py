"""The knowledge of an active run whose potential is trained, starting from the parameters of the last round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.experiments.active.further import Further
from mlopt.optimizers.experiments.active.learned import Grading, Learned, Learner, counted, entering
from mlopt.optimizers.experiments.active.linear import of_active_set
from mlopt.optimizers.experiments.active.wishes import Wish
from mlopt.optimizers.fitting.training import Look, Trained, Trainer, Training
from mlopt.optimizers.querying.active_set import ActiveSet
from mlopt.optimizers.querying.disagreement import Disagreement
from mlopt.optimizers.querying.grade import By, Grader

#: parameters up to which an active set is kept, which has as many rows
_MOST = 4000


@dataclass(frozen=True)
class Scratch:
    """The last training from scratch.

    prepared: number of labels, the first ones, for which the potential was prepared (`FittablePotential.prepared`).
    labels: number of labels at that training.
    loss: the lowest loss that was known after that training.
    """

    prepared: int
    labels: int
    loss: float


@dataclass(frozen=True, eq=False)
class TrainedLearned(Learned):
    """The knowledge of a potential that is trained.

    theta (k, p): parameters of all seeds.
    best: the seed that walkers move on.
    loss: the loss of that seed, as in `Look`.
    evaluations: evaluations of the loss in the last round, for each seed.
    anew: whether that round began from scratch.
    """

    of_fit: ClassVar[tuple[str, ...]] = ("training", "further")

    theta: torch.Tensor
    best: int
    loss: float
    evaluations: int
    anew: bool
    scratch: Scratch

    @property
    def members(self) -> torch.Tensor:
        """See `Learned.members`."""
        return self.theta

    def teaching(self, wishes: Sequence[Wish]) -> list[int]:
        """See `Learned.teaching`: wishes with rows that enter the active set; with a committee all of them.

        With a committee walkers take turns, because the structures that one walker puts aside are much alike.
        """
        if isinstance(self.grader, Grader):
            return entering(self.grader, wishes, len(self.data))
        met, turns = Counter[int](), list[tuple[int, int]]()
        for place in sorted(range(len(wishes)), key=lambda place: -wishes[place].grade):
            turns.append((met[wishes[place].walker], place))
            met[wishes[place].walker] += 1
        return [place for _, place in sorted(turns, key=lambda one: one[0])]

    def told(self) -> dict[str, Any]:
        """See `Learned.told`."""
        found = {
            "parameters": int(self.theta.shape[-1]),
            "loss": self.loss,
            "evaluations": self.evaluations,
            "from_scratch": self.anew,
        }
        if isinstance(self.grader, Disagreement):
            return found | {"members": len(self.theta), "unit": self.grader.unit}
        return found | {"rank": self._active_set.rank}

    def grounds(self) -> str:
        """See `Learned.grounds`."""
        if isinstance(self.grader, Disagreement):
            return f"{len(self.theta)} members of a committee"
        return f"rank {self._active_set.rank} of the active set"

    @property
    def _active_set(self) -> ActiveSet:
        assert isinstance(self.grader, Grader)
        return self.grader.active_set

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """See `Learned.to_tensors`."""
        counts = [self.scratch.prepared, self.scratch.labels, self.best, self.evaluations, int(self.anew)]
        found = {
            "trained.theta": self.theta,
            "trained.counts": torch.tensor(counts),
            "trained.losses": torch.tensor([self.loss, self.scratch.loss], dtype=torch.float64),
        }
        if isinstance(self.grader, Disagreement):
            found["trained.unit"] = torch.tensor(self.grader.unit, dtype=torch.float64)
        else:
            found |= {f"active.{name}": one for name, one in self._active_set.to_tensors().items()}
        return found | super().to_tensors()


@dataclass(frozen=True)
class TrainedLearner(Learner):
    """A learner by training.

    The first labels are learned from scratch, with ``training``. New ones are learned from the present parameters,
    together with all others, by as many evaluations as ``further`` says. The settings that the potential takes from
    data, such as the scale of its inputs, do not change meanwhile. Its parameters thus keep their meaning. A training
    from scratch takes these settings anew.

    by: see `Grader`; None for grades by a committee. The rows of an active set depend on the parameters, so the set is
        chosen anew after every training.
    agreement: the smallest unit of grades by a committee, as a relative disagreement; ``least`` of `Disagreement.of`.
    looked: a function that is called at every look of a training; an exception that it raises ends the training.
    """

    training: Training
    further: Further
    by: By | None
    agreement: float | None
    seed: int
    looked: Callable[[Look], None]

    def check(self, prepared: FittablePotential) -> None:
        """Refuse an active set that would need too many rows.

        Raises:
            InputError: the potential has too many parameters for it.
        """
        p = prepared.parameters.shape[-1]
        if self.by is not None and p > _MOST:
            raise InputError(
                f"`asking.by: {self.by}`: an active set needs a row for each of {p:,} parameters of {prepared.giver}, "
                f"and can have {_MOST:,}; take a smaller potential, or `asking.by: committee`"
            )

    def _first(self, data: Dataset, core: torch.Tensor) -> Learned:
        prepared = self.base.prepared(data)
        self.check(prepared)
        return self._anew(prepared, self._trained(self.training, prepared, data, core), data, core)

    def _with(self, known: Learned, new: Dataset, core: torch.Tensor) -> Learned:
        assert isinstance(known, TrainedLearned)
        data, core = Dataset.concatenate([known.data, new]), torch.cat([known.core, core])
        prepared, last = self.base.prepared(data), known.scratch
        if len(data) >= self.further.growth * last.labels:
            return self._anew(prepared, self._trained(self.training, prepared, data, core), data, core)
        short = self._further
        found = self._trained(short, known.potential, data, core, known.theta)
        loss = float(found.held_back[found.best])
        if loss <= self.further.loss * last.loss:
            return self._made(known.potential, found, data, core, found.evaluations, last)
        other = self._trained(self.training, prepared, data, core)
        spent = found.evaluations + other.evaluations
        if float(other.held_back[other.best]) < loss:
            return self._anew(prepared, other, data, core, spent)
        # no better from scratch: what there is stays, and its loss is the measure from now on
        scratch = Scratch(last.prepared, len(data), loss)
        return self._made(known.potential, found, data, core, spent, scratch)

    @property
    def _further(self) -> Training:
        last = self.training.stages[-1]
        return self.training.replace(stages=[last.replace(evaluations=self.further.evaluations)])

    def _trained(
        self,
        training: Training,
        potential: FittablePotential,
        data: Dataset,
        core: torch.Tensor,
        starts: torch.Tensor | None = None,
    ) -> Trained:
        trainer = Trainer(training, potential, counted(data, core), self.seed, starts)
        while not trainer.done:
            look = trainer.advance()
            if look is not None:
                self.looked(look)
        return trainer.result()

    def _anew(
        self,
        prepared: FittablePotential,
        found: Trained,
        data: Dataset,
        core: torch.Tensor,
        spent: int | None = None,
    ) -> Learned:
        """Return the knowledge after a training from scratch."""
        scratch = Scratch(len(data), len(data), float(found.held_back[found.best]))
        evaluations = found.evaluations if spent is None else spent
        return self._made(prepared, found, data, core, evaluations, scratch, anew=True)

    def _made(
        self,
        potential: FittablePotential,
        found: Trained,
        data: Dataset,
        core: torch.Tensor,
        evaluations: int,
        scratch: Scratch,
        anew: bool = False,
    ) -> Learned:
        fitted = potential.with_theta(found.theta[found.best])
        grader: Grading
        if self.by is not None:
            grader = Grader.of(fitted, data.systems, self.by, among=core)
        else:
            least = self.agreement or 0.0
            grader = Disagreement.of(fitted, found.theta, data.systems, least=least, among=core)
        loss = float(found.held_back[found.best])
        return TrainedLearned(
            data, core, grader, self._ranked(data), found.theta, found.best, loss, evaluations, anew, scratch
        )

    def _again(self, data: Dataset, core: torch.Tensor, tensors: dict[str, torch.Tensor]) -> Learned:
        theta = tensors["trained.theta"]
        prepared, labels, best, evaluations, anew = tensors["trained.counts"].tolist()
        loss, last = tensors["trained.losses"].tolist()
        fitted = self.base.prepared(data.select(list(range(prepared)))).with_theta(theta[best])
        grader: Grading
        if self.by is not None:
            grader = Grader(fitted, ActiveSet.of_tensors(of_active_set(tensors)), self.by)
        else:
            grader = Disagreement(fitted, theta, float(tensors["trained.unit"]))
        scratch = Scratch(prepared, labels, last)
        return TrainedLearned(
            data, core, grader, self._ranked(data), theta, best, loss, evaluations, bool(anew), scratch
        )
