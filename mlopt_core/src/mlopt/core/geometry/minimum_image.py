"""Shortest vectors between points of periodic space, exact in cells of any shape.

Rounding fractional coordinates finds the nearest image only in a cell with right angles. In a Minkowski-reduced cell,
rounding leaves at most one neighbouring cell to correct. For three, two or one periodic direction there are 27, 9 or 3
candidates. Apart from v itself they come in pairs v + s and v - s. The shorter one of a pair is shorter than v if
``2 |v.s| > s.s``, so 13 products decide. A vector of at most half the length of the shortest lattice vector is the
shortest already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlopt.core.geometry.lattice import complete, reciprocal, reduction
from mlopt.core.lazy import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# vectors whose images are compared at once: 13 numbers each stay in the cache
_AT_ONCE = 32_768
# cosines smaller than this are right angles: the nearest image is then off by less than rounding
_SQUARE = 1e-14


@dataclass(frozen=True, eq=False)
class MinimumImage:
    """Shortest vectors in ``n`` cells, each with its own periodic directions.

    All tensors have the dtype and the device of the cells.

    cell: (n, 3, 3) vectors as rows, zero along directions without periodicity.
    numbers: (n, 3, 3) whole numbers that make the reduced vectors out of ``cell``.
    dual: (n, 3, 3) reciprocal vectors of the reduced ones, zero along directions without periodicity.
    image, turns: (n, 13, 3) one of each pair of neighbouring lattice vectors, and the whole numbers that make it.
    square: (n, 13) squared lengths of ``image``.
    safe: (n,) squared length up to which a vector is the shortest; infinite where rounding is exact.
    edge: (n, 3) lengths of the periodic vectors where each is along its own axis, else zero.
    plain: (n,) bool, true where each periodic vector is along its own axis.
    """

    cell: torch.Tensor
    numbers: torch.Tensor
    dual: torch.Tensor
    image: torch.Tensor
    turns: torch.Tensor
    square: torch.Tensor
    safe: torch.Tensor
    edge: torch.Tensor
    plain: torch.Tensor

    @classmethod
    def of(cls, cells: torch.Tensor, pbc: torch.Tensor) -> MinimumImage:
        """Make the images of ``cells (n, 3, 3)``, vectors as rows, periodic along ``pbc (n, 3)``."""
        own = cells.detach().to("cpu", torch.float64)
        periodic = pbc.cpu()
        own = torch.where(periodic[:, :, None], own, 0.0)
        numbers = reduction(own, periodic)
        reduced = _combined(numbers, own)
        dual = torch.where(periodic[:, :, None], reciprocal(complete(reduced, periodic)), 0.0)
        steps = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 3)[14:]
        turns = _combined(steps.expand(len(own), 13, 3) * periodic[:, None], numbers)
        image = _combined(turns, own)
        square = (image[..., 0] * image[..., 0] + image[..., 1] * image[..., 1]) + image[..., 2] * image[
            ..., 2
        ]
        shortest = torch.where(square > 0, square, torch.inf).amin(-1)
        x, y, z = (reduced[:, :, None] * reduced[:, None]).unbind(-1)
        gram = x + y + z
        length = gram.diagonal(dim1=1, dim2=2).sqrt()
        skew = (gram.abs() > _SQUARE * length[:, :, None] * length[:, None]).triu(1).any(-1).any(-1)
        diagonal = own.diagonal(dim1=1, dim2=2)
        plain = (own == torch.diag_embed(diagonal)).all(-1).all(-1)
        kept = torch.where(pbc[:, :, None], cells, torch.zeros_like(cells))
        return cls(
            cell=kept,
            numbers=numbers.to(kept),
            dual=dual.to(kept),
            image=image.to(kept),
            turns=turns.to(kept),
            square=square.to(kept),
            safe=torch.where(skew, 0.25 * shortest, torch.inf).to(kept),
            edge=torch.where(plain[:, None], diagonal, 0.0).to(kept),
            plain=plain.to(cells.device),
        )

    def __len__(self) -> int:
        return len(self.cell)

    def shortest(self, difference: torch.Tensor, of: torch.Tensor | None = None) -> torch.Tensor:
        """Return the shortest of all vectors that differ from ``difference (3, n, m)`` by lattice vectors.

        of: (n,) int64, index of each vector's cell. By default vectors and cells correspond one to one, or all vectors
            belong to the only cell.

        The result is differentiable in the difference and in the cell. Of two equally near images, the choice depends
        on the difference alone. Reversing the difference reverses the result exactly.
        """
        if len(self) == 1:
            of = None
        with torch.no_grad():
            count = self._count(difference.detach(), of)
        return difference - _taken(self.cell, of, count)

    def within(self, reach: torch.Tensor) -> MinimumImage:
        """Return a faster version for vectors of at most ``reach (n,)``; longer results may not be the shortest.

        In a cell that is wide enough, rounding then suffices and images are not compared.
        """
        wide = (2.0 * reach)[:, None] ** 2 * (self.dual * self.dual).sum(-1) < 1.0
        return replace(self, safe=torch.where(wide.all(-1), torch.inf, self.safe))

    def _count(self, d: torch.Tensor, of: torch.Tensor | None) -> torch.Tensor:
        """Return the whole numbers (3, n, m) of cell vectors to subtract."""
        if bool(self.plain.all()):
            return self._plain_count(d, of)
        whole = torch.stack([one.round() for one in _products(self.dual, of, d)])
        count = _taken(self.numbers, of, whole)
        near = d - _taken(self.cell, of, count)
        safe, plain = (one if of is None else one[of] for one in (self.safe[:, None], self.plain[:, None]))
        far = near[0] * near[0] + near[1] * near[1] + near[2] * near[2] > safe
        if bool(self.plain.any()):
            count = torch.where(plain, self._plain_count(d, of), count)
            far &= ~plain
        found = torch.nonzero(far).T
        for rows, places in zip(*(one.split(_AT_ONCE) for one in found), strict=True):
            count[:, rows, places] += self._nearer(rows if of is None else of[rows], near[:, rows, places])
        return count

    def _plain_count(self, d: torch.Tensor, of: torch.Tensor | None) -> torch.Tensor:
        edge = (self.edge if of is None else self.edge[of]).T[..., None]
        # not divided by edge: halfway between two images the choice then agrees with that of an elimination
        return torch.where(edge != 0, (d * (1.0 / edge)).round(), 0.0)

    def _nearer(self, cells: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        """Return the whole numbers (3, k) of an image to subtract, or zeros, for ``near (3, k)`` in ``cells (k,)``."""
        if len(self) == 1:
            cells = cells[:1]
        image, square = self.image[cells], self.square[cells]
        along = image[..., 0] * near[0][:, None] + image[..., 1] * near[1][:, None]
        along = along + image[..., 2] * near[2][:, None]  # (k, 13)
        gain = 2.0 * along.abs() - square
        best = gain.argmax(-1)  # the first of equals
        row = torch.arange(len(best), device=best.device)
        sign = torch.where(gain[row, best] > 0, along[row, best].sign(), 0.0)
        return (sign[:, None] * self.turns[cells.expand(len(best)), best]).T


def shortest_vectors(
    vectors: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the shortest images of ``vectors (n, 3)`` in one ``cell (3, 3)``, periodic along ``pbc (3,)``."""
    import numpy as np

    images = MinimumImage.of(*(torch.from_numpy(np.array(one)[None]) for one in (cell, pbc)))
    columns = torch.from_numpy(np.array(vectors, dtype=np.float64)).T[:, None]
    found: NDArray[np.float64] = images.shortest(columns)[:, 0].T.contiguous().numpy()
    return found


def _combined(numbers: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Return sums (n, k, 3) of ``vectors (n, 3, 3)``, each times its count in ``numbers (n, k, 3)``."""
    made: torch.Tensor = numbers[:, :, :1] * vectors[:, None, 0]
    return (made + numbers[:, :, 1:2] * vectors[:, None, 1]) + numbers[:, :, 2:] * vectors[:, None, 2]


def _taken(rows: torch.Tensor, of: torch.Tensor | None, count: torch.Tensor) -> torch.Tensor:
    """Return sums of the ``rows (c, 3, 3)`` of each vector's cell, times ``count (3, n, m)``: (3, n, m)."""
    columns = (rows if of is None else rows[of]).permute(1, 2, 0)[..., None]
    made: torch.Tensor = count[0] * columns[0] + count[1] * columns[1] + count[2] * columns[2]
    return made


def _products(rows: torch.Tensor, of: torch.Tensor | None, d: torch.Tensor) -> list[torch.Tensor]:
    """Return the products of ``d (3, n, m)`` with each row of ``rows (c, 3, 3)``."""
    columns = (rows if of is None else rows[of]).permute(1, 2, 0)[..., None]
    return [d[0] * u[0] + d[1] * u[1] + d[2] * u[2] for u in columns]
