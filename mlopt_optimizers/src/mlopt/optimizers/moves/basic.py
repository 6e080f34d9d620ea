"""Moves of a search: displace all rows, put loosely bound ones on the surface, exchange unlike ones, start anew."""

from __future__ import annotations

import math
from typing import Literal

from mlopt.core.batch.random import Draws
from mlopt.core.batch.segments import Segments
from mlopt.core.kernels.kernel import Kernel
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.move import Move
from mlopt.optimizers.moves.kernels import basic as kernels


def row_diameter(landscape: Landscape, x: torch.Tensor) -> torch.Tensor:
    """Return the diameters (n_rows,) of the landscape, or ones where it knows none."""
    return x.new_ones(len(x)) if landscape.diameter is None else landscape.diameter.to(x)


def free_rows(landscape: Landscape, x: torch.Tensor) -> torch.Tensor:
    """Return the rows (n_rows,) bool that may be put elsewhere: neither fixed nor of a periodic problem."""
    free = torch.ones(len(x), dtype=torch.bool, device=x.device)
    if landscape.fixed is not None:
        free = free & ~landscape.fixed
    periodic = getattr(landscape.manifold, "pbc", None)
    return free if periodic is None else free & ~periodic.any(-1)


def close_packed(counts: torch.Tensor) -> torch.Tensor:
    """Return the radius (n,), in diameters, of a ball of ``counts (n,)`` close-packed spheres.

    Each of them takes a volume of d^3 / sqrt 2.
    """
    spheres = counts * (3.0 / (4.0 * math.pi * math.sqrt(2.0)))
    # not `pow`, whose last bit depends on the place in the tensor, that is on the batch
    return torch.exp(torch.log(spheres) / 3.0)


class Displacement(Move):
    """A random displacement of every row (Wales & Doye, J. Phys. Chem. A 101, 5111 (1997))."""

    step: float = setting(
        0.36,
        "half-width of the uniform distribution, or standard deviation of the normal one",
        unit="diameter",
        gt=0,
    )
    distribution: Literal["uniform", "normal"] = setting("uniform", "distribution of each component")

    def propose(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        row_energy: torch.Tensor | None,
        scale: torch.Tensor,
        draws: Draws,
    ) -> torch.Tensor:
        """Displace every row along the manifold."""
        width = x.shape[1]
        kick = draws.normal_rows(width) if self.distribution == "normal" else 2.0 * draws.rows(width) - 1.0
        size = landscape.segments.rows_of(self.step * scale) * row_diameter(landscape, x)
        kick = landscape.manifold.project(x, kick.to(x) * size[:, None])
        return landscape.manifold.retract(x, kick)

    def kernel(self) -> Kernel:
        """See `Move.kernel`."""
        return Kernel(kernels.displacement, (self.step,), {"NORMAL": self.distribution == "normal"})


def _away(centre: torch.Tensor, radius: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return points (n_rows, 3) at ``radius (n_rows,)`` from ``centre (n_rows, 3)``.

    numbers: (n_rows, 2) in [0, 1), which give the directions.
    """
    cosine, angle = 2.0 * numbers[:, 0] - 1.0, 2.0 * math.pi * numbers[:, 1]
    sine = (1.0 - cosine * cosine).sqrt()
    direction = torch.stack([sine * torch.cos(angle), sine * torch.sin(angle), cosine], -1)
    return centre + radius[:, None] * direction


def to_surface(
    x: torch.Tensor, chosen: torch.Tensor, numbers: torch.Tensor, segments: Segments
) -> torch.Tensor:
    """Put the rows ``chosen (n_rows,)`` bool of ``x (n_rows, 3)`` on the sphere through the outermost row.

    numbers: (n_rows, 2) in [0, 1), which give the directions.
    """
    centre = segments.rows_of(segments.mean_rows(x))
    radius = segments.max(((x - centre) ** 2).sum(-1)).sqrt()
    return torch.where(chosen[:, None], _away(centre, segments.rows_of(radius), numbers), x)


class Angular(Move):
    """The angular move: loosely bound rows go to random places on the cluster's surface (Wales & Doye 1997).

    A row moves if its energy is above ``threshold`` times that of the most strongly bound row. It moves to the sphere
    about the centre that goes through the outermost row. Nothing happens where a potential cannot tell the energies of
    rows, and nothing to periodic systems.
    """

    threshold: float = setting(
        0.4, "share of the strongest binding below which a row counts as weakly bound", gt=0, lt=1
    )

    def propose(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        row_energy: torch.Tensor | None,
        scale: torch.Tensor,
        draws: Draws,
    ) -> torch.Tensor:
        """Put loose rows on the surface, in random directions."""
        if row_energy is None or x.shape[1] != 3:
            return x
        segments = landscape.segments
        numbers = draws.rows(2).to(x)
        strongest = -segments.max(-row_energy)
        loose = (row_energy > self.threshold * segments.rows_of(strongest)) & free_rows(landscape, x)
        return to_surface(x, loose, numbers, segments)

    def kernel(self) -> Kernel:
        """See `Move.kernel`."""
        return Kernel(kernels.angular, (self.threshold,))


class Exchange(Move):
    """An exchange of two rows of different species, ``pairs`` times."""

    pairs: int = setting(1, "number of exchanges in one move", ge=1)

    def propose(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        row_energy: torch.Tensor | None,
        scale: torch.Tensor,
        draws: Draws,
    ) -> torch.Tensor:
        """Exchange a random row with a random row of another species; a problem of one species stays as it is."""
        segments, species = landscape.segments, landscape.species
        if species is None:
            return x
        for _ in range(self.pairs):
            numbers = draws.rows(2)
            free = torch.ones_like(species, dtype=torch.bool) if landscape.fixed is None else ~landscape.fixed
            first = segments.argmax(torch.where(free, numbers[:, 0], -1.0))
            unlike = (species != segments.rows_of(species[first])) & free
            second = segments.argmax(torch.where(unlike, numbers[:, 1], -1.0))
            second = torch.where(unlike[second], second, first)
            moved = x.clone()
            moved[first], moved[second] = x[second], x[first]
            x = moved
        return x

    def kernel(self) -> Kernel:
        """See `Move.kernel`."""
        return Kernel(kernels.exchange, (), {"PAIRS": self.pairs})


class Restart(Move):
    """A new start: every row goes to a random place in a ball, as in `SphereStart`.

    It is for searches that choose when to start anew, because a Metropolis test would seldom accept it. Nothing happens
    to periodic systems.
    """

    margin: float = setting(
        1.0, "radius of the ball beyond that of close-packed atoms", unit="diameter", ge=0
    )

    def propose(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        row_energy: torch.Tensor | None,
        scale: torch.Tensor,
        draws: Draws,
    ) -> torch.Tensor:
        """Draw places that are uniform in the ball about the centre."""
        if x.shape[1] != 3:
            return x
        segments = landscape.segments
        numbers = draws.rows(3).to(x)
        mean = segments.sum(row_diameter(landscape, x)) / segments.counts.clamp(min=1)
        radius = segments.rows_of(mean * (self.margin + close_packed(segments.counts.to(x))))
        placed = _away(
            segments.rows_of(segments.mean_rows(x)),
            radius * torch.exp(torch.log(numbers[:, 2]) / 3.0),
            numbers,
        )
        return torch.where(free_rows(landscape, x)[:, None], placed, x)

    def kernel(self) -> Kernel:
        """See `Move.kernel`."""
        return Kernel(kernels.restart, (self.margin,))
