"""The protocol of labellers, which compute the energies, forces and stresses that potentials are fitted to."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.plugins.plugin import Plugin, setting

#: seconds that one call of `Labeller.label` should take at most in a stream, and how many structures it gets at most
_CALL, _MOST = 1.0, 512


@dataclass(frozen=True, eq=False)
class Finished:
    """Labels that were finished together.

    indices: the place of each structure among those that the labeller was given.
    data: the structures with their labels, NaN where the labeller failed.
    seconds: time of the computation, divided by the number of structures.
    """

    indices: tuple[int, ...]
    data: Dataset
    seconds: float


class Labeller(Plugin):
    """A source of labels.

    Invariant: the label of a structure does not depend on the other structures of a batch. A failure on one structure
    does not affect the others.
    """

    #: settings that decide how labels are computed, and not what they are
    running: ClassVar[frozenset[str]] = frozenset({"attempts", "patience", "net_force"})
    #: columns and info of a structure on which its label depends, besides atoms, positions and cell
    reads: ClassVar[tuple[str, ...]] = ("initial_charges", "initial_magmoms", "charge", "spin")

    edition: str = setting(
        "",
        "what no other setting shows, such as the version of a program; labels of other editions are others",
    )
    attempts: int = setting(1, "times that a structure is tried before it counts as failed", ge=1)
    patience: int = setting(20, "failures in a row, without a label between them, that end the run", ge=1)
    net_force: float | None = setting(
        0.01,
        "net force per atom above which a label has failed; none for an external field or a wall",
        unit="eV/angstrom",
        ge=0,
    )

    def check(self) -> None:
        """Refuse to begin where no structure could be labelled, such as without the program. Computes no label.

        Raises:
            InputError: something is missing; the message says what to do.
        """

    @abstractmethod
    def label(self, systems: Systems) -> Dataset:
        """Return the systems with their labels, in the same order.

        A structure that could not be labelled has NaN in all of its labels, and its ``source`` says why.

        Raises:
            InputError: no structure can be labelled, for example because a program is missing or an element is unknown.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `label`")

    def stream(self, systems: Iterable[Systems]) -> Iterator[Finished | None]:
        """Yield labels as they are finished, in any order, and None from time to time while there are none.

        The caller may close the iterator at any moment; work that is not finished is then given up.

        This default calls `label` for several structures at a time. It chooses their number so that a call takes about
        a second.

        systems: batches of one. Each is taken only when its computation is about to begin.

        Raises:
            InputError: as `label`.
        """
        given, size = enumerate(systems), 1
        while chosen := list(islice(given, size)):
            began = time.monotonic()
            data = self.label(Systems.concatenate([one for _, one in chosen]))
            took = time.monotonic() - began
            yield Finished(tuple(index for index, _ in chosen), data, took / len(chosen))
            if 2.0 * took < _CALL:
                size = min(2 * size, _MOST)
            elif took > _CALL:
                size = max(1, size // 2)
