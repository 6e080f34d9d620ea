"""Observables of spins: mean magnetisation and topological charge."""

from __future__ import annotations

import math

import numpy as np

from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.potentials.spins.lattice import SpinLattice


def magnetization(lattice: SpinLattice, x: torch.Tensor) -> torch.Tensor:
    """Return the mean of the spins weighted by their moments, for ``x (n_problems * n_spins, 3)``: (n_problems, 3)."""
    spins = _problems(lattice, x)
    moments = torch.from_numpy(lattice.spin_moments).to(x)
    found: torch.Tensor = (moments[:, None] * spins).sum(1) / moments.sum()
    return found


def topological_charge(lattice: SpinLattice, x: torch.Tensor) -> torch.Tensor:
    """Return how often the spins of a layer wrap the sphere, for ``x (n_problems * n_spins, 3)``: (n_problems,).

    It is the sum of the solid angles of two triangles per cell, divided by 4 pi, a whole number in a periodic lattice.
    A skyrmion has -1 with its core down, and 1 with its core up. Triangles with a vacant site are left out.

    Source: B. Berg & M. Luescher, Nucl. Phys. B 190, 412 (1981).

    Raises:
        InputError: the lattice has more than one atom per cell, or is not one layer along its first two directions.
    """
    a, b, c = lattice.shape
    if len(lattice.basis) > 1 or c > 1:
        raise InputError(
            f"topological_charge: needs one layer with one atom a cell, got {len(lattice.basis)} atoms a cell and {c} "
            f"layers; choose a layer's spins and its lattice"
        )
    number = np.full(a * b, -1)
    number[lattice.sites] = np.arange(lattice.n_spins)
    grid = number.reshape(b, a).T
    # -1 beyond an open edge, the other side of a periodic one
    padded = np.pad(grid, ((0, 1), (0, 1)), constant_values=-1)
    if lattice.pbc[0]:
        padded[-1, :-1] = grid[0]
    if lattice.pbc[1]:
        padded[:-1, -1] = grid[:, 0]
    if lattice.pbc[0] and lattice.pbc[1]:
        padded[-1, -1] = grid[0, 0]
    here, right, up, across = padded[:-1, :-1], padded[1:, :-1], padded[:-1, 1:], padded[1:, 1:]
    corners = [(here, right, up), (across, up, right)]  # both counterclockwise where a and b are
    triangles = np.concatenate([np.stack(one, -1).reshape(-1, 3) for one in corners])
    triangles = triangles[(triangles >= 0).all(1)]
    turn = float(np.linalg.det(lattice.vectors[:2, :2]))
    spins = _problems(lattice, x)[
        :, torch.from_numpy(triangles).to(x.device)
    ]  # (n_problems, triangles, 3, 3)
    s1, s2, s3 = spins.unbind(2)
    volume = (s1 * torch.linalg.cross(s2, s3, dim=-1)).sum(-1)
    overlap = 1.0 + (s1 * s2).sum(-1) + (s2 * s3).sum(-1) + (s3 * s1).sum(-1)
    charge: torch.Tensor = torch.atan2(volume, overlap).sum(-1) / (2.0 * math.pi)
    return math.copysign(1.0, turn) * charge


def _problems(lattice: SpinLattice, x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` as (n_problems, n_spins, 3)."""
    if x.ndim != 2 or x.shape[1] != 3 or len(x) % lattice.n_spins:
        raise InputError(
            f"`x` must have shape (n_problems * {lattice.n_spins}, 3) to fit the lattice, got {tuple(x.shape)}"
        )
    return x.reshape(-1, lattice.n_spins, 3)
