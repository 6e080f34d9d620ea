"""Labels through a ledger: computed once, recorded one by one, and shared by all processes that ask."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import MloptError
from mlopt.core.lazy import torch
from mlopt.core.protocols.labeller import Finished, Labeller
from mlopt.core.runs.experiment import Context, Preempted
from mlopt.optimizers.labelling.identity import label_key, labeller_key, settings_of, structure_keys
from mlopt.optimizers.labelling.ledger import Claim, Ledger
from mlopt.optimizers.labelling.units import unlike_units
from mlopt.optimizers.labelling.validation import faults

#: seconds between two looks at labels that other processes compute, at first and at most
_LOOK, _LONGEST_LOOK = 0.02, 1.0


def labelled(
    ledger: Ledger,
    labeller: Labeller,
    systems: Systems,
    *,
    pause: Callable[[], bool] | None = None,
    context: Context | None = None,
) -> Dataset:
    """Return the systems with their labels, in the same order, computing those that the ledger does not have.

    Each label is checked, and recorded before the next step. A structure without a label has NaN, and its ``source``
    is the reason of the last attempt. Structures that another process is computing are waited for.

    pause: asked between labels; where it returns true, unfinished work is given up and `Preempted` is raised. Nothing
    that is finished is lost; call again to go on. It may be ``session.asked_to_leave``.
    context: where warnings go: labels of other settings, claims taken over.

    Raises:
        Preempted: ``pause`` returned true.
        InputError: the labeller refuses the structures.
        MloptError: more labels in a row have failed than the labeller's ``patience``; or the ledger cannot be written.
    """
    work = _Work(ledger, labeller, systems, pause or (lambda: False), context or Context())
    if not len(systems):
        return Dataset(systems.to(dtype=torch.float64))
    if work.missing():
        with ledger.claiming():
            work.run()
    found = work.result()
    if work.recorded and (doubt := unlike_units(found)):
        work.context.warn([f"labels of {type(labeller).__name__}: {doubt}"])
    return found


class _Work:
    """One call of `labelled`, with the labels that are still to do and those in progress."""

    def __init__(
        self,
        ledger: Ledger,
        labeller: Labeller,
        systems: Systems,
        pause: Callable[[], bool],
        context: Context,
    ) -> None:
        self.ledger, self.labeller, self.pause, self.context = ledger, labeller, pause, context
        self.systems = systems.to(dtype=torch.float64)
        own = labeller_key(settings_of(labeller))
        self.structures = structure_keys(self.systems, labeller.reads)
        self.keys = [label_key(one, own) for one in self.structures]
        self.todo: deque[int] = deque()
        self.theirs: list[int] = []
        self.given: list[int] = []  # places in `systems` of what this stream has taken
        self.in_a_row = self.recorded = 0
        self.number = 0  # of the labeller in the ledger

    def missing(self) -> bool:
        """List what is to do, and return whether there is anything.

        What others have claimed comes last, above all what processes have died of.
        """
        states = self.ledger.states(self.keys)
        first = {key: place for place, key in reversed(list(enumerate(self.keys)))}

        def turn(place: int) -> tuple[int, bool, int]:
            state, deaths = states.get(self.keys[place], ("", 0))
            return deaths, state == "claimed", place

        self.todo.extend(
            sorted((place for key, place in first.items() if states.get(key, ("", 0))[0] != "done"), key=turn)
        )
        return bool(self.todo)

    def run(self) -> None:
        """Compute and record all that is to do, and wait for what others do."""
        self.number, look = self.ledger.enter(self.labeller), _LOOK
        if self.number not in self.ledger.told:
            self.ledger.told.add(self.number)
            remark = [self.ledger.remark] if self.ledger.remark else []
            self.context.warn([*self.ledger.others(self.labeller), *remark])
        while self.todo or self.theirs:
            self.todo.extend(self.theirs)
            self.theirs, self.given = [], []
            with closing(self._stream()) as stream:
                for done in stream:
                    if done is not None:
                        self._record(done)
                    self._tell_news()
                    self._leave_if_asked()
            self._leave_if_asked()
            look = min(2.0 * look, _LONGEST_LOOK) if self.theirs and not self.given else _LOOK
            if self.theirs and not self.todo:
                time.sleep(look)

    def _stream(self) -> Generator[Finished | None, None, None]:
        yield from self.labeller.stream(self._claimed())

    def _claimed(self) -> Iterator[Systems]:
        """Yield the structures that this process may compute, each claimed when it is taken."""
        while self.todo and not self.pause():
            place = self.todo.popleft()
            system = self.systems[place]
            answer = self.ledger.claim(
                self.keys[place], self.structures[place], system, self.number, self.labeller.attempts
            )
            if answer is Claim.THEIRS:
                self.theirs.append(place)
            if answer is Claim.OURS:
                self.given.append(place)
                yield system

    def _record(self, done: Finished) -> None:
        places = [self.given[index] for index in done.indices]
        found = faults(self.labeller, self.systems.select(places), done.data)
        failed = {place: reason for place, reason in zip(places, found, strict=True) if reason is not None}
        right = len(done.data) == len(places)
        self.ledger.record(
            {
                self.keys[place]: (
                    done.data.select([index]) if right else Dataset(self.systems[place]),
                    failed.get(place),
                    done.seconds,
                )
                for index, place in enumerate(places)
            }
        )
        self.recorded += len(places)
        self.todo.extend(failed)  # the ledger knows how often they have been tried
        for reason in found:
            self.in_a_row = 0 if reason is None else self.in_a_row + 1
            if self.in_a_row >= self.labeller.patience:
                raise MloptError(
                    f"{self.in_a_row} labels in a row have failed; the last: {reason}. Labels that were computed are "
                    f"in {self.ledger.path}. Correct the labeller, or raise its `patience`"
                )

    def _tell_news(self) -> None:
        self.context.warn(self.ledger.news)
        self.ledger.news.clear()

    def _leave_if_asked(self) -> None:
        if self.pause():
            raise Preempted

    def result(self) -> Dataset:
        """Return what the ledger has of all systems, with the structures as they were given."""
        found = self.ledger.labels(self.keys)
        parts = [found[key] for key in self.keys]
        together = Dataset.concatenate(parts)
        energy, force, stress = (
            one.to(self.systems.pos) for one in (together.energy, together.force, together.stress)
        )
        return Dataset(self.systems, energy, force, stress, source=together.source)
