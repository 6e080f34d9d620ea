"""Lattices of one, two or three directions in space: reduction, completion to three vectors, reciprocal vectors.

A vector along which there is no periodicity does not belong to the lattice, and is never read. All arithmetic is
element by element, so that a cell's result has the same bits in any batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# a vector is replaced only by one whose square is shorter by more than rounding, or two equal ones would alternate
_SHORTER = 1.0 - 1e-12
# each round shortens a vector; a cell that needs more rounds has no volume to speak of
_ROUNDS = 1000


def reduction(cells: torch.Tensor, pbc: torch.Tensor) -> torch.Tensor:
    """Return whole numbers (n, 3, 3), as float64, that make Minkowski-reduced vectors out of ``cells (n, 3, 3)``.

    The reduced vectors are ``numbers @ cells``. They are as short as independent lattice vectors can be. They stand in
    the places of the periodic vectors, sorted by length. Rows and columns of directions without periodicity are zero.

    pbc: (n, 3) bool. For a cell with dependent vectors the numbers have no meaning.

    Source: Semaev, CaLC 2001, LNCS 2146, 181 (the greedy algorithm in three dimensions). Nguyen & Stehlé, ACM Trans.
    Algorithms 5, 46 (2009) show that its outcome is Minkowski-reduced up to four dimensions.
    """
    import numpy as np

    vectors = cells.detach().to("cpu", torch.float64).numpy()
    periodic = pbc.cpu().numpy()
    made = np.zeros_like(vectors)
    for pattern in np.unique(periodic, axis=0):
        axes = np.flatnonzero(pattern)
        if len(axes):
            chosen = np.flatnonzero((periodic == pattern).all(1))
            made[np.ix_(chosen, axes, axes)] = _reduced(vectors[np.ix_(chosen, axes)])
    return torch.from_numpy(made)


def reduced_vectors(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the shortest independent vectors (m, 3) of ``cell (3, 3)``, of which m are periodic: ``pbc (3,)``."""
    import numpy as np

    vectors: NDArray[np.float64] = np.array(cell, dtype=np.float64)[np.array(pbc, dtype=bool)]
    found: NDArray[np.float64] = _combined(_reduced(vectors[None]), vectors[None])[0]
    return found


def _reduced(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the numbers (n, m, m) that reduce lattices of m ``vectors (n, m, 3)``."""
    import numpy as np

    n, m, _ = vectors.shape
    numbers = np.tile(np.eye(m), (n, 1, 1))
    steps = np.array([[i, j] for i in (-1.0, 0.0, 1.0) for j in (-1.0, 0.0, 1.0)])
    with np.errstate(all="ignore"):  # cells without volume, or with entries that are not finite
        for _ in range(_ROUNDS if m > 1 else 0):
            basis = _combined(numbers, vectors)
            order = np.argsort(_dot(basis, basis), axis=1, kind="stable")[:, :, None]
            numbers, basis = (np.take_along_axis(one, order, 1) for one in (numbers, basis))
            a, b = basis[:, 0], basis[:, 1]
            aa, ab, bb = _dot(a, a), _dot(a, b), _dot(b, b)
            # the second vector against the first
            take = np.rint(ab / aa)
            taken = b - take[:, None] * a
            pair = _dot(taken, taken) < _SHORTER * bb
            numbers[pair, 1] -= take[pair, None] * numbers[pair, 0]
            if m == 2:
                if not pair.any():
                    break
                continue
            # where these two are reduced, the third against the plane that they span
            c = basis[:, 2]
            ac, bc, area = _dot(a, c), _dot(b, c), aa * bb - ab * ab
            near = np.rint(np.stack([(ac * bb - bc * ab) / area, (bc * aa - ac * ab) / area], -1))
            tried = near[:, None] + steps  # (n, 9, 2)
            moved = c[:, None] - tried[:, :, :1] * a[:, None] - tried[:, :, 1:] * b[:, None]
            square = _dot(moved, moved)
            best = np.argmin(square, 1)[:, None]
            third = (np.take_along_axis(square, best, 1)[:, 0] < _SHORTER * _dot(c, c)) & ~pair
            take = np.take_along_axis(tried, best[:, :, None], 1)[:, 0]
            numbers[third, 2] -= take[third, :1] * numbers[third, 0] + take[third, 1:] * numbers[third, 1]
            if not (pair | third).any():
                break
    return numbers


def _combined(numbers: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    made: NDArray[np.float64] = numbers[:, :, :1] * vectors[:, None, 0]
    for k in range(1, vectors.shape[1]):
        made = made + numbers[:, :, k : k + 1] * vectors[:, None, k]
    return made


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]
    return found


def complete(cells: torch.Tensor, pbc: torch.Tensor) -> torch.Tensor:
    """Return the periodic vectors of ``cells (n, 3, 3)``, with perpendicular unit vectors for the other directions.

    pbc: (n, 3) bool. A cell without periodic directions becomes the unit matrix.
    """
    unit = torch.eye(3, dtype=cells.dtype, device=cells.device).expand_as(cells)
    number = pbc.sum(-1, keepdim=True)
    made = list(torch.where(pbc[:, :, None], cells, unit).unbind(1))
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        # two directions: what is at right angles to both
        two = (number == 2) & ~pbc[:, a : a + 1]
        made[a] = torch.where(two, _unit(cross(cells[:, b], cells[:, c])), made[a])
        # one: the axis that is least along it, less what is along it; and what is at right angles to both
        one = (number == 1) & pbc[:, a : a + 1]
        turned = [b, c, a]  # so that a vector along an axis is joined by the other axes
        least = torch.nn.functional.one_hot(cells[:, a, turned].abs().argmin(-1), 3).to(cells.dtype)
        axis = torch.zeros_like(least)
        axis[:, turned] = least
        second = _unit(cross(cross(cells[:, a], axis), cells[:, a]))
        made[b] = torch.where(one, second, made[b])
        made[c] = torch.where(one, _unit(cross(cells[:, a], second)), made[c])
    return torch.stack(made, 1)


def reciprocal(cells: torch.Tensor) -> torch.Tensor:
    """Return vectors (as rows) whose products with the rows of ``cells (n, 3, 3)`` are 1 and 0.

    They are not finite for a cell without volume.
    """
    a, b, c = cells.unbind(1)
    crosses = torch.stack([cross(b, c), cross(c, a), cross(a, b)], 1)
    volume = a[:, 0] * crosses[:, 0, 0] + a[:, 1] * crosses[:, 0, 1] + a[:, 2] * crosses[:, 0, 2]
    return crosses / volume[:, None, None]


def cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the vector products (..., 3) of ``a`` and ``b (..., 3)``, with the same bits in any batch."""
    (ax, ay, az), (bx, by, bz) = a.unbind(-1), b.unbind(-1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    x, y, z = vectors.unbind(-1)
    return vectors / (x * x + y * y + z * z).sqrt()[..., None]
