"""Radial symmetry functions, the neighbourhood features that Learn2Hop introduced to learned optimizers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlopt.core.errors import InputError
from mlopt.core.features.base import CutoffLayer
from mlopt.core.features.graph import Graph
from mlopt.core.lazy import torch

#: Learn2Hop, section 3.1
ETAS = (0.0009, 0.01, 0.02, 0.035, 0.06, 0.1, 0.2, 0.4)


class RadialFeatures(CutoffLayer):
    """Behler-Parrinello radial functions of each row, one for each species s and each eta.

    ``phi_i = sum_{j of s} exp(-eta r_ij^2) (cos(pi r_ij / c) + 1) / 2``. Here r_ij is in units of the pair's
    equilibrium distance, and terms beyond the cutoff c are zero. Nothing is trained. Source: Merchant et al., ICML 2021
    (Learn2Hop), section 3.1.

    Differences from the paper's text: it gives the cutoff as 2.5 angstrom. That is shorter than any bond of Ag, Au, Pd
    or Pt, so every feature of these metals would vanish. Here distances are divided by the mean diameter of both atoms,
    which changes nothing for the paper's Lennard-Jones clusters. The paper takes logarithms next; here the optimizer
    does.
    """

    def __init__(
        self, etas: Sequence[float] = ETAS, *, cutoff: float = 2.5, species: Sequence[int] | None = None
    ) -> None:
        """Set the functions.

        Args:
            etas: inverse squared widths of the Gaussians, in inverse squared equilibrium distances.
            cutoff: in equilibrium distances.
            species: atomic numbers of neighbours that are distinguished; None treats all alike.

        Raises:
            InputError: no eta, a negative one, or an error of `CutoffLayer`.
        """
        super().__init__(cutoff, species)
        if not len(etas) or not all(math.isfinite(eta) and eta >= 0 for eta in etas):
            raise InputError(f"RadialFeatures: `etas` must be one or more numbers >= 0, got {tuple(etas)}")
        self.etas = tuple(float(eta) for eta in etas)
        #: features of each row: those of the first species by eta, then those of the second, ...
        self.width = self.n_species * len(self.etas)

    def forward(
        self,
        x: torch.Tensor,
        graph: Graph,
        species: torch.Tensor | None = None,
        diameter: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return features (n_rows, width) at ``x (n_rows, d)``; see `NeighbourFeatures`."""
        squares, _, smooth = self.edges(x, graph, diameter)
        smooth = self.apart(smooth, self.kinds(species, graph.n_rows, x.device), graph)
        # one eta at a time: all at once would leave the processor's cache, and take twice as long
        columns = [
            self.propagate(graph.edge_index, squares=squares, smooth=smooth, eta=eta, graph=graph)
            for eta in self.etas
        ]
        return self.rows(torch.stack(columns, 1).flatten(0, 1), graph)

    def message(self, squares: torch.Tensor, smooth: torch.Tensor, eta: float) -> torch.Tensor:
        """Return the contribution of each edge: (n_species, n_edges)."""
        return torch.exp(squares * -eta) * smooth
