"""The string method: images without springs, moved back to equal distances after every step."""

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

    Source: E, Ren & Vanden-Eijnden, Phys. Rev. B 66, 052301 (2002) for the force across the path, J. Chem. Phys. 126,
    164103 (2007) for the two halves of a step. They interpolate by cubic splines, here the images move along the
    geodesics between neighbours, which works on every manifold: an even path is left as it is, so a converged string
    is on the same path, while the spline loses less on the way there. It sits in the manifold's `retract`, where no
    optimizer notices. No image climbs, since none has a place of its own: take the saddle from `Profile`, or relax the
    path that was found as a `Band` with ``climb=1``.

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
        """The landscape's, with images put back to equal distances by every step."""
        return EvenlySpaced(self)

    def replace(self, **changes: object) -> String:
        """The same string with another ``tangent``."""
        for name in changes:
            if name != "tangent":
                raise InputError(f"a string has no `{name}`; use a Band")
        return super().replace(**changes)


@dataclass(frozen=True)
class EvenlySpaced:
    """The manifold of the images of a path, except that a step ends where they are equally far apart."""

    band: Band

    @property
    def inner(self) -> Manifold:
        """The manifold without that."""
        return self.band.inner.manifold

    def project(self, x: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """As the inner one."""
        return self.inner.project(x, vector)

    def retract(self, x: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
        """Step, and move the images along the path that they have come to."""
        return evenly_spaced(self.band, self.inner.retract(x, tangent))

    def difference(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """As the inner one."""
        return self.inner.difference(x, y)

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """As the inner one."""
        return self.inner.distance(x, y)

    def transport(self, x: torch.Tensor, y: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
        """As the inner one."""
        return self.inner.transport(x, y, tangent)

    def ambiguous(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """As the inner one."""
        return self.inner.ambiguous(x, y)

    def select(self, problems: torch.Tensor, rows: torch.Tensor) -> EvenlySpaced:
        """Of some of the paths."""
        return EvenlySpaced(self.band.select(problems))


def evenly_spaced(band: Band, x: torch.Tensor) -> torch.Tensor:
    """``x`` with the images moved along the path, on the geodesics between neighbours, until equally far apart.

    Equal are distances along the path as it was; the new one cuts its corners. Differentiable.
    """
    layout = band.layout
    along = band.arc_length(x)
    whole = layout.chain.rows_of(along[layout.nodes.ptr[1:] - 1])
    share = layout.position.to(x.dtype) / (layout.chain.rows_of(layout.images) + 1).to(x.dtype)
    node, part = layout.locate(along, share * whole, layout.chain)
    pool = torch.cat([x, band.start, band.end])
    return layout.between(band.inner.manifold, pool, layout.frames, node, part)
