"""The base of neighbourhood features, learned or fixed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.errors import InputError
from mlopt.core.features.graph import Graph
from mlopt.core.lazy import torch


class NeighbourFeatures(Protocol):
    """Numbers that describe the neighbourhood of each row, the input of a learned optimizer.

    They are invariant under translation and rotation, and equivariant under permutation of the rows. Those of row i
    depend on neighbours of i alone. They are smooth, also where a neighbour crosses the cutoff.
    """

    #: features of each row
    width: int

    def __call__(
        self,
        x: torch.Tensor,
        graph: Graph,
        species: torch.Tensor | None = None,
        diameter: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return features (n_rows, width) at ``x (n_rows, d)``.

        species, diameter: (n_rows,), those of a landscape.
        """
        ...


if TYPE_CHECKING:

    class MessagePassing(torch.nn.Module):
        """The part of `torch_geometric.nn.MessagePassing` that is used here."""

        def __init__(self, aggr: str = "sum", *, node_dim: int = -2) -> None: ...

        def propagate(self, edge_index: torch.Tensor, size: Any = None, **given: Any) -> Any: ...

else:

    class MessagePassing:
        """A stand-in for `torch_geometric.nn.MessagePassing`, whose import takes seconds, until an object is made.

        An object of a subclass gets a class with both as bases, and is a ``torch.nn.Module``.
        """

        def __new__(cls, *arguments: Any, **settings: Any) -> Any:
            return object.__new__(_with_base(cls))


@cache
def _with_base(cls: type) -> type:
    with warnings.catch_warnings():
        # PyG scripts a class when it is imported, and torch warns of scripting from 2.15 on
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
        from torch_geometric.nn import MessagePassing as Base

    if issubclass(cls, Base):  # a copy is being made
        return cls

    def propagate(self: Any, edge_index: torch.Tensor, size: Any = None, **given: Any) -> Any:
        return Base.propagate(self, edge_index, size, **given)

    # a `propagate` of its own keeps PyG from writing a module for each class into a temporary folder
    names = {"__module__": cls.__module__, "__doc__": cls.__doc__, "propagate": propagate}
    return type(cls.__name__, (cls, Base), names)


class CutoffLayer(MessagePassing):
    """The base of layers that sum over the neighbours within a cutoff. Messages have the shape (k, n_edges)."""

    _index_of_number: torch.Tensor  # (n_elements + 1,) int64, -1 for unknown species

    def __init__(self, cutoff: float = 2.5, species: Sequence[int] | None = None) -> None:
        """Check the arguments that all such layers have.

        Args:
            cutoff: in units of the pair's equilibrium distance, the mean of both rows' diameters.
            species: atomic numbers that are distinguished; None treats all rows alike.

        Raises:
            InputError: a cutoff that is not positive, no species, or species that are no atomic numbers.
        """
        name = type(self).__name__
        if not (math.isfinite(cutoff) and cutoff > 0):
            raise InputError(
                f"{name}: `cutoff` must be positive and finite, got {cutoff}; Learn2Hop uses 2.5"
            )
        if species is not None:
            valid = all(isinstance(one, int) and 0 < one < len(SYMBOLS) for one in species)
            if not len(species) or len(set(species)) != len(species) or not valid:
                raise InputError(
                    f"{name}: `species` must be different atomic numbers such as (47, 79), or None where all atoms "
                    f"count alike, got {species}"
                )
        super().__init__(aggr="sum", node_dim=-1)
        self.cutoff = float(cutoff)
        self.species = None if species is None else tuple(species)
        table = torch.full((len(SYMBOLS),), -1, dtype=torch.int64)
        for index, number in enumerate(self.species or ()):
            table[number] = index
        self.register_buffer("_index_of_number", table, persistent=False)

    @property
    def n_species(self) -> int:
        """The number of species that are distinguished."""
        return 1 if self.species is None else len(self.species)

    def kinds(self, species: torch.Tensor | None, n_rows: int, device: torch.device) -> torch.Tensor | None:
        """Return the index of each row's species, (n_rows,); None if there is only one."""
        name = type(self).__name__
        if self.species is None:
            return None
        listed = ", ".join(SYMBOLS[number] for number in self.species)
        if species is None:
            raise InputError(
                f"{name}: tells {listed} apart, but the rows have no species. Pass `species` (n_rows,), or make the "
                f"layer with species=None."
            )
        if species.shape != (n_rows,):
            raise InputError(f"{name}: `species` must have shape ({n_rows},), got {tuple(species.shape)}")
        valid = (species > 0) & (species < len(SYMBOLS))
        index = self._index_of_number.to(device)[torch.where(valid, species, 0)]
        if bool((index < 0).any()):
            strange = [
                SYMBOLS[z] if 0 < z < len(SYMBOLS) else str(z)
                for z in torch.unique(species[index < 0]).tolist()
            ]
            raise InputError(
                f"{name}: tells {listed} apart and got {', '.join(strange)}. Name every species of the systems when "
                f"the layer is made, or give species=None."
            )
        return index

    def edges(
        self, x: torch.Tensor, graph: Graph, diameter: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return squared distance, distance and smooth cutoff of each edge: three (n_edges,), in the pair's own units.

        The cutoff function is ``(cos(pi r / c) + 1) / 2``, and zero from c on. Its slope is continuous; its curvature
        jumps at c. Source: Behler & Parrinello, PRL 98, 146401 (2007), eq. 4.
        """
        name, n_rows = type(self).__name__, graph.n_rows
        if graph.cutoff < self.cutoff:
            raise InputError(
                f"{name}: its cutoff is {self.cutoff}, but the graph has pairs up to {graph.cutoff} only; make it with "
                f"Neighbourhood(cutoff={self.cutoff})"
            )
        if x.ndim != 2 or len(x) != n_rows:
            raise InputError(
                f"{name}: `x` must have shape ({n_rows}, d) to fit the graph, got {tuple(x.shape)}; a graph belongs "
                f"to one batch and is made again for another"
            )
        if diameter is not None and diameter.shape != (n_rows,):
            raise InputError(f"{name}: `diameter` must have shape ({n_rows},), got {tuple(diameter.shape)}")
        squares = graph.squares(x, diameter)
        beyond = squares >= self.cutoff**2
        # Gaussians of far pairs would be denormal numbers, on which a processor takes ten times as long
        squares = squares.clamp(max=self.cutoff**2)
        # the slope of the root is infinite where two rows coincide; NaN must stay NaN
        together = squares < 1e-24
        r = torch.where(together, 0.0, torch.where(together, 1.0, squares).sqrt())
        smooth = 0.5 * torch.cos(r * (math.pi / self.cutoff)) + 0.5
        return squares, r, torch.where(beyond, 0.0, smooth)

    def apart(self, values: torch.Tensor, kinds: torch.Tensor | None, graph: Graph) -> torch.Tensor:
        """Return ``values (n_edges,)`` per species, zero where the source is of another one: (n_species, n_edges)."""
        if kinds is None:
            return values[None]
        kind = kinds[graph.edge_index[0]]
        return torch.stack([torch.where(kind == s, values, 0.0) for s in range(self.n_species)])

    def aggregate(self, inputs: torch.Tensor, graph: Graph) -> torch.Tensor:
        """Sum (k, n_edges) over the neighbours of each row: (k, n_rows)."""
        return graph.sum(inputs)

    def rows(self, columns: torch.Tensor, graph: Graph) -> torch.Tensor:
        """Transpose (width, n_rows) to (n_rows, width), with NaN for the rows of lost systems."""
        out = columns.T.contiguous()
        lost = graph.lost_rows
        return out if lost is None else out.masked_fill(lost[:, None], float("nan"))
