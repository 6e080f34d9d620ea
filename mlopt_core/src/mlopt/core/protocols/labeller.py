"""The protocol of labellers, which compute the energies, forces and stresses that potentials are fitted to."""

from __future__ import annotations

from abc import abstractmethod

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.plugins.plugin import Plugin


class Labeller(Plugin):
    """A source of labels.

    Invariant: the label of a structure does not depend on the other structures of a batch. A failure on one structure
    does not affect the others.
    """

    @abstractmethod
    def label(self, systems: Systems) -> Dataset:
        """Return the systems with their labels, in the same order.

        A structure that could not be labelled has NaN in all of its labels, and its ``source`` says why.

        Raises:
            InputError: no structure can be labelled, for example because a program is missing or an element is unknown.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `label`")
