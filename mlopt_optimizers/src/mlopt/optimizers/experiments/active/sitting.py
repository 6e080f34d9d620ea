"""One sitting of an active run: walk, ask, label and fit, from the start or from a checkpoint to the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Stream, derive
from mlopt.core.driver.stop import Reason
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.runs.session import Session
from mlopt.optimizers.experiments.active.hunt import Hunt
from mlopt.optimizers.experiments.active.learned import Learned
from mlopt.optimizers.experiments.active.plan import ActivePlan
from mlopt.optimizers.experiments.active.polish import polished
from mlopt.optimizers.experiments.active.record import Record
from mlopt.optimizers.experiments.active.result import ActiveResult
from mlopt.optimizers.experiments.active.wishes import DECIDING, Wish, cores, distinct, structures
from mlopt.optimizers.fitting.training import Look
from mlopt.optimizers.labelling.computing import labelled
from mlopt.optimizers.labelling.ledger import Ledger


class Sitting:
    """One sitting of an active run."""

    def __init__(self, about: ActivePlan, system: Systems, session: Session, ledger: Ledger) -> None:
        self.about, self.system, self.session, self.ledger = about, system, session, ledger
        self.learner = about.learner(system, self._looked)
        self.record = Record()
        self.walk = about.walk(system, session.context.log)
        self.learned: Learned | None = None
        self.share = 0.0

    def whole(self) -> ActiveResult:
        """Run from the first labels, or from the checkpoint, to the result."""
        learned = self._begun() if self.session.restored is None else self._restored()
        while True:
            wishes = self.walk.advance(self._keep)
            left = self.about.labels - len(self.record.labels)
            if not wishes or left <= 0:
                break
            learned = self._round(learned, wishes, left)
        ends: dict[int, int] | None = None
        settled = list[int]()
        if isinstance(self.walk, Hunt) and self.about.polish:
            places = self.walk.minima(learned)[: self.about.polish]
            learned, settled = self._polished(learned, places, self.about.polish_fmax)
        elif self.about.ends_labelled:
            learned, ends = self._ended(learned)
        return self._result(learned, wishes, ends, settled)

    def _begun(self) -> Learned:
        file = self.about.begin.file
        if file is not None:
            data = file.read()
        else:
            data = self._labelled(self.about.beginning(self.system))
            sound = torch.nonzero(data.with_energy).flatten()
            self.record.failed = len(data) - len(sound)
            if not len(sound):
                raise InputError(
                    f"active: none of the first structures could be labelled; the first one: {data.source[0]}"
                )
            data = data.select(sound)
        learned = self.learner.begun(data)
        self.record.begun(learned, paid=file is None)
        self._go_on(learned)
        return learned

    def _restored(self) -> Learned:
        restored = self.session.restored
        assert restored is not None
        learned = self.learner.restored(restored.tensors)
        self.record = Record.of(restored.meta["record"])
        self.walk.load_checkpoint(learned, restored.tensors, restored.meta["walk"])
        self.learned = learned
        return learned

    def _round(self, learned: Learned, wishes: list[Wish], left: int) -> Learned:
        """Label some of what was asked for, and fit anew."""
        asked = distinct(self._cut(learned, wishes))
        chosen = self._chosen(learned, asked, min(left, self.about.asking.labels))
        learned, failed = self._granted(learned, chosen, len(wishes))
        self.walk.failed(failed)
        self._go_on(learned)
        return learned

    def _granted(self, learned: Learned, wishes: Sequence[Wish], asked: int) -> tuple[Learned, list[Wish]]:
        """Label what some wishes ask for and fit anew; return the wishes whose labels failed as well."""
        data = self._labelled(structures(wishes))
        sound = data.with_energy.tolist()
        kept = [place for place, good in enumerate(sound) if good]
        self.record.failed += len(wishes) - len(kept)
        if kept:
            new, granted = data.select(kept), [wishes[place] for place in kept]
            after = self.learner.extended(learned, new, cores(granted))
            self.record.round(learned, after, new, granted, asked)
            learned = after
        return learned, [one for one, good in zip(wishes, sound, strict=True) if not good]

    def _polished(self, learned: Learned, places: list[int], fmax: float) -> tuple[Learned, list[int]]:
        """Relax labelled structures until forces of labels are small; return the places of their last labels too."""
        left = self.about.labels - len(self.record.labels)
        after, best, new, failed = polished(self.learner, learned, places, self._labelled, left, fmax)
        self.record.failed += failed
        if new:
            self.record.polished(after, Dataset.concatenate(new))
        found = (after.place_of(best.systems[index].pos) for index in range(len(places)))
        return after, [one for one in found if one is not None]

    def _ended(self, learned: Learned) -> tuple[Learned, dict[int, int]]:
        """Label the ends of relaxations, and relax them until forces of labels are small.

        Returns the places of the last labels as well, by walker.
        """
        there, used = self.walk.systems.with_pos(self.walk.points), self.walk.used.tolist()
        ended = [walker for walker, why in enumerate(self.walk.reasons) if why is Reason.CONVERGED]
        left = self.about.labels - len(self.record.labels)
        new = [one for one in ended if learned.place_of(there[one].pos) is None]
        if new:
            grades = learned.grader.grade(there.select(new)).system.tolist()
            wishes = distinct(
                Wish(there[one], one, used[one], grade, "end") for one, grade in zip(new, grades, strict=True)
            )[:left]
            learned, _ = self._granted(learned, wishes, len(wishes))
        known = {one: learned.place_of(there[one].pos) for one in ended}
        places = {one: place for one, place in known.items() if place is not None}
        fmax = max(self.about.polish_fmax, self.about.fmax or 0.0)
        begun = list(dict.fromkeys(places.values()))
        learned, found = self._polished(learned, begun, fmax)
        last = dict(zip(begun, found, strict=True))
        return learned, {one: last[place] for one, place in places.items()}

    def _cut(self, learned: Learned, wishes: Sequence[Wish]) -> list[Wish]:
        """Return the wishes with the surroundings of the atom with the largest grade as their structures.

        That atom interpolates after the label. Where it asks again at the same point all the same, the whole structure
        is labelled, so that no walker waits for ever.
        """
        cut, reach = self.about.asking.cut, learned.potential.reach
        if cut is None or reach is None:
            return list(wishes)
        found = []
        for one in wishes:
            if one.trigger in DECIDING:
                found.append(one)
                continue
            atom = int(learned.grader.grade(one.structure).row.argmax())
            piece = None if self.record.has_cut(one, atom) else cut.of(one.structure, atom, reach)
            if piece is not None:
                one = replace(one, structure=piece.structure, atom=atom, core=piece.core)
            found.append(one)
        return found

    def _chosen(self, learned: Learned, wishes: list[Wish], count: int) -> list[Wish]:
        """Return the wishes to grant: those on which the walk depends, then those that the strategy takes."""
        first = [one for one in wishes if one.trigger in DECIDING][:count]
        rest = [one for one in wishes if one.trigger not in DECIDING]
        if not rest or len(first) == count:
            return first
        taken = self._taken(learned, rest, count - len(first))
        if not taken and not first:  # no strategy may leave a walker waiting for ever
            taken = [max(range(len(rest)), key=lambda place: rest[place].grade)]
        return [*first, *(rest[place] for place in taken)]

    def _taken(self, learned: Learned, wishes: list[Wish], count: int) -> list[int]:
        """Return the places of the wishes that the strategy grants, or whose labels add information."""
        strategy = self.about.asking.strategy
        if strategy is None:
            return learned.teaching(wishes)[:count]
        there = structures(wishes)
        key = derive(torch.tensor(self.about.seed), Stream.ROUND, len(self.record.rounds))
        return strategy.select(there, learned.data, learned.potential, count, key).indices.tolist()

    def _labelled(self, systems: Systems) -> Dataset:
        return labelled(
            self.ledger,
            self.about.labeller,
            systems,
            pause=self.session.asked_to_leave,
            context=self.session.context,
        )

    def _looked(self, look: Look) -> None:
        """Tell how a training goes, and leave it if asked to: a resume repeats it from the last checkpoint."""
        told = f"training, {look.evaluations} evaluations, loss {min(look.loss):.4g}"
        self.session.context.progress(self.share, told)
        self.session.leave_if_asked()

    def _go_on(self, learned: Learned) -> None:
        self.learned = learned
        self.walk.learn(learned)
        self.session.context.metric(self._step, **self.record.numbers())
        self.session.context.log(self.record.line())
        self._save()

    @property
    def _step(self) -> int:
        """The number of a checkpoint now: it grows with every force call of a walker, and with every fit."""
        return int(self.walk.used.sum()) + len(self.record.rounds)

    def _keep(self) -> None:
        # a search that finds something lower begins to wait anew
        self.share = max(self.share, min(1.0, self.walk.share))
        self.session.context.progress(self.share, self.record.line())
        if self.session.context.pause():
            self._save()
            self.session.leave_if_asked()

    def _save(self) -> None:
        assert self.learned is not None
        tensors, meta = self.walk.to_checkpoint()
        self.session.save(
            self._step, tensors | self.learned.to_tensors(), {"walk": meta, "record": self.record.plain()}
        )

    def _result(
        self, learned: Learned, unanswered: list[Wish], ends: dict[int, int] | None, settled: list[int]
    ) -> ActiveResult:
        result = ActiveResult(
            config=self.about.config(),
            learned=learned,
            record=self.record,
            walk=self.walk,
            unanswered=len(unanswered),
            ends=ends,
            settled=settled,
            counts=self.ledger.counts(),
            seconds=self.session.seconds,
        )
        self.session.context.warn(result.warnings)
        folder = self.session.context.results()
        if folder is not None:
            result.write(folder)
        return result
