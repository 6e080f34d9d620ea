"""Tables of moment tensor potentials: how many scalars there are, and that products give what contractions mean."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mlopt.potentials.fitted.mtp.graphs import Graph, by_degree, by_level, canonical
from mlopt.potentials.fitted.mtp.table import Table, table_of

#: of the tables that ship with MLIP
SCALARS = {
    2: 1,
    4: 2,
    6: 5,
    8: 9,
    10: 16,
    12: 29,
    14: 52,
    16: 92,
    18: 163,
    20: 288,
    22: 500,
    24: 864,
    26: 1464,
    28: 2445,
}
SUMS = {8: 11, 12: 46, 16: 130, 20: 295, 24: 581}


def contraction(graph: Graph, vectors: np.ndarray, f: np.ndarray) -> float:
    """The scalar by its meaning: a sum over all choices of a neighbour for each moment."""
    cosines = vectors @ vectors.T
    total = 0.0
    for chosen in itertools.product(range(len(vectors)), repeat=len(graph.radial)):
        term = float(np.prod([f[mu, j] for mu, j in zip(graph.radial, chosen, strict=True)]))
        for (a, b), count in zip(itertools.combinations(range(len(chosen)), 2), graph.edges, strict=True):
            term *= cosines[chosen[a], chosen[b]] ** count
        total += term
    return total


def values(table: Table, vectors: np.ndarray, f: np.ndarray) -> np.ndarray:
    """The scalars by the table."""
    value = np.zeros(table.n_values)
    for index, (mu, a, b, c) in enumerate(table.basic.tolist()):
        value[index] = (f[mu] * vectors[:, 0] ** a * vectors[:, 1] ** b * vectors[:, 2] ** c).sum()
    for i, j, factor, k in table.times.tolist():
        value[k] += factor * value[i] * value[j]
    return value[table.scalars]


def neighbours(count: int) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("level", [one for one in SCALARS if one <= 22])
def test_levels_have_the_scalars_of_mlip(level: int) -> None:
    graphs = by_level(level)
    assert len(graphs) == SCALARS[level] == len(set(graphs))
    if level in SUMS:
        assert table_of(graphs).n_basic == SUMS[level]


@pytest.mark.slow
@pytest.mark.parametrize("level", [24, 26, 28])
def test_high_levels_have_the_scalars_of_mlip(level: int) -> None:
    assert len(by_level(level)) == SCALARS[level]


@pytest.mark.parametrize(
    "graphs",
    [by_level(14), by_degree((9, 8, 8), 1.0, 9), by_degree((8, 7), 1.5, 8)],
    ids=["level", "degree", "wide"],
)
def test_products_give_the_contractions(graphs: list[Graph]) -> None:
    table, vectors = table_of(graphs), neighbours(3)
    f = np.random.default_rng(1).normal(size=(table.n_radial, 3))
    wanted = np.array([contraction(one, vectors, f) for one in graphs])
    np.testing.assert_allclose(
        values(table, vectors, f), wanted, rtol=1e-12, atol=1e-12 * np.abs(wanted).max()
    )


def test_rows_of_a_level_are_computed_before_they_are_used() -> None:
    table = table_of(by_level(16))
    known = set(range(table.n_basic))
    for group in table.levels:
        assert {*group[:, 0].tolist(), *group[:, 1].tolist()} <= known
        known |= set(group[:, 3].tolist())
    assert sum(len(group) for group in table.levels) == len(table.times)


def test_scalars_by_degree_are_independent() -> None:
    """At more neighbourhoods than there are scalars their matrix has full rank: none is a combination of others."""
    graphs = by_degree((9, 8, 9), 1.0, 9)
    table, rng = table_of(graphs), np.random.default_rng(2)
    rows = []
    for _ in range(2 * len(graphs)):
        vectors = rng.normal(size=(8, 3))
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        rows.append(values(table, vectors, rng.normal(size=(table.n_radial, 8))))
    matrix = np.array(rows)
    singular = np.linalg.svd(matrix / np.linalg.norm(matrix, axis=0), compute_uv=False)
    assert singular[-1] > 1e-7 * singular[0]
    assert sum(len(one.radial) == 4 for one in graphs) > 20


def test_a_scalar_has_one_form() -> None:
    """However its nodes are numbered; of two species, which of them a node belongs to is part of its label."""
    assert canonical((2, 0, 1), (3, 1, 2)) == canonical((0, 1, 2), (2, 3, 1))
    assert canonical((1, 0), (2,)) == Graph((0, 1), (2,))
    single, double = by_degree((6, 5), 1.0, 6), by_degree((6, 5), 1.0, 12, 2)
    assert {one for one in double if all(label % 2 == 0 for label in one.radial)} == {
        Graph(tuple(2 * label for label in one.radial), one.edges) for one in single
    }
