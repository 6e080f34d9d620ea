"""Moves for clusters that are written once, as kernels: turn a half, make symmetric, mend the surface.

Where the search is not compiled they run as they stand, in Python, problem by problem: some milliseconds a hop, beside
which the quench that follows takes longer still.
"""

from __future__ import annotations

import math
from typing import Self

from pydantic import model_validator

from mlopt.core.batch.random import Draws
from mlopt.core.kernels.kernel import Kernel
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

    Periodic systems stay as they are. Those with fixed atoms, or others that may not be put elsewhere, too, but for a
    twist, which turns the rest.
    """

    def propose(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        row_energy: torch.Tensor | None,
        scale: torch.Tensor,
        draws: Draws,
    ) -> torch.Tensor:
        """Problem by problem, in Python."""
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
            scratch = [0.0] * (7 * n)
            made.function(
                *(n, flat, energies[start:stop].tolist(), float(scale[problem])),
                *(atoms[:, start:stop].flatten().tolist(), [], counts, scratch, made.settings),
            )
            moved[start:stop] = torch.tensor(flat, dtype=torch.float64).reshape(3, n).T
            counters.append(counts[1])
        draws.counter = torch.tensor(counters, dtype=torch.int64, device=draws.counter.device)
        return moved.to(x)


class Twist(ClusterMove):
    """Turn the atoms on one side of a random plane through the centre about its normal.

    Keeps both halves as they are, and so reaches other stackings and twins of one packing. Source: the "twist" operator
    of genetic algorithms for clusters, J. A. Niesse & H. R. Mayne, J. Chem. Phys. 105, 4700 (1996).
    """

    angle: float = setting(180.0, "largest angle, either way", unit="degrees", gt=0, le=180)

    def kernel(self) -> Kernel:
        """What makes the move, compiled or as it stands."""
        return Kernel(twist, (math.radians(self.angle),))


class Symmetrise(ClusterMove):
    """Make the cluster symmetric: one sector about an axis, or one half, replaces the others.

    The axis goes through the centre of mass, or the atom nearest to it, and an atom, a bond or a face on the surface,
    or in a random direction; its order is drawn from 2 to ``highest_order``. Kept is the sector, or the half, that is
    bound most strongly. Copies that would overlap are left out, atoms that are missing then stay where they were or go
    anywhere on the surface. Many global minima are symmetric: what is right in one part is right in the others too.

    Source: the idea is that of M. T. Oakley, R. L. Johnston & D. J. Wales, Phys. Chem. Chem. Phys. 15, 3965 (2013);
    theirs finds approximate symmetry operations of the core first, this one tries axes at random.
    """

    highest_order: int = setting(5, "of the axis", ge=2, le=8)
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
        """What makes the move, compiled or as it stands."""
        return Kernel(symmetrise, (float(self.highest_order), self.inversion, self.mirror))


class Surface(ClusterMove):
    """Put the most loosely bound atoms where they touch most others.

    Up to ``atoms`` of them, one after the other: places at one diameter from three mutual neighbours are tried at
    random, and the one with most neighbours that overlaps with nobody is taken. No energy is computed.

    Source: surface operators as of H. Takeuchi, J. Chem. Inf. Model. 46, 2066 (2006), and of dynamic lattice searching,
    X. Shao, L. Cheng & W. Cai, J. Comput. Chem. 25, 1693 (2004); theirs rank places by energy.
    """

    atoms: int = setting(3, "that are moved at most", ge=1)
    trials: int = setting(60, "places that are tried for each", ge=1)

    def kernel(self) -> Kernel:
        """What makes the move, compiled or as it stands."""
        return Kernel(surface, (float(self.atoms), float(self.trials)))
