"""Manifolds: the spaces of points, with steps, differences and parallel transport.

An optimizer calls these functions and never asks which space it is in. All functions act row by row on ``(n_rows, d)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from mlopt.core.errors import InputError
from mlopt.core.geometry.minimum_image import MinimumImage
from mlopt.core.lazy import torch


class Manifold(Protocol):
    """Geometry of the rows of a landscape."""

    def project(self, x: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """Project ``vector (n_rows, d)`` on the tangent space at ``x``."""
        ...

    def retract(self, x: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
        """Move from ``x`` along ``tangent`` (the exponential map), both (n_rows, d): (n_rows, d)."""
        ...

    def difference(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the tangent vector at ``x`` that leads to ``y`` (the logarithm map): (n_rows, d)."""
        ...

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Geodesic distance of each row: (n_rows,)."""
        ...

    def transport(self, x: torch.Tensor, y: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
        """Carry ``tangent`` at ``x`` to the tangent space at ``y``, parallel along the geodesic.

        tangent: (n_rows, d), or (k, n_rows, d) for k vectors at once.
        """
        ...

    def ambiguous(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return (n_rows,) bool, true where no unique shortest path leads from x to y.

        `difference` has no meaning there.
        """
        ...

    def select(self, problems: torch.Tensor, rows: torch.Tensor) -> Manifold:
        """Return the geometry of the given problems (k,) and their rows, both int64 indices."""
        ...


@dataclass(frozen=True)
class Flat:
    """Euclidean rows, optionally periodic.

    cell: (n_rows, 3, 3) lattice vectors as rows, angstrom, or None.
    pbc: (n_rows, 3) bool, needed with ``cell``.

    Steps do not wrap points back into the cell. Potentials see periodic images anyway, and differences along an
    unwrapped trajectory stay small. Only `difference` takes the nearest image. It is exact in cells of any shape and
    with any directions periodic, see `mlopt.core.geometry.minimum_image`. Cell vectors along which there is no
    periodicity are ignored.
    """

    cell: torch.Tensor | None = None
    pbc: torch.Tensor | None = None

    def project(self, x: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """Return ``vector (n_rows, d)`` as it is: every vector is tangent."""
        return vector

    def retract(self, x: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
        """Return ``x + tangent``, (n_rows, d)."""
        return x + tangent

    def difference(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return ``y - x``, (n_rows, d), to the nearest image along periodic directions."""
        delta = y - x
        if self.cell is None or self.pbc is None:
            return delta
        images, of_row = self._images
        if len(images) == 1:
            return images.shortest(delta.T[:, None])[:, 0].T.contiguous()
        return images.shortest(delta.T[..., None], of_row)[..., 0].T.contiguous()

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the length of the difference of each row: (n_rows,)."""
        length: torch.Tensor = torch.linalg.vector_norm(self.difference(x, y), dim=-1)
        return length

    def transport(self, x: torch.Tensor, y: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
        """Return ``tangent (n_rows, d)`` as it is: flat space changes no vector."""
        return tangent

    def ambiguous(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return False (n_rows,) for every row; of two periodic images at the same distance, either will do."""
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def select(self, problems: torch.Tensor, rows: torch.Tensor) -> Flat:
        """Keep the cells of the chosen rows, without reducing them again."""
        if self.cell is None or self.pbc is None:
            return self
        images, of_row = self._images
        part = Flat(self.cell[rows], self.pbc[rows])
        part.__dict__["_images"] = images, of_row[rows]
        return part

    @cached_property
    def _images(self) -> tuple[MinimumImage, torch.Tensor]:
        """The distinct cells, reduced, and the index (n_rows,) of each row's cell."""
        cell, pbc = self.cell, self.pbc
        if cell is None or pbc is None:
            raise InputError("Flat: only periodic rows have images; give `cell` and `pbc`")
        # rows of one problem are contiguous, so comparing with the row before is enough
        other = ((cell[1:] != cell[:-1]).any(-1) | (pbc[1:] != pbc[:-1])).any(-1)
        of_row = torch.cat([other.new_zeros(min(1, len(cell)), dtype=torch.int64), other.cumsum(0)])
        first = torch.cat([other.new_ones(min(1, len(cell))), other]).nonzero().flatten()
        return MinimumImage.of(cell[first], pbc[first]), of_row


@dataclass(frozen=True)
class UnitSphere:
    """Rows of unit length, such as spins: the product of spheres S^(d-1)."""

    def project(self, x: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """Remove from each row of ``vector (n_rows, d)`` its component along ``x (n_rows, d)``."""
        return vector - (vector * x).sum(-1, keepdim=True) * x

    def retract(self, x: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
        """Move by the exponential map ``x cos t + tangent sin(t) / t``, (n_rows, d); renormalise against drift."""
        angle = torch.linalg.vector_norm(tangent, dim=-1, keepdim=True)
        moved = x * torch.cos(angle) + tangent * torch.sinc(angle / torch.pi)
        length: torch.Tensor = torch.linalg.vector_norm(moved, dim=-1, keepdim=True)
        return moved / length

    def difference(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the logarithm map from ``x`` to ``y``, (n_rows, d); zero at antipodes, where it is undefined."""
        across = y - (x * y).sum(-1, keepdim=True) * x
        sine = torch.linalg.vector_norm(across, dim=-1, keepdim=True)
        tiny = torch.finfo(x.dtype).tiny
        return torch.where(sine > 0, self.distance(x, y)[:, None] / sine.clamp(min=tiny), 0.0) * across

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the angle between the rows, radians: (n_rows,).

        It is twice the angle whose tangent is |y - x| / |y + x|, because acos loses half of the digits near 0 and pi.
        It avoids torch's atan2, whose last bit depends on the place in the tensor, and so on the batch.
        """
        apart, together = (torch.linalg.vector_norm(one, dim=-1) for one in (y - x, y + x))
        return 2.0 * torch.atan(apart / together)

    def transport(self, x: torch.Tensor, y: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
        """Carry ``tangent (n_rows, d)`` along the great circle from ``x`` to ``y``; undefined where ``y = -x``."""
        middle = (x + y) / (1 + (x * y).sum(-1, keepdim=True))
        return tangent - (tangent * y).sum(-1, keepdim=True) * middle

    def ambiguous(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return (n_rows,) bool, true for antipodes to 1e-4; nearer than that, rounding would choose the path."""
        apart: torch.Tensor = torch.linalg.vector_norm(x + y, dim=-1)
        return apart < 1e-4

    def select(self, problems: torch.Tensor, rows: torch.Tensor) -> UnitSphere:
        """Return the same manifold, which has no parameters."""
        return self
