"""The protocol of moves, by which a search leaves a minimum."""

from __future__ import annotations

from abc import abstractmethod

from mlopt.core.batch.random import Draws
from mlopt.core.kernels.kernel import Kernel, NoKernelError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin, setting


class Move(Plugin):
    """A way to propose a new point from a minimum, for a batch of problems.

    Lengths are in units of the landscape's ``diameter``, the typical distance between neighbouring rows, where it has
    one. One setting then serves argon and gold.
    """

    probability: float = setting(1.0, "share of the hops in which this move is made", ge=0, le=1)

    @abstractmethod
    def propose(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        row_energy: torch.Tensor | None,
        scale: torch.Tensor,
        draws: Draws,
    ) -> torch.Tensor:
        """Return the proposed point (n_rows, d). A pure function except for ``draws``.

        row_energy: (n_rows,) share of each row in the energy of ``x``, or None where the potential has no partition.
        scale: (n_problems,) factor on the size of the move, which an adaptive search changes.
        draws: must be used equally often for every problem.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `propose`")

    def kernel(self) -> Kernel:
        """Return `propose` for the fused engine: see `mlopt.optimizers.moves.kernels.basic`.

        Raises:
            NoKernelError: the move has no kernel, or none for these settings.
        """
        raise NoKernelError(f"the move {type(self).__name__} offers no kernel")

    def apply(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        row_energy: torch.Tensor | None,
        scale: torch.Tensor,
        draws: Draws,
    ) -> torch.Tensor:
        """Return the point (n_rows, d) after `propose` on a random share ``probability`` of the problems.

        Fixed rows stay. A problem that is not chosen draws no numbers for the move. A compiled search can therefore
        skip the move.
        """
        if self.probability == 1:
            moved = self.propose(landscape, x, row_energy, scale, draws)
        else:
            chosen = draws.uniform(1)[:, 0] < self.probability
            moved = self.apply_where(chosen, landscape, x, row_energy, scale, draws)
        return moved if landscape.fixed is None else torch.where(landscape.fixed[:, None], x, moved)

    def apply_where(
        self,
        chosen: torch.Tensor,
        landscape: Landscape,
        x: torch.Tensor,
        row_energy: torch.Tensor | None,
        scale: torch.Tensor,
        draws: Draws,
    ) -> torch.Tensor:
        """Return the point (n_rows, d) after `propose` on the ``chosen (n_problems,)`` problems.

        Fixed rows may move as well.
        """
        before = draws.counter
        moved = self.propose(landscape, x, row_energy, scale, draws)
        draws.counter = torch.where(chosen, draws.counter, before)
        return torch.where(landscape.segments.rows_of(chosen)[:, None], moved, x)
