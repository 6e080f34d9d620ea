"""The protocol of labellers: what computes energies, forces and stresses that a potential is then fitted to."""

from __future__ import annotations

from abc import abstractmethod

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.plugins.plugin import Plugin


class Labeller(Plugin):
    """A source of labels.

    Invariant: a structure's label does not depend on the others of a batch, and one that fails leaves the others whole.
    """

    @abstractmethod
    def label(self, systems: Systems) -> Dataset:
        """Return the systems with their labels, in the same order.

        A structure that could not be labelled has NaN in all of its labels, and ``source`` says why.

        Raises:
            InputError: nothing can be labelled at all, such as for want of a program or a species.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `label`")
