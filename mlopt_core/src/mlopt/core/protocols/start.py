"""The protocol of starts: the points from which minimisations begin."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Draws
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin


class StartSampler(Plugin):
    """A distribution of starting positions for the atoms of a batch of systems.

    Invariant: a start depends on its system and its key, never on the batch; the same key gives the same start.
    """

    #: True where the start is the positions that the systems have
    given: ClassVar[bool] = False

    @abstractmethod
    def draw(self, systems: Systems, diameter: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return positions (n_atoms, 3) in the length of ``diameter (n_atoms,)``; `sample` puts fixed atoms back."""
        raise NotImplementedError(f"{type(self).__name__} must define `draw`")

    def sample(self, systems: Systems, diameter: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Return positions (n_atoms, 3) in the dtype of ``systems.pos``; fixed atoms keep theirs.

        diameter: (n_atoms,) from `Potential.diameter`, the unit of lengths in the settings.
        key: (n_systems,) int64, from `mlopt.core.batch.random.problem_keys`.

        Raises:
            InputError: shapes that do not fit the systems, or a diameter that is not positive.
        """
        n_atoms, n = systems.segments.n_rows, systems.n_systems
        if diameter.shape != (n_atoms,) or key.shape != (n,):
            raise InputError(
                f"{type(self).__name__}: `diameter` and `key` must have shapes ({n_atoms},) and ({n},) to fit the "
                f"systems, got {tuple(diameter.shape)} and {tuple(key.shape)}"
            )
        if not bool((diameter > 0).all()):
            raise InputError(
                f"{type(self).__name__}: every `diameter` must be positive; the potential gave one that is not"
            )
        with torch.no_grad():
            counter = torch.zeros(n, dtype=torch.int64, device=key.device)
            drawn = self.draw(systems, diameter.to(torch.float64), Draws(key, counter, systems.segments))
            return torch.where(systems.fixed[:, None], systems.pos, drawn.to(systems.pos.dtype))
