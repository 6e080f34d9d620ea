"""The table of a moment tensor potential: which moments are summed, and which products of them make the scalars."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlopt.potentials.fitted.mtp.graphs import Graph

#: exponents of x, y, z of a component of a moment
Exponents = tuple[int, int, int]
#: components of an intermediate tensor: where in the list of values each is
_Tensor = dict[tuple[Exponents, Exponents], int]
_ZERO: Exponents = (0, 0, 0)
#: of an intermediate tensor: its kind, the radial functions of two moments, and ranks
_Key = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Table:
    """Moments, products and scalars, as in the files of MLIP (``alpha_index_basic``, ``_times``, ``_moment_mapping``).

    The values of an atom are a list: first the sums over its neighbours, then products, in the order of ``times``.

    basic: (n_basic, 4) int64, radial function mu and exponents a, b, c of ``sum_j f_mu(r_j) x^a y^b z^c``. Here
        (x, y, z) is the unit vector to neighbour j.
    times: (n_times, 4) int64, rows i, j, factor, k. The product of values i and j times the factor is added to value k.
        Invariant: a value is complete before a row uses it.
    scalars: (n_scalars,) int64: the values that are the basis functions.
    n_values: length of the list.
    """

    basic: NDArray[np.int64]
    times: NDArray[np.int64]
    scalars: NDArray[np.int64]
    n_values: int

    @functools.cached_property
    def levels(self) -> list[NDArray[np.int64]]:
        """Rows of ``times`` that can be computed together, one group after the other."""
        depth = np.zeros(self.n_values, dtype=np.int64)
        of_row = np.zeros(len(self.times), dtype=np.int64)
        for i, j, _, k in self.times.tolist():
            depth[k] = max(depth[k], depth[i] + 1, depth[j] + 1)
        for row, (_, _, _, k) in enumerate(self.times.tolist()):
            of_row[row] = depth[k]
        return [self.times[of_row == level] for level in range(1, int(depth.max(initial=0)) + 1)]

    @property
    def n_basic(self) -> int:
        """Number of sums over neighbours."""
        return len(self.basic)

    @property
    def n_radial(self) -> int:
        """Number of radial functions."""
        return int(self.basic[:, 0].max(initial=-1)) + 1


def table_of(graphs: Sequence[Graph]) -> Table:
    """Return a table that computes these scalars, in their order, sharing products where they can be shared."""
    builder = _Builder()
    scalars = [builder.scalar(graph) for graph in graphs]
    return builder.table(scalars)


@functools.cache
def _of_rank(rank: int) -> list[Exponents]:
    """Exponents of the components of a symmetric tensor."""
    return [(a, b, rank - a - b) for a in range(rank, -1, -1) for b in range(rank - a, -1, -1)]


@functools.cache
def _count(exponents: Exponents) -> int:
    """Return the number of sequences of indices that are this component."""
    a, b, c = exponents
    return math.factorial(a + b + c) // (math.factorial(a) * math.factorial(b) * math.factorial(c))


def _plus(*parts: Exponents) -> Exponents:
    return tuple(map(sum, zip(*parts, strict=True)))  # type: ignore[return-value]


class _Builder:
    """Collects moments and products; values that are products get their places at the end."""

    def __init__(self) -> None:
        self.basic: dict[tuple[int, Exponents], int] = {}
        #: for each product value: pair of values -> factor; values are numbered from -1 downwards until the end
        self.sums: list[dict[tuple[int, int], int]] = []
        self.tensors: dict[_Key, _Tensor] = {}

    def moment(self, radial: int, exponents: Exponents) -> int:
        return self.basic.setdefault((radial, exponents), len(self.basic))

    def value(self, terms: Iterator[tuple[int, int, int]]) -> int:
        """Return a new value: the sum of products ``(i, j, factor)``."""
        sums: dict[tuple[int, int], int] = {}
        for i, j, factor in terms:
            pair = (min(i, j), max(i, j))
            sums[pair] = sums.get(pair, 0) + factor
        self.sums.append(sums)
        return -len(self.sums)

    def scalar(self, graph: Graph) -> int:
        """Return the value of a scalar."""
        radial, edges = graph.radial, graph.edges
        if len(radial) == 1:
            return self.moment(radial[0], _ZERO)
        if len(radial) == 2:
            return self.value(
                (self.moment(radial[0], e), self.moment(radial[1], e), _count(e)) for e in _of_rank(edges[0])
            )
        if len(radial) == 3:
            return self._of_three(radial, edges)
        return self._of_four(radial, edges)

    def _of_three(self, radial: tuple[int, ...], edges: tuple[int, ...]) -> int:
        """Two moments become one symmetric tensor, which is contracted with the third."""
        shared = dict(zip(itertools.combinations(range(3), 2), edges, strict=True))

        def edge(i: int, j: int) -> int:
            return shared[min(i, j), max(i, j)]

        choices = []
        for last in range(3):
            i, j = (one for one in range(3) if one != last)
            key = ("symmetric", radial[i], radial[j], edge(i, j), edge(i, last), edge(j, last))
            cost = (
                0
                if key in self.tensors
                else 1 + _size(edge(i, j)) * _size(edge(i, last)) * _size(edge(j, last))
            )
            choices.append((cost, last, i, j, key))
        _, last, i, j, key = min(choices)
        tensor = self._symmetric(radial[i], radial[j], edge(i, j), edge(i, last), edge(j, last), key)
        return self.value(
            (place, self.moment(radial[last], exponents), 1) for (exponents, _), place in tensor.items()
        )

    def _symmetric(
        self, one: int, other: int, shared: int, open_one: int, open_other: int, key: _Key
    ) -> _Tensor:
        """Two moments contracted over ``shared`` indices; the open ones together, each weighted by its sequences."""
        if key not in self.tensors:
            parts: dict[Exponents, list[tuple[int, int, int]]] = {}
            for a in _of_rank(open_one):
                for b in _of_rank(open_other):
                    terms = parts.setdefault(_plus(a, b), [])
                    for e in _of_rank(shared):
                        factor = _count(e) * _count(a) * _count(b)
                        terms.append((self.moment(one, _plus(e, a)), self.moment(other, _plus(e, b)), factor))
            self.tensors[key] = {
                (exponents, _ZERO): self.value(iter(terms)) for exponents, terms in parts.items()
            }
        return self.tensors[key]

    def _of_four(self, radial: tuple[int, ...], edges: tuple[int, ...]) -> int:
        """Two pairs of moments become tensors with two groups of indices, which are contracted with each other."""
        shared = dict(zip(itertools.combinations(range(4), 2), edges, strict=True))

        def edge(i: int, j: int) -> int:
            return shared[min(i, j), max(i, j)]

        choices = []
        for i, j, k, m in (
            (0, 1, 2, 3),
            (0, 2, 1, 3),
            (0, 3, 1, 2),
            (2, 3, 0, 1),
            (1, 3, 0, 2),
            (1, 2, 0, 3),
        ):
            cross = (edge(i, k), edge(j, k), edge(i, m), edge(j, m))
            first = ("crossed", radial[i], radial[j], edge(i, j), *cross)
            second = ("open", radial[k], radial[m], edge(k, m), cross[0] + cross[1], cross[2] + cross[3])
            cost = 0 if first in self.tensors else _size(edge(i, j)) * math.prod(_size(one) for one in cross)
            cost += 0 if second in self.tensors else _size(edge(k, m)) * _size(second[-2]) * _size(second[-1])
            choices.append((cost, (i, j, k, m), first, second))
        _, (i, j, k, m), first, second = min(choices)
        one, other = self._crossed(first), self._open(second)
        return self.value((place, other[open_indices], 1) for open_indices, place in one.items())

    def _crossed(self, key: _Key) -> _Tensor:
        """Two moments, each with open indices to both of two others: gathered by the other, weighted by sequences."""
        if key not in self.tensors:
            _, one, other, shared, a_rank, b_rank, c_rank, d_rank = key
            parts: dict[tuple[Exponents, Exponents], list[tuple[int, int, int]]] = {}
            ranks = [_of_rank(rank) for rank in (a_rank, b_rank, c_rank, d_rank)]
            for a, b, c, d in itertools.product(*ranks):
                terms = parts.setdefault((_plus(a, b), _plus(c, d)), [])
                weight = _count(a) * _count(b) * _count(c) * _count(d)
                for e in _of_rank(shared):
                    left, right = self.moment(one, _plus(e, a, c)), self.moment(other, _plus(e, b, d))
                    terms.append((left, right, _count(e) * weight))
            self.tensors[key] = {where: self.value(iter(terms)) for where, terms in parts.items()}
        return self.tensors[key]

    def _open(self, key: _Key) -> _Tensor:
        """Two moments contracted over the indices that they share; the open ones of each on their own."""
        if key not in self.tensors:
            _, one, other, shared, first_rank, second_rank = key
            found: _Tensor = {}
            for a in _of_rank(first_rank):
                for b in _of_rank(second_rank):
                    found[a, b] = self.value(
                        (self.moment(one, _plus(e, a)), self.moment(other, _plus(e, b)), _count(e))
                        for e in _of_rank(shared)
                    )
            self.tensors[key] = found
        return self.tensors[key]

    def table(self, scalars: Sequence[int]) -> Table:
        """Everything, in one list of values."""
        n = len(self.basic)

        def place(value: int) -> int:
            return value if value >= 0 else n - 1 - value

        times = [
            (place(i), place(j), factor, place(-1 - index))
            for index, sums in enumerate(self.sums)
            for (i, j), factor in sums.items()
        ]
        basic = [(radial, *exponents) for radial, exponents in self.basic]
        return Table(
            np.array(basic, dtype=np.int64).reshape(-1, 4),
            np.array(times, dtype=np.int64).reshape(-1, 4),
            np.array([place(one) for one in scalars], dtype=np.int64),
            n + len(self.sums),
        )


def _size(rank: int) -> int:
    return (rank + 1) * (rank + 2) // 2
