"""D-optimal selection: the structures whose rows span the largest volume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.fitting.least_squares import Weights
from mlopt.optimizers.querying.active_set import ActiveSet, Block
from mlopt.optimizers.querying.maxvol import Matrix, column_scale
from mlopt.optimizers.querying.pool import Pool
from mlopt.optimizers.querying.rows import label_rows
from mlopt.optimizers.querying.strategy import Greedy, Plan

#: information before any label, with columns of size 1: orders what a set of full rank has chosen already
_LITTLE = 1e-8
#: atoms whose rows are computed at a time, and numbers up to which rows are kept instead of computed in each pass
_ATOMS, _KEPT = 4096, 5e7


class DOptimal(Greedy):
    """Structures with rows in the active set: D-optimal selection by MaxVol.

    The rows of known structures form the first active set. A candidate is chosen if any of its rows enters, so that a
    choice may be smaller than asked for. Where more candidates enter than are asked for, they are taken one by one. The
    next is always the one that adds most to the determinant of the information.

    Source: Podryabinkin & Shapeev, Comput. Mater. Sci. 140, 171 (2017).
    """

    rows: Literal["qs1", "qs2", "qs3"] = setting(
        "qs1",
        "qs1: the energy of a structure; qs2: energy, forces and stresses, each times its weight; qs3: neighbourhoods",
    )
    weights: Weights = setting(Weights(), "of the rows of qs2, as in a fit; stresses have none by default")
    tolerance: float = setting(
        1e-3, "a row enters if it raises the determinant by a factor above 1 plus this", gt=0
    )
    fill: bool = setting(False, "go on with active sets of what is left until there are as many as asked for")

    def _plan(self, pool: Pool, count: int) -> Plan:
        potential = pool.fittable("d-optimal", linear=self.rows == "qs2")
        return _Volume(self, potential, pool)

    def _reason(self) -> str:
        return f"D-optimal by {self.rows}"

    def blocks(self, potential: FittablePotential, systems: Systems) -> Iterator[Block]:
        """Yield rows of some thousand atoms at a time, with the number of the structure of each."""
        for first, stop in systems.segments.blocks(_ATOMS):
            part = systems.select(torch.arange(first, stop))
            if self.rows == "qs3":
                rows, owners = potential.row_gradients(part).detach().cpu().numpy(), part.batch.cpu().numpy()
            elif self.rows == "qs2":
                each = label_rows(potential, part, self.weights)
                rows = np.concatenate(each)
                owners = np.repeat(np.arange(len(each)), [len(one) for one in each])
            else:
                rows = potential.energy_gradients(part).detach().cpu().numpy()
                rows, owners = rows / part.segments.counts.cpu().numpy()[:, None], np.arange(len(part))
            sound = np.isfinite(rows).all(1)
            yield rows[sound], owners[sound] + first


class _Volume:
    """Gains of information by the active rows of each candidate that has any; layer by layer if asked for."""

    def __init__(self, strategy: DOptimal, potential: FittablePotential, pool: Pool) -> None:
        self._strategy, self._potential, self._pool = strategy, potential, pool
        self._left = np.ones(len(pool.systems), dtype=bool)
        known = pool.known.systems
        atoms = {"qs1": 0, "qs2": 3, "qs3": 1}[strategy.rows] * len(pool.systems.pos)
        self._kept: list[Block] | None = None
        if (atoms + 7 * len(pool.systems)) * potential.parameters.shape[-1] <= _KEPT:
            self._kept = list(strategy.blocks(potential, pool.systems))
        base = None
        if len(known):
            base = ActiveSet.of_blocks(
                lambda: ((rows, -1 - owners) for rows, owners in strategy.blocks(potential, known)),
                tolerance=strategy.tolerance,
            )
        self._layer(base)
        rows = self._active.rows
        self._scale = column_scale(rows)
        self._spread = np.eye(rows.shape[1]) / _LITTLE
        if base is not None:
            self._learn(base.rows)

    def _layer(self, base: ActiveSet | None) -> None:
        """Choose rows among the candidates that are left."""
        self._active = ActiveSet.of_blocks(self._blocks, tolerance=self._strategy.tolerance, first=base)
        self._entered = sorted(one for one in self._active.counts if one >= 0 and self._left[one])

    def _blocks(self) -> Iterator[Block]:
        """Rows of the candidates that are left."""
        if self._kept is not None:
            for rows, owners in self._kept:
                left = self._left[owners]
                yield rows[left], owners[left]
            return
        places = np.flatnonzero(self._left)
        systems = self._pool.systems.select(torch.from_numpy(places))
        for rows, owners in self._strategy.blocks(self._potential, systems):
            yield rows, places[owners]

    def _learn(self, rows: Matrix) -> None:
        scaled = rows / self._scale
        reach = self._spread @ scaled.T
        self._spread = self._spread - reach @ np.linalg.solve(np.eye(len(rows)) + scaled @ reach, reach.T)

    def values(self) -> Matrix:
        found = np.zeros(len(self._left))
        for one in self._entered:
            rows = self._active.rows[self._active.owners == one] / self._scale
            gain = np.eye(len(rows)) + rows @ self._spread @ rows.T
            found[one] = max(float(np.linalg.slogdet(gain)[1]), 1e-12)
        return found

    def take(self, index: int) -> None:
        self._learn(self._active.rows[self._active.owners == index])
        self._left[index] = False
        self._entered = [one for one in self._entered if one != index]
        if not self._entered and self._strategy.fill and self._left.any():
            try:
                self._layer(None)
            except InputError:  # what is left has no rows
                self._entered = []
