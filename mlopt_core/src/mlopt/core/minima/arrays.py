"""The arrays of a system that comparisons of structures read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mlopt.core.atoms.systems import Systems
from mlopt.core.lazy import torch


@dataclass(frozen=True, eq=False)
class StructureArrays:
    """A system in arrays, as `mlopt.core.minima.matching.same_structure` reads it.

    pos: (n, 3). z: (n,). cell: (3, 3). pbc: (3,). energy: 0 where it plays no part.
    """

    pos: NDArray[np.float64]
    z: NDArray[np.int64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    energy: float = 0.0

    @classmethod
    def of(cls, system: Systems, energy: float = 0.0) -> Self:
        """Return the arrays of ``system``, a batch of one."""
        pos, cell = (one.detach().cpu().to(torch.float64).numpy() for one in (system.pos, system.cell[0]))
        return cls(pos, system.z.cpu().numpy(), cell, system.pbc[0].cpu().numpy(), energy)
