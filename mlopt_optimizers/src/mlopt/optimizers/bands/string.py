"""The string method: images without springs, which every step moves back to equal distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.landscapes.manifold import Manifold
from mlopt.core.lazy import torch
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.tangents import Tangent


class String(Band):
    """Bands without springs, whose images every step leaves equally far apart.

    Sources: E, Ren & Vanden-Eijnden, Phys. Rev. B 66, 052301 (2002) for the force across the path, and J. Chem. Phys.
    126, 164103 (2007) for the two halves of a step. They interpolate by cubic splines. Here images move along the
    geodesics between neighbours, which works on every manifold. An even path is left as it is, so a converged string is
    on the same path. On the way there a spline would lose less. The manifold's `retract` moves the images, so that
    optimizers need not know. No image climbs, because none has a place of its own. Take the saddle from `Profile`, or
    relax the path as a `Band` with ``climb=1``.

    The arguments are those of `Band`.
    """

    def __init__(
        self,
        landscape: Landscape,
        start: torch.Tensor,
        end: torch.Tensor,
        images: int | Sequence[int] | torch.Tensor = 5,
        *,
        tangent: Tangent | None = None,
    ) -> None:
        super().__init__(landscape, start, end, images, tangent=tangent, spring=None)

    @property
    def manifold(self) -> Manifold:  # type: ignore[override]
        """The manifold of the landscape, on which every step puts images back to equal distances."""
        return EvenlySpaced(self)

    def replace(self, **changes: object) -> String:
        """Return the same string with another ``tangent``."""
        for name in changes:
            if name != "tangent":
                raise InputError(f"a string has no `{name}`; use a Band")
        return super().replace(**changes)


@dataclass(frozen=True)
class EvenlySpaced:
    """The manifold of the images of a path, on which a step ends where they are equally far apart."""

    band: Band

    @property
    def inner(self) -> Manifold:
        """The manifold of the images without this redistribution."""
        return self.band.inner.manifold

    def project(self, x: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """Do as the inner manifold."""
        return self.inner.project(x, vector)

    def retract(self, x: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
        """Move along ``tangent``, then redistribute the images evenly along their new path."""
        return evenly_spaced(self.band, self.inner.retract(x, tangent))

    def difference(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Do as the inner manifold."""
        return self.inner.difference(x, y)

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Do as the inner manifold."""
        return self.inner.distance(x, y)

    def transport(self, x: torch.Tensor, y: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
        """Do as the inner manifold."""
        return self.inner.transport(x, y, tangent)

    def ambiguous(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Do as the inner manifold."""
        return self.inner.ambiguous(x, y)

    def select(self, problems: torch.Tensor, rows: torch.Tensor) -> EvenlySpaced:
        """Return the manifold of some of the paths."""
        return EvenlySpaced(self.band.select(problems))


def evenly_spaced(band: Band, x: torch.Tensor) -> torch.Tensor:
    """Return ``x (n_rows, d)`` with images moved along the path, on geodesics between neighbours, to equal distances.

    Distances are equal along the old path; the new one cuts its corners. The result is differentiable.
    """
    layout = band.layout
    along = band.arc_length(x)
    whole = layout.chain.rows_of(along[layout.nodes.ptr[1:] - 1])
    share = layout.position.to(x.dtype) / (layout.chain.rows_of(layout.images) + 1).to(x.dtype)
    node, part = layout.locate(along, share * whole, layout.chain)
    pool = torch.cat([x, band.start, band.end])
    return layout.between(band.inner.manifold, pool, layout.frames, node, part)
