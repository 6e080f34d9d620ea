"""Graphs of neighbours, and which of them are kept while atoms move."""

from __future__ import annotations

import torch
from feature_systems import F64, clusters, crystals, radial, widths

from mlopt.core import Systems
from mlopt.core.features.graph import Graph
from mlopt.core.features.neighbourhood import LISTED_FROM, Neighbourhood
from mlopt.core.features.radial import RadialFeatures


def test_edges_are_sorted_and_both_ways():
    systems = clusters(4, 1, 0, 3)
    graph = Graph.complete_of(systems.segments)
    expected = [
        (j, i) for rows in (range(4), (4,), range(5, 8)) for i in rows for j in rows if i != j
    ]  # PyG: from source to target
    assert list(map(tuple, graph.edge_index.T.tolist())) == expected
    assert torch.equal(Graph.within(systems, 20.0).edge_index, graph.edge_index)


def test_skin_changes_nothing_and_saves_searches():
    systems, layer = crystals(), RadialFeatures(cutoff=2.0, species=(29, 79))
    diameter = torch.full_like(systems.z, 2, dtype=F64)
    kept, fresh = Neighbourhood(2.0, skin=0.3), Neighbourhood(2.0, skin=0.0)
    generator = torch.Generator().manual_seed(0)
    for step in range(30):
        size = 0.0 if step == 0 else 0.02
        systems = systems.with_pos(
            systems.pos + size * torch.randn(systems.pos.shape, dtype=F64, generator=generator)
        )
        mine, other = (
            layer(systems.pos, one.graph(systems, diameter), systems.z, diameter) for one in (kept, fresh)
        )
        assert torch.equal(mine, other), "bit for bit, whenever the list was made"
    assert fresh.searches == 30 * len(systems)
    assert len(systems) < kept.searches < fresh.searches / 4


def test_only_systems_that_moved_are_searched_again():
    systems, near = crystals(), Neighbourhood(2.0, skin=0.4)
    diameter = torch.full_like(systems.z, 2, dtype=F64)
    near.graph(systems, diameter)
    assert near.searches == len(systems) == 4
    step = torch.zeros_like(systems.pos)
    step[4:8, 0] = 0.399  # the room is half the skin, 0.4
    near.graph(systems.with_pos(systems.pos + step), diameter)
    assert near.searches == 4
    step[7, 0] = 0.401
    first = near.graph(systems.with_pos(systems.pos + step), diameter)
    assert near.searches == 5
    assert near.graph(systems.with_pos(systems.pos + step), diameter) is first and near.searches == 5
    near.graph(systems, diameter)
    assert near.searches == 6, "room counts from where the search was made"
    other = systems.select([1, 0])
    assert near.graph(other, diameter[: len(other.pos)]).n_rows == len(other.pos)
    assert near.searches == 8, "other systems, another graph"


def test_a_cell_that_changes_is_searched_again():
    systems, near = crystals(1), Neighbourhood(2.0)
    diameter = torch.full_like(systems.z, 2, dtype=F64)
    first = near.graph(systems, diameter)
    wider = Systems(systems.pos, systems.z, systems.ptr, systems.cell * 3, systems.pbc)
    assert near.graph(wider, diameter).n_edges < first.n_edges


def test_broken_systems_are_not_searched_for_ever():
    systems, near, layer = crystals(), Neighbourhood(), radial()
    diameter = torch.full_like(systems.z, 2, dtype=F64)
    good = layer(systems.pos, near.graph(systems, diameter), systems.z, diameter)
    pos = systems.pos.clone()
    pos[5] = float("inf")
    for _ in range(3):
        graph = near.graph(systems.with_pos(pos), diameter)
    assert near.searches == 5
    found = layer(pos, graph, systems.z, diameter)
    assert (
        found[4:12].isnan().all() and torch.equal(found[:4], good[:4]) and torch.equal(found[12:], good[12:])
    )
    mended = near.graph(systems, diameter)
    assert torch.equal(layer(systems.pos, mended, systems.z, diameter), good)


def test_free_clusters_take_one_graph():
    systems, near = clusters(5, 4), Neighbourhood()
    graph = near.graph(systems, widths(systems))
    assert graph.complete and near.searches == 0
    assert near.graph(systems.with_pos(systems.pos * 7), widths(systems)) is graph
    large = clusters(LISTED_FROM)
    assert not near.graph(large, widths(large)).complete
