"""Contractions of moments to scalars, as multigraphs: nodes are moments, an edge is an index that two of them share.

A moment of the radial function mu and the rank nu is ``M[mu, nu] = sum_j f_mu(r_j) u_j (x) ... (x) u_j``. Here u_j is
the unit vector to neighbour j, and stands nu times in the product. A node's rank is the number of its edges.

Source: Shapeev, Multiscale Model. Simul. 14, 1153 (2016). MLIP and this module use unit vectors. The paper prints
vectors of full length, which amounts to another choice of f_mu.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

#: limits of the tables that ship with MLIP: without them levels 10, 26 and 28 have more scalars than MLIP has
_MLIP_NODES, _MLIP_RADIAL, _MLIP_RANK = 4, 5, 10


@dataclass(frozen=True, order=True)
class Graph:
    """One scalar, as a multigraph of moments.

    radial: the radial function of each node, sorted.
    edges: the number of indices that two nodes share, for the pairs of nodes (0, 1), (0, 2), ..., (1, 2), ...
    """

    radial: tuple[int, ...]
    edges: tuple[int, ...]

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of each node."""
        found = [0] * len(self.radial)
        for (i, j), count in zip(itertools.combinations(range(len(found)), 2), self.edges, strict=True):
            found[i] += count
            found[j] += count
        return tuple(found)


def by_level(level: int) -> list[Graph]:
    """Return the scalars of MLIP's table of a level: ``2 + 4 mu + nu`` summed over the moments is at most ``level``.

    Levels 2, 4, ..., 28 have 1, 2, 5, 9, 16, 29, 52, 92, 163, 288, 500, 864, 1464 and 2445 of them.
    """
    found = []
    for nodes in range(1, _MLIP_NODES + 1):
        for radial in _sorted_tuples(nodes, range(_MLIP_RADIAL + 1)):
            left = level - 2 * nodes - 4 * sum(radial)
            if left < 0:
                continue
            for edges in _edge_counts(nodes, left // 2):
                graph = Graph(radial, edges)
                if max(graph.ranks) <= _MLIP_RANK and edges == _canonical(radial, edges):
                    found.append(graph)
    return sorted(found, key=lambda one: (len(one.radial), one.radial, one.edges))


def by_degree(degrees: Sequence[float], angular_weight: float, radial: int, species: int = 1) -> list[Graph]:
    """Return all independent scalars up to a degree that depends on the number of moments.

    The degree of a scalar is the sum over its moments of ``mu + 1 + angular_weight * nu``. ``degrees[k]`` is the
    largest degree for k + 2 moments (three-body functions have two). Four vectors in space are dependent, so some
    scalars of four moments are sums of others. These are left out.

    radial: number of radial functions. With several species, function n has ``mu = n // species``, and ``n % species``
        is the species of the neighbour.
    """
    found = []
    for nodes, degree in enumerate(degrees, start=2):
        for labels in _sorted_tuples(nodes, range(radial)):
            left = degree - sum(one // species for one in labels) - nodes
            if left < 0:
                continue
            most = int(left / (2.0 * angular_weight) + 1e-9) if angular_weight > 0 else 0
            pattern = tuple(labels.index(one) for one in labels)
            found += [Graph(labels, edges) for edges in _independent(pattern, most) if sum(edges) <= most]
    return sorted(
        found, key=lambda one: (len(one.radial), degree_of(one, angular_weight), one.radial, one.edges)
    )


def about_by_degree(degrees: Sequence[float], angular_weight: float, species: int = 1) -> float:
    """Return about how many scalars `by_degree` gives, without finding them: labelled graphs over all their orders."""
    found = 0.0
    for nodes, degree in enumerate(degrees, start=2):
        pairs, most = math.comb(nodes, 2), int(degree)
        ways = np.ones(most + 1)
        for _ in range(nodes - 1):
            ways = np.convolve(ways, np.ones(most + 1))[: most + 1]
        for total in range(max(0, most - nodes + 1)):
            edges = int((degree - nodes - total) / (2.0 * angular_weight) + 1e-9)
            found += ways[total] * species**nodes * math.comb(edges + pairs, pairs) / math.factorial(nodes)
    return found


def canonical(radial: Sequence[int], edges: Sequence[int]) -> Graph:
    """Return a scalar with its nodes in the order of their radial functions, the smallest of its equal forms."""
    order = sorted(range(len(radial)), key=lambda node: radial[node])
    pairs = list(itertools.combinations(range(len(radial)), 2))
    place = {pair: index for index, pair in enumerate(pairs)}
    turned = tuple(edges[place[min(order[i], order[j]), max(order[i], order[j])]] for i, j in pairs)
    labels = tuple(radial[node] for node in order)
    return Graph(labels, _canonical(labels, turned))


def degree_of(graph: Graph, angular_weight: float) -> float:
    """Return the sum of ``mu + 1 + angular_weight * nu`` over the moments of a scalar."""
    return sum(graph.radial) + len(graph.radial) + angular_weight * sum(graph.ranks)


def _sorted_tuples(length: int, values: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.combinations_with_replacement(values, length)


@functools.cache
def _edge_counts(nodes: int, most: int) -> list[tuple[int, ...]]:
    """Return all counts of edges whose sum is at most ``most``, fewest first."""
    places = nodes * (nodes - 1) // 2

    def rest(place: int, left: int) -> Iterator[tuple[int, ...]]:
        if place == places:
            yield ()
            return
        for count in range(left + 1):
            for others in rest(place + 1, left - count):
                yield (count, *others)

    return sorted(rest(0, most), key=sum)


@functools.cache
def _symmetries(radial: tuple[int, ...]) -> list[tuple[int, ...]]:
    """For each exchange of nodes with one radial function: where each place of ``edges`` comes from."""
    nodes = len(radial)
    pairs = list(itertools.combinations(range(nodes), 2))
    place = {pair: index for index, pair in enumerate(pairs)}
    found = []
    for order in itertools.permutations(range(nodes)):
        if all(radial[order[i]] == radial[i] for i in range(nodes)):
            found.append(tuple(place[tuple(sorted((order[i], order[j])))] for i, j in pairs))  # type: ignore[index]
    return found


def _canonical(radial: tuple[int, ...], edges: tuple[int, ...]) -> tuple[int, ...]:
    """Return the smallest form of a graph under exchanges of nodes with one radial function."""
    return min(tuple(edges[place] for place in places) for places in _symmetries(radial))


@functools.cache
def _independent(pattern: tuple[int, ...], most: int) -> list[tuple[int, ...]]:
    """Return the edges of linearly independent scalars of up to ``most`` edges, fewest first.

    Up to three moments all graphs are independent. Of four moments, each graph that is a combination of those before it
    is left out. The rank of the scalars' values at random vectors shows which ones are.

    pattern: a number for each node; nodes with the same number have the same radial function.
    """
    graphs = [edges for edges in _edge_counts(len(pattern), most) if edges == _canonical(pattern, edges)]
    if len(pattern) < 4:
        return graphs
    vectors = np.random.default_rng(0).normal(size=(2 * len(graphs) + 20, len(pattern), 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    gram = vectors @ vectors.transpose(0, 2, 1)
    pairs = list(itertools.combinations(range(len(pattern)), 2))
    cosines = np.stack([gram[:, i, j] for i, j in pairs], -1)
    kept: list[tuple[int, ...]] = []
    basis: list[np.ndarray] = []
    for edges in graphs:
        powers = [
            np.prod(cosines ** np.array([edges[one] for one in places]), axis=-1)
            for places in _symmetries(pattern)
        ]
        column = np.mean(powers, axis=0)
        size = np.linalg.norm(column)
        for _ in range(2):
            for one in basis:
                column = column - (one @ column) * one
        left = np.linalg.norm(column)
        if left > 1e-8 * size:
            basis.append(column / left)
            kept.append(edges)
    return kept


def degree_with_species(graph: Graph, angular_weight: float, species: int) -> float:
    """Return the degree of a scalar whose radial functions are numbered with the species of the neighbour."""
    return degree_of(Graph(tuple(one // species for one in graph.radial), graph.edges), angular_weight)


def with_species(graphs: list[Graph], species: int) -> list[Graph]:
    """Return each scalar with every choice of neighbours' species: mu becomes ``mu * species + s``."""
    if species == 1:
        return graphs
    found: dict[Graph, None] = {}
    for one in graphs:
        for choice in itertools.product(range(species), repeat=len(one.radial)):
            labels = tuple(mu * species + s for mu, s in zip(one.radial, choice, strict=True))
            found[canonical(labels, one.edges)] = None
    return list(found)


@functools.lru_cache(maxsize=32)
def all_by_degree(degrees: tuple[float, ...], angular_weight: float, species: int) -> list[Graph]:
    """Return `by_degree` of as many radial functions as the degrees allow."""
    return by_degree(degrees, angular_weight, int(max(degrees)) * species, species)
