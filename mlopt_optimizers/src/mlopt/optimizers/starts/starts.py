"""Starts: uniform in a box or a ball, the soft-sphere start of Learn2Hop, and the given positions.

Lengths are in units of the atoms' diameter (`Potential.diameter`), so that one setting serves argon and gold.
"""

from __future__ import annotations

import math
from typing import ClassVar

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Draws
from mlopt.core.geometry.lattice import complete
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.start import StartSampler
from mlopt.optimizers.starts.overlaps import separate


class GivenStart(StartSampler):
    """The positions of the systems themselves, with noise if ``rattle`` is set."""

    given: ClassVar[bool] = True

    rattle: float = setting(
        0.0, "standard deviation of a normal displacement of each component", unit="diameter", ge=0
    )

    def draw(self, systems: Systems, diameter: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return the given positions, and noise if asked for."""
        if not self.rattle:
            return systems.pos
        return systems.pos + self.rattle * diameter[:, None] * draws.normal_rows(3)


class BoxStart(StartSampler):
    """A start that is uniform in a cube about the origin, and in the cell along periodic directions."""

    edge: float | None = setting(None, "edge of the cube; none: from `density`", unit="diameter", gt=0)
    density: float = setting(
        0.7,
        "number density of the cube if no edge is given; close packing is 1.41",
        unit="1/diameter^3",
        gt=0,
    )

    def draw(self, systems: Systems, diameter: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Draw independent and uniform positions."""
        if self.edge is not None:
            edge = torch.full_like(_mean(systems, diameter), self.edge)
        else:
            edge = _cube_root(systems.segments.counts / self.density)
        return _in_box(systems, edge * _mean(systems, diameter), draws)


class SphereStart(StartSampler):
    """A start that is uniform in a ball about the origin, as in studies of basin hopping.

    Along periodic directions it is uniform in the cell, as `BoxStart`.

    Source: GMIN (Wales & Doye, J. Phys. Chem. A 101, 5111 (1997)), which starts in its container. That is a ball of
    radius 2 + (3 N / (4 pi sqrt 2))^(1/3) diameters. The second term is the radius of N close-packed atoms. Here the
    margin is a setting, 1 by default, which leaves less empty space and makes the first quenches shorter.
    """

    radius: float | None = setting(
        None, "radius of the ball; none: that of N close-packed atoms plus `margin`", unit="diameter", gt=0
    )
    margin: float = setting(1.0, "width added to close packing if no radius is given", unit="diameter", ge=0)

    def draw(self, systems: Systems, diameter: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Draw positions from a normal direction and the cube root of a uniform number each."""
        counts = systems.segments.counts.to(torch.float64)
        if self.radius is not None:
            radius = torch.full_like(counts, self.radius)
        else:
            radius = self.margin + _cube_root(counts * (3.0 / (4.0 * math.pi * math.sqrt(2.0))))
        radius = radius * _mean(systems, diameter)
        direction, share = draws.normal_rows(3), draws.rows(1)
        length = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
        away = systems.segments.rows_of(radius)[:, None] * _cube_root(share)
        ball: torch.Tensor = direction / length.clamp(min=torch.finfo(length.dtype).tiny) * away
        if not systems.periodic:
            return ball
        periodic = systems.segments.rows_of(systems.pbc.any(-1))  # others in the batch may have no cell
        return torch.where(periodic[:, None], _in_box(systems, 2.0 * radius, draws), ball)


class HarmonicStart(StartSampler):
    """Learn2Hop's "harmonic initialization": random in a small box, then pushed apart as soft spheres.

    Source: Merchant et al., ICML 2021, App. D.2 and eq. 8: 3.0 angstrom box (4.0 for metals), 1000 steps of gradient
    descent at 1e-3 on ``(1 - d)^2 / 2``. Three things differ:

    - Eq. 8 is printed to act for d < 0.1 only. Here spheres touch at one diameter, as in the JAX-MD function behind it.
    - The paper's diameter is 1 angstrom for every element, so that metal atoms overlap. Here it is the mean of both
      atoms' diameters.
    - The paper's descent covers a time (steps times step) of 1, too short for crowded boxes to relax. Here 100 steps of
      0.05 cover 5, after which no pair in a cluster of up to 150 atoms is closer than about 0.7 diameters.
    """

    edge: float = setting(3.0, "edge of the box in directions without periodicity", unit="diameter", gt=0)
    steps: int = setting(100, "gradient descent steps on the soft spheres", ge=0)
    step: float = setting(
        0.05, "size of these steps; soft spheres have unit stiffness", unit="diameter^2/energy", gt=0
    )

    def draw(self, systems: Systems, diameter: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Draw uniform positions, and push them apart."""
        pos = _in_box(systems, self.edge * _mean(systems, diameter), draws)
        pos = torch.where(systems.fixed[:, None], systems.pos.to(pos), pos)
        return separate(systems, pos, diameter, steps=self.steps, step=self.step)


def _cube_root(value: torch.Tensor) -> torch.Tensor:
    # not `pow`, whose last bit depends on the place in the tensor, that is on the batch
    return torch.exp(torch.log(value.to(torch.float64)) / 3.0)


def _mean(systems: Systems, diameter: torch.Tensor) -> torch.Tensor:
    """Return the mean diameter (n_systems,) of each system's atoms."""
    return systems.segments.sum(diameter) / systems.segments.counts.clamp(min=1)


def _in_box(systems: Systems, edge: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Draw positions (n_atoms, 3), uniform in a cube about the origin and in the cell along periodic directions.

    edge: (n_systems,). Edges along directions without periodicity are at right angles to the others.
    """
    share = draws.rows(3)
    rows = systems.segments.rows_of
    if not systems.periodic:
        return (share - 0.5) * rows(edge)[:, None]
    whole = complete(systems.cell.to(edge.dtype), systems.pbc)
    box = rows(torch.where(systems.pbc[:, :, None], whole, whole * edge[:, None, None]))
    share = torch.where(rows(systems.pbc), share, share - 0.5)
    # written out: a matrix product may sum in another order in another batch
    return share[:, 0:1] * box[:, 0] + share[:, 1:2] * box[:, 1] + share[:, 2:3] * box[:, 2]
