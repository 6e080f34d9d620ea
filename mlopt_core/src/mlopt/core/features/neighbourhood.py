"""The neighbour graph of moving atoms."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.features.graph import Graph
from mlopt.core.lazy import torch

#: atoms of a free system from which on a neighbour list beats all pairs
LISTED_FROM = 300


class Neighbourhood:
    """A neighbour graph for features with a cutoff, which is reused until atoms have moved too far.

    Free systems of fewer than `LISTED_FROM` atoms take all pairs, once. If any system of the batch is periodic or
    larger, the batch uses neighbour lists that reach beyond the cutoff by a skin. A system's list is renewed when one
    of its atoms has moved by more than half the skin.

    The list only saves time. Pairs beyond the cutoff contribute exactly zero, and edges have a fixed order. On the CPU,
    features are therefore bit for bit a function of the positions alone.
    """

    def __init__(self, cutoff: float = 2.5, skin: float = 0.4) -> None:
        """Set cutoff and skin, both in units of the pair's equilibrium distance, as in the features.

        Raises:
            InputError: a cutoff that is not positive, or a negative skin.
        """
        if not cutoff > 0:
            raise InputError(f"Neighbourhood: `cutoff` must be positive (2.5 in Learn2Hop), got {cutoff}")
        if not skin >= 0:
            raise InputError(f"Neighbourhood: `skin` must not be negative (0 keeps nothing), got {skin}")
        self.cutoff, self.skin = float(cutoff), float(skin)
        #: how many times a system's neighbours were searched for
        self.searches = 0
        self._kept: _Kept | None = None

    def graph(self, systems: Systems, diameter: torch.Tensor) -> Graph:
        """Return the graph at ``systems.pos``.

        diameter: (n_atoms,), from the potential.

        Raises:
            InputError: a diameter that is not positive, or not one for each atom.
        """
        kept = self._kept
        if kept is None or not kept.fits(systems, diameter):
            kept = self._kept = self._start(systems, diameter)
        elif not kept.graph.complete:
            stale = kept.stale(systems)
            if stale is not None:
                self._renew(kept, systems, stale)
        return kept.graph

    def _start(self, systems: Systems, diameter: torch.Tensor) -> _Kept:
        if diameter.shape != systems.z.shape or not bool((diameter > 0).all()):
            raise InputError(
                f"Neighbourhood: `diameter` must have one positive length for each of the {len(systems.z)} atoms, got "
                f"shape {tuple(diameter.shape)}; take landscape.diameter or potential.diameter(systems.z)"
            )
        unit = float(diameter.max()) if len(diameter) else 1.0
        reach, room = (self.cutoff + self.skin) * unit, 0.5 * self.skin * unit
        if systems.periodic or bool((systems.segments.counts >= LISTED_FROM).any()):
            graph = replace(Graph.within(systems, reach), cutoff=self.cutoff)
            self.searches += len(systems)
        else:
            graph = Graph.complete_of(systems.segments)
        return _Kept(systems.with_pos(systems.pos.detach().clone()), diameter, reach, room, graph)

    def _renew(self, kept: _Kept, systems: Systems, stale: torch.Tensor) -> None:
        """Search for the neighbours of the systems that are ``stale (n_systems,)``, and keep those of the others."""
        index = stale.nonzero().flatten()
        part, old = Graph.within(systems.select(index), kept.reach), kept.graph
        self.searches += len(index)
        segments = systems.segments
        keep = ~stale[segments.batch[old.edge_index[1]]]
        rows = segments.select(index)[1]
        edges = torch.cat([old.edge_index[:, keep], rows[part.edge_index]], 1)
        order = edges[1].argsort(stable=True)
        shift = None
        if old.shift is not None:
            fresh = part.shift if part.shift is not None else old.shift.new_zeros(part.n_edges, 3)
            shift = torch.cat([old.shift[keep], fresh])[order]
        lost = old.lost
        if lost is not None and part.lost is not None:
            lost = lost.index_copy(0, index, part.lost)
        kept.graph = Graph(edges[:, order], segments, shift, old.cell, lost, cutoff=self.cutoff)
        moved = segments.rows_of(stale)[:, None]
        kept.systems = systems.with_pos(torch.where(moved, systems.pos.detach(), kept.systems.pos))


@dataclass
class _Kept:
    """A neighbour list with the positions at which it was made, in ``systems``."""

    systems: Systems
    diameter: torch.Tensor
    reach: float
    room: float
    graph: Graph

    def fits(self, systems: Systems, diameter: torch.Tensor) -> bool:
        """Return whether these are the same systems, apart from their positions."""
        mine = self.systems
        if systems.pos.dtype != mine.pos.dtype or systems.pos.device != mine.pos.device:
            return False
        pairs = [(mine.ptr, systems.ptr), (self.diameter, diameter), (mine.pbc, systems.pbc)]
        if systems.periodic:
            pairs.append((mine.cell, systems.cell))
        return all(a is b or torch.equal(a, b) for a, b in pairs)

    def stale(self, systems: Systems) -> torch.Tensor | None:
        """Return (n_systems,) bool, systems in which an atom has moved too far; None if there are none."""
        pos, before, segments = systems.pos.detach(), self.systems.pos, systems.segments
        moved = pos - before
        inside = (moved * moved).sum(-1) <= self.room**2
        if bool(inside.all()):
            return None
        # a system that was lost and still is has no neighbours: searching again would find none
        broken = segments.sum((~pos.isfinite()).double()) > 0
        was_broken = segments.sum((~before.isfinite()).double()) > 0
        stale = (segments.sum((~inside).double()) > 0) & ~(broken & was_broken)
        return stale if bool(stale.any()) else None
