"""Moves for clusters that are written once, as kernels: turn a half, make symmetric, mend the surface.

Where the search is not compiled, they run in Python, problem by problem. That takes some milliseconds a hop, and less
than the quench that follows.
"""

from __future__ import annotations

import math
from typing import Self

from pydantic import model_validator

from mlopt.core.batch.random import Draws
from mlopt.core.kernels.kernel import Kernel
from mlopt.core.kernels.records import Proposal
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.move import Move
from mlopt.optimizers.moves.basic import free_rows, row_diameter
from mlopt.optimizers.moves.kernels.surface import surface
from mlopt.optimizers.moves.kernels.symmetrise import symmetrise
from mlopt.optimizers.moves.kernels.twist import twist


class ClusterMove(Move):
    """A move on free clusters in three dimensions, written as a `kernel`.

    Periodic systems stay as they are. So do systems with fixed atoms, except in a twist, which turns the other atoms.
    """

    def propose(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        row_energy: torch.Tensor | None,
        scale: torch.Tensor,
        draws: Draws,
    ) -> torch.Tensor:
        """Move problem by problem, in Python."""
        if x.shape[1] != 3:
            return x
        segments = landscape.segments
        free = torch.ones(len(x), dtype=torch.bool, device=x.device)
        if landscape.fixed is not None:
            free = ~landscape.fixed
        kinds = torch.zeros(len(x)) if landscape.species is None else landscape.species
        traits = [row_diameter(landscape, x), free_rows(landscape, x), free, kinds]
        atoms = torch.stack([trait.to("cpu", torch.float64) for trait in traits])
        energies = torch.zeros(len(x)) if row_energy is None else row_energy
        moved, energies = x.to("cpu", torch.float64).clone(), energies.to("cpu", torch.float64)
        made, counters = self.kernel(), []
        for problem, (start, stop) in enumerate(
            zip(segments.ptr[:-1].tolist(), segments.ptr[1:].tolist(), strict=True)
        ):
            n = stop - start
            flat = moved[start:stop].T.flatten().tolist()
            counts = [int(draws.key[problem]), int(draws.counter[problem])]
            one = Proposal(
                n=n,
                x=flat,
                row_energy=energies[start:stop].tolist(),
                scale=float(scale[problem]),
                atoms=atoms[:, start:stop].flatten().tolist(),
                rows=[],
                counts=counts,
                scratch=[0.0] * (7 * n),
            )
            made.function(one, made.settings)
            moved[start:stop] = torch.tensor(flat, dtype=torch.float64).reshape(3, n).T
            counters.append(counts[1])
        draws.counter = torch.tensor(counters, dtype=torch.int64, device=draws.counter.device)
        return moved.to(x)


class Twist(ClusterMove):
    """A twist of the atoms on one side of a random plane through the centre, about its normal.

    It keeps both halves as they are, and so reaches other stackings and twins of one packing. Source: the "twist"
    operator of genetic algorithms for clusters, J. A. Niesse & H. R. Mayne, J. Chem. Phys. 105, 4700 (1996).
    """

    angle: float = setting(180.0, "largest angle in either direction", unit="degrees", gt=0, le=180)

    def kernel(self) -> Kernel:
        """See `Move.kernel`; it also makes the move where nothing is compiled."""
        return Kernel(twist, (math.radians(self.angle),))


class Symmetrise(ClusterMove):
    """A move that makes the cluster symmetric: one sector about an axis, or one half, replaces the others.

    The axis goes through the centre of mass, or through the atom nearest to it. It points at an atom, a bond or a face
    on the surface, or in a random direction. Its order is drawn from 2 to ``highest_order``. The sector, or the half,
    that is bound most strongly is kept and copied. Copies that would overlap are left out. Atoms that are then missing
    stay where they were, or go anywhere on the surface. Many global minima are symmetric, so an arrangement that is
    right in one part is right in the others too.

    Source: the idea is from M. T. Oakley, R. L. Johnston & D. J. Wales, Phys. Chem. Chem. Phys. 15, 3965 (2013). They
    first find approximate symmetry operations of the core; here axes are tried at random.
    """

    highest_order: int = setting(5, "largest order of the axis", ge=2, le=8)
    inversion: float = setting(0.15, "share of moves that use a centre of inversion instead", ge=0, le=1)
    mirror: float = setting(0.15, "share of moves that use a mirror plane instead", ge=0, le=1)

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.inversion + self.mirror > 1:
            raise ValueError(
                f"inversion and mirror are shares, together 1 at most, got {self.inversion} + {self.mirror}"
            )
        return self

    def kernel(self) -> Kernel:
        """See `Move.kernel`; it also makes the move where nothing is compiled."""
        return Kernel(symmetrise, (float(self.highest_order), self.inversion, self.mirror))


class Surface(ClusterMove):
    """A surface move: the most loosely bound atoms go where they touch most others.

    Up to ``atoms`` of them move, one after the other. Random places at one diameter from three mutual neighbours are
    tried. The one with most neighbours that overlaps with no atom is taken. No energy is computed.

    Sources: surface operators as in H. Takeuchi, J. Chem. Inf. Model. 46, 2066 (2006), and dynamic lattice searching,
    X. Shao, L. Cheng & W. Cai, J. Comput. Chem. 25, 1693 (2004). Both rank places by energy.
    """

    atoms: int = setting(3, "largest number of moved atoms", ge=1)
    trials: int = setting(60, "number of places tried for each atom", ge=1)

    def kernel(self) -> Kernel:
        """See `Move.kernel`; it also makes the move where nothing is compiled."""
        return Kernel(surface, (float(self.atoms), float(self.trials)))
