"""Finding both minima that a saddle joins, by stepping off it along the negative mode and going down."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlopt.core.driver.driver import minimize
from mlopt.core.errors import InputError, MloptError
from mlopt.core.landscapes.landscape import AtomsLandscape, Landscape
from mlopt.core.lazy import torch
from mlopt.core.minima.alignment import align
from mlopt.core.minima.arrays import StructureArrays
from mlopt.core.minima.matching import same_structure
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.saddles.modes import NEAR_ZERO, lowest_modes

#: how often a descent that ended on a saddle is pushed off it
_PUSHES = 4


@dataclass(frozen=True)
class Same:
    """A criterion for equal points: energies within ``energy_window``, and no row farther off than ``distance``.

    Structures of atoms are compared up to rotation, reflection, translation and exchange of like atoms. Periodic ones
    are compared by their sorted distances, see `mlopt.core.minima.matching`. Other points are compared by the distance
    on their manifold.
    """

    energy_window: float = 1e-4
    distance: float = 0.05

    def __post_init__(self) -> None:
        for name, value in (("energy_window", self.energy_window), ("distance", self.distance)):
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"Same({name}=...) must be positive and finite, got {value!r}")

    def points(
        self, landscape: Landscape, energy_a: float, a: torch.Tensor, energy_b: float, b: torch.Tensor
    ) -> bool:
        """Return True if ``a`` and ``b (n, d)`` are one point of ``landscape``, which is of one problem of n rows."""
        if not abs(energy_a - energy_b) <= self.energy_window:
            return False
        if isinstance(landscape, AtomsLandscape):
            one, other = (
                StructureArrays.of(landscape.systems.with_pos(x), energy)
                for energy, x in ((energy_a, a), (energy_b, b))
            )
            return same_structure(one, other, self.energy_window, self.distance)
        return bool((landscape.manifold.distance(a, b) <= self.distance).all())

    def places(self, landscape: Landscape, a: torch.Tensor, b: torch.Tensor) -> bool:
        """Return True if each row of ``b (n, d)`` is where that of ``a (n, d)`` is, up to a rigid motion."""
        if isinstance(landscape, AtomsLandscape):
            systems, x, y = landscape.systems, _numbers(a), _numbers(b)
            kept = align(
                x,
                y,
                systems.z.cpu().numpy(),
                cell=_numbers(systems.cell[0]),
                pbc=systems.pbc[0].cpu().numpy(),
                fixed=systems.fixed.cpu().numpy(),
                exchange=False,
            )
            b = torch.from_numpy(kept.pos).to(a)
        return bool((landscape.manifold.distance(a, b) <= self.distance).all())


def _numbers(x: torch.Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = x.detach().cpu().to(torch.float64).numpy()
    return found


@dataclass(frozen=True)
class Connection:
    """The ends of both ways down from each saddle.

    x (2, n_rows, d): ends of the descents along plus and minus the mode.
    energy (n_problems, 2): energies there.
    fmax (n_problems, 2): largest row force there.
    converged (n_problems, 2) bool: true where ``fmax`` is below the threshold.
    negative (n_problems, 2) int64: number of negative modes there, 0 at a minimum; -1 if it was not computed.
    matches (n_problems, 2, 2) bool: ``[p, side, which]`` is true if that end is the given minimum ``which``.
    calls (n_problems,) int64: force calls used.
    """

    x: torch.Tensor
    energy: torch.Tensor
    fmax: torch.Tensor
    converged: torch.Tensor
    negative: torch.Tensor
    matches: torch.Tensor
    calls: torch.Tensor

    @property
    def joins(self) -> torch.Tensor:
        """True (n_problems,) if one end is the first of the given minima and the other end is the second."""
        m = self.matches
        return (m[:, 0, 0] & m[:, 1, 1]) | (m[:, 0, 1] & m[:, 1, 0])


def connect(
    landscape: Landscape,
    x: torch.Tensor,
    mode: torch.Tensor,
    *,
    minima: torch.Tensor | None = None,
    displacement: float = 0.05,
    optimizer: Optimizer | None = None,
    fmax: float = 1e-4,
    force_calls: int = 2000,
    same: Same | None = None,
    verify: bool = True,
) -> Connection:
    """Go down from the saddles ``x (n_rows, d)`` to both sides, all problems at once.

    mode: (n_rows, d) the negative mode of each problem, of any length.
    minima: (2, n_rows, d) two points of each problem, with which the ends are compared.
    displacement: length of the largest row in the step off the saddle, in the length of x.
    optimizer: a local optimizer. The default is L-BFGS with steps of at most ``displacement``, which do not leap to the
        next valley.
    fmax, force_calls: as in `mlopt.core.driver.driver.minimize`, for each descent.
    same: decides if an end is a given minimum. If both given minima are one structure, every atom of the end must also
        be at its place.
    verify: True to compute the lowest mode at the ends, and to push off the ends that are saddles. Descents in a
        symmetric structure may end at saddles. This costs two calls of `lowest_modes` or more.

    Raises:
        InputError: shapes that do not fit, a displacement that is not positive, a mode that is zero.
        MloptError: a given minimum has no finite energy.
    """
    segments, manifold = landscape.segments, landscape.manifold
    if x.shape != mode.shape or x.ndim != 2 or len(x) != segments.n_rows:
        raise InputError(
            f"connect: `x` and `mode` must both have shape ({segments.n_rows}, d) to fit the landscape, "
            f"got {tuple(x.shape)} and {tuple(mode.shape)}"
        )
    if minima is not None and minima.shape != (2, *x.shape):
        raise InputError(
            f"connect: `minima` must have shape (2, {len(x)}, {x.shape[1]}), got {tuple(minima.shape)}"
        )
    if not displacement > 0:
        raise InputError(f"connect: `displacement` must be positive, got {displacement}")
    length = segments.longest2(mode).sqrt()
    if not bool((length > 0).all()):
        raise InputError(
            f"connect: `mode` of problem {int((~(length > 0)).to(torch.int64).argmax())} is zero or not a number: "
            f"take the first of `lowest_modes`"
        )
    n = segments.n_problems
    off = segments.scale(displacement / length, mode)
    both = landscape.select(torch.arange(n, device=x.device).repeat(2))
    start = torch.cat([manifold.retract(x, off), manifold.retract(x, -off)])
    if optimizer is None:
        optimizer = LBFGS(max_step=displacement)
    found = _Descents(both, start, optimizer, fmax, force_calls, displacement, verify)
    matches = torch.zeros(n, 2, 2, dtype=torch.bool)
    calls = found.calls.reshape(2, n).sum(0)
    if minima is not None:
        same = same or Same()
        with torch.no_grad():
            known = torch.stack([landscape.evaluate(one).energy for one in minima])
        if not bool(known.isfinite().all()):
            raise MloptError(
                "connect: a given minimum has no finite energy, so no end can be compared with it"
            )
        calls = calls + 2
        ptr = segments.ptr.tolist()
        for p in range(n):
            one, rows = landscape.select(torch.tensor([p], device=x.device)), slice(ptr[p], ptr[p + 1])
            heights = known[:, p].tolist()
            # two minima of one structure, as before and after a hop, differ in where which atom is
            alike = same.points(one, heights[0], minima[0, rows], heights[1], minima[1, rows])
            for side in range(2):
                shift = slice(rows.start + side * len(x), rows.stop + side * len(x))
                height, point = float(found.energy[side * n + p]), found.x[shift]
                for which in range(2):
                    given = minima[which, rows]
                    equal = same.points(one, height, point, heights[which], given)
                    matches[p, side, which] = equal and (not alike or same.places(one, given, point))
    energy, highest, negative = (one.reshape(2, n).T for one in (found.energy, found.fmax, found.negative))
    return Connection(
        found.x.reshape(2, *x.shape),
        energy,
        highest,
        energy.isfinite() & (highest < fmax),
        negative,
        matches,
        calls,
    )


class _Descents:
    """Descents from many points, begun again if they ended on a saddle."""

    def __init__(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        optimizer: Optimizer,
        fmax: float,
        force_calls: int,
        displacement: float,
        verify: bool,
    ) -> None:
        segments = landscape.segments
        result = minimize(landscape, optimizer, x, fmax=fmax, force_calls=force_calls, engine="eager")
        self.x, self.energy, self.fmax, self.calls = result.x, result.energy, result.fmax, result.calls
        self.negative = torch.full_like(result.calls, -1)
        todo = torch.nonzero(torch.isfinite(self.energy + self.fmax)).flatten()
        for push in range(_PUSHES + 1):
            if not verify or not todo.numel():
                return
            part, (inner, rows) = landscape.select(todo), segments.select(todo)
            try:
                modes = lowest_modes(part, self.x[rows], 2)
            except MloptError:  # a force is not finite: it is then not known whether these are minima
                return
            self.calls = self.calls.index_add(0, todo, modes.calls)
            # a descent that was cut short is not pushed about
            self.negative[todo] = modes.count_negative(NEAR_ZERO)
            again = (self.negative[todo] > 0) & (self.fmax[todo] < fmax)
            if push == _PUSHES or not bool(again.any()):
                return
            chosen = torch.nonzero(again).flatten()
            sub, (sizes, sub_rows) = part.select(chosen), inner.select(chosen)
            mode = modes.vectors[0][sub_rows]
            off = sizes.scale(displacement / sizes.longest2(mode).sqrt(), mode)
            moved = sub.manifold.retract(self.x[rows][sub_rows], off)
            result = minimize(sub, optimizer, moved, fmax=fmax, force_calls=force_calls, engine="eager")
            todo = todo[chosen]
            _, rows = segments.select(todo)
            self.x = self.x.index_copy(0, rows, result.x)
            self.energy = self.energy.index_copy(0, todo, result.energy)
            self.fmax = self.fmax.index_copy(0, todo, result.fmax)
            self.calls = self.calls.index_add(0, todo, result.calls)
            todo = todo[torch.isfinite(result.energy + result.fmax)]
