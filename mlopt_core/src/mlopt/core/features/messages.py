"""Learned features of neighbourhoods: a small message-passing network."""

from __future__ import annotations

from collections.abc import Sequence

from mlopt.core.errors import InputError
from mlopt.core.features.base import CutoffLayer
from mlopt.core.features.graph import Graph
from mlopt.core.lazy import torch

#: neighbours of an atom in a close packing: sums over neighbours are divided by it, to be of order one
_CLOSE_PACKED = 12.0


class MessageFeatures(CutoffLayer):
    """Continuous-filter convolutions after SchNet, small and with a smooth cutoff.

    The state of a row begins as an embedding of its species. In each round the neighbours' states are multiplied by a
    filter of the distance and summed. A function of that sum is added to the row's state. A last linear map gives the
    features. After k rounds a row depends on others up to k cutoffs away.

    Source: Schuett et al., NeurIPS 2017. Differences: the filter is linear in Gaussians of the distance times the
    smooth cutoff of Behler and Parrinello. It vanishes at the cutoff for any weights. Activations are SiLU.
    """

    def __init__(
        self,
        width: int = 8,
        *,
        hidden: int = 16,
        rounds: int = 1,
        gaussians: int = 8,
        cutoff: float = 2.5,
        species: Sequence[int] | None = None,
    ) -> None:
        """Make the network; weights are drawn from torch's global generator.

        Args:
            width: number of features of each row.
            hidden: length of each row's state.
            rounds: number of message-passing rounds.
            gaussians: number of basis functions of the distance for the filters, evenly spaced from 0 to the cutoff.
            cutoff: in equilibrium distances.
            species: atomic numbers that are distinguished; None treats all rows alike.

        Raises:
            InputError: a size that is not positive, or an error of `CutoffLayer`.
        """
        sizes = {"width": width, "hidden": hidden, "rounds": rounds, "gaussians": gaussians}
        for name, size in sizes.items():
            if not (isinstance(size, int) and size > 0):
                raise InputError(
                    f"MessageFeatures: `{name}` must be a whole number of at least 1, got {size}"
                )
        super().__init__(cutoff, species)
        self.width = width
        self.centres = tuple(index * self.cutoff / gaussians for index in range(gaussians))
        self.embedding = torch.nn.Parameter(torch.randn(hidden, self.n_species))
        linear, several = torch.nn.Linear, torch.nn.ModuleList
        self.filters = several(linear(gaussians, hidden, bias=False) for _ in range(rounds))
        self.inner = several(linear(hidden, hidden) for _ in range(rounds))
        self.outer = several(linear(hidden, hidden) for _ in range(rounds))
        self.last = linear(hidden, width)

    def forward(
        self,
        x: torch.Tensor,
        graph: Graph,
        species: torch.Tensor | None = None,
        diameter: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return features (n_rows, width) at ``x (n_rows, d)``, in the dtype of ``x``; see `NeighbourFeatures`.

        Distances are computed in the dtype of ``x``, everything else in that of the weights.
        """
        _, r, smooth = self.edges(x, graph, diameter)
        kinds, dtype = self.kinds(species, graph.n_rows, x.device), self.embedding.dtype
        scale, passed = len(self.centres) / self.cutoff, graph.edge_index
        basis = [(torch.exp(-0.5 * ((r - c) * scale).square()) * smooth).to(dtype) for c in self.centres]
        # Filters are linear and the first states are those of species, so the first round needs the sums of the
        # Gaussians over each species only: a quarter of the time of messages in full.
        parts = [self.apart(one, kinds, graph) for one in basis]
        sums = [self.propagate(passed, basis=one, state=None, mix=None, graph=graph) for one in parts]
        heard = torch.einsum("hk,hs,ksn->hn", self.filters[0].weight, self.embedding, torch.stack(sums))
        state = self.embedding.expand(-1, graph.n_rows) if kinds is None else self.embedding[:, kinds]
        state = self._update(0, state, heard)
        for index in range(1, len(self.filters)):
            mix = self.filters[index].weight
            heard = self.propagate(passed, basis=torch.stack(basis), state=state, mix=mix, graph=graph)
            state = self._update(index, state, heard)
        return self.rows(self.last(state.T).T, graph).to(x.dtype)

    def _update(self, index: int, state: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        """Return the states (hidden, n_rows) after a round."""
        inner = self.inner[index](heard.T / _CLOSE_PACKED)
        change: torch.Tensor = self.outer[index](torch.nn.functional.silu(inner)).T
        return state + change

    def message(
        self, basis: torch.Tensor, state_j: torch.Tensor | None, mix: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the message of each edge, (hidden, n_edges); without states, the Gaussians themselves."""
        return basis if state_j is None or mix is None else (mix @ basis) * state_j
