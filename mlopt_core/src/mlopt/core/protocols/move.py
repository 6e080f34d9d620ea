"""The protocol of moves: how a search leaves a minimum."""

from __future__ import annotations

from abc import abstractmethod

from mlopt.core.batch.random import Draws
from mlopt.core.kernels.kernel import Kernel, NoKernelError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin, setting


class Move(Plugin):
    """Proposes a new point from a minimum, for a batch of problems.

    Lengths are in units of the landscape's ``diameter`` (typical distance between neighbouring rows) where it has
    one, so that one setting serves argon and gold.
    """

    probability: float = setting(1.0, "share of the hops that use this move", ge=0, le=1)

    @abstractmethod
    def propose(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        row_energy: torch.Tensor | None,
        scale: torch.Tensor,
        draws: Draws,
    ) -> torch.Tensor:
        """The proposed point (n_rows, d). Pure but for ``draws``, which must be used alike for every problem.

        row_energy: (n_rows,) share of each row in the energy of ``x``, or None where the potential cannot tell.
        scale: (n_problems,) factor on the size of the move, which an adaptive search changes.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `propose`")

    def kernel(self) -> Kernel:
        """`propose` for the fused engine: see `mlopt.optimizers.moves.kernels.basic`.

        Raises:
            NoKernelError: there is none, for these settings.
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
        """`propose`, for the share ``probability`` of the problems; fixed rows stay.

        A problem that does not make the move draws no numbers for it, so that a compiled search need not make it.
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
        """`propose` for the problems that are ``chosen (n_problems,)`` bool, fixed rows or not."""
        before = draws.counter
        moved = self.propose(landscape, x, row_energy, scale, draws)
        draws.counter = torch.where(chosen, draws.counter, before)
        return torch.where(landscape.segments.rows_of(chosen)[:, None], moved, x)
