"""Cut-outs: the surroundings of one atom as a small structure of their own, to label instead of a large one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlopt.core.atoms.neighbours import find_neighbours
from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.template import Template
from mlopt.core.geometry.lattice import complete, reciprocal
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin, setting

#: steps in which the gap between a box and its images is widened
_STEPS = 20
#: distances that are equal up to rounding
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Piece:
    """A structure that was cut out of a larger one.

    structure: a batch of one.
    core (n_atoms,) bool: atoms whose neighbourhoods are those of the larger structure.
    rows (n_atoms,): the index of each atom in the larger structure.
    centre: the place of the atom in the middle.
    """

    structure: Systems
    core: torch.Tensor
    rows: torch.Tensor
    centre: int


class CutOut(Plugin):
    """The surroundings of the atom with the largest grade, which are labelled instead of a large structure.

    A cluster has all atoms within ``radius``, periodic images included, in empty space. A periodic piece is a box with
    the angles of the cell, whose faces are ``radius`` away from the atom. A direction of the cell that is not wider
    stays whole. Each of the others is lengthened by a gap. It is the smallest one with which no two species come closer
    than in the large structure. Directions without periodicity keep none.
    """

    radius: float = setting(
        8.0,
        "around the atom with the largest grade; at least the reach of the potential",
        unit="angstrom",
        gt=0,
    )
    form: Literal["periodic", "cluster"] = setting(
        "periodic", "a small periodic cell, or a cluster in empty space"
    )
    vacuum: float = setting(6.0, "empty space on each side of a cluster", unit="angstrom", gt=0)

    def of(self, system: Systems, atom: int, reach: float) -> Piece | None:
        """Return the surroundings of an atom of ``system``, a batch of one; None where they have as many atoms.

        Constraints, masses and columns go with the atoms.

        reach: see `FittablePotential.reach`; it is at most ``radius``.
        """
        vectors = complete(system.cell, system.pbc)[0]
        # along the normal of each pair of vectors, 1 over the width of the cell
        dual = reciprocal(vectors[None])[0]
        width = 1.0 / torch.linalg.vector_norm(dual, dim=-1)
        share = _products(system.pos - system.pos[atom], dual.T)
        share = torch.where(system.pbc[0], share - share.round(), share)
        if self.form == "cluster":
            return self._cluster(system, atom, share, vectors, width, reach)
        return self._box(system, atom, share, vectors, width, reach)

    def _cluster(
        self,
        system: Systems,
        atom: int,
        share: torch.Tensor,
        vectors: torch.Tensor,
        width: torch.Tensor,
        reach: float,
    ) -> Piece | None:
        turns = torch.where(system.pbc[0], (self.radius / width + 0.5).floor(), torch.zeros_like(width))
        ranges = [torch.arange(-one, one + 1.0, dtype=share.dtype) for one in turns.tolist()]
        images = torch.cartesian_prod(*ranges)
        away = _products(share + images[:, None], vectors)  # (images, atoms, 3)
        image, rows = torch.nonzero(_length(away) <= self.radius, as_tuple=True)
        if len(rows) >= len(system.pos):
            return None
        away = away[image, rows]
        centre = int(_length(away).argmin())
        low, high = away.amin(0), away.amax(0)
        cell = torch.diag(high - low + 2.0 * self.vacuum)
        return self._piece(system, rows, away, away - low + self.vacuum, cell, [False] * 3, centre, reach)

    def _box(
        self,
        system: Systems,
        atom: int,
        share: torch.Tensor,
        vectors: torch.Tensor,
        width: torch.Tensor,
        reach: float,
    ) -> Piece | None:
        periodic = system.pbc[0]
        closest, far = _closest(system, reach)
        cut = ~periodic | (width > 2.0 * self.radius + far)
        inside = ((share * width).abs() <= self.radius) | ~cut
        rows = torch.nonzero(inside.all(-1)).flatten()
        if len(rows) >= len(system.pos):
            return None
        away = _products(share[rows], vectors)
        found: Piece | None = None
        shrinks = (cut & periodic)[:, None]
        for step in range(_STEPS + 1):
            edge = (2.0 * self.radius + far * step / _STEPS) / width
            cell = torch.where(shrinks, vectors * edge[:, None], system.cell[0])
            centre = int((rows == atom).nonzero())
            pos = system.pos[atom] + away
            found = self._piece(system, rows, away, pos, cell, periodic.tolist(), centre, reach)
            if not bool(shrinks.any()) or _apart(found.structure, closest, far):
                break
        return found

    def _piece(
        self,
        system: Systems,
        rows: torch.Tensor,
        away: torch.Tensor,
        pos: torch.Tensor,
        cell: torch.Tensor,
        pbc: list[bool],
        centre: int,
        reach: float,
    ) -> Piece:
        """Return the structure of some atoms; ``away (n, 3)`` leads to them from the atom in the middle."""
        worn, given = system.template_of(0), system.given_masses
        dressed = (
            None
            if worn is None
            else Template({k: v[rows.numpy()] for k, v in worn.arrays.items()}, worn.info)
        )
        structure = Systems(
            pos,
            system.z[rows],
            torch.tensor([0, len(rows)]),
            cell[None].clone(),
            torch.tensor([pbc]),
            system.fixed[rows],
            None if given is None else given[rows],
            None if dressed is None else torch.zeros(1, dtype=torch.int64),
            () if dressed is None else (dressed,),
        )
        core = _length(away) + reach <= self.radius * (1.0 + _ROUNDING)
        return Piece(structure, core, rows, centre)


def _products(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """``rows @ matrix`` with the same bits in any batch."""
    x, y, z = (rows[..., k, None] * matrix[k] for k in range(3))
    return x + y + z


def _length(vectors: torch.Tensor) -> torch.Tensor:
    x, y, z = vectors.unbind(-1)
    return (x * x + y * y + z * z).sqrt()


def _closest(system: Systems, reach: float) -> tuple[torch.Tensor, float]:
    """Return the shortest distance of each pair of atomic numbers (n, n), and the largest of these.

    Pairs that never come within ``reach`` have the largest distance of the others, or ``reach``.
    """
    pairs = find_neighbours(system, reach)
    first, second = system.z[pairs.first], system.z[pairs.second]
    distance = _length(pairs.differences(system).T)
    n = int(system.z.max()) + 1
    found = distance.new_full((n * n,), torch.inf)
    for one in (first * n + second, second * n + first):
        found = found.scatter_reduce(0, one, distance, "amin")
    known = found[torch.isfinite(found)]
    far = float(known.max()) if known.numel() else reach
    return torch.where(torch.isfinite(found), found, far).reshape(n, n), far


def _apart(piece: Systems, closest: torch.Tensor, far: float) -> bool:
    """Return whether no two atoms are closer than they may be."""
    pairs = find_neighbours(piece, far)
    least = closest[piece.z[pairs.first], piece.z[pairs.second]]
    return bool((_length(pairs.differences(piece).T) >= least * (1.0 - _ROUNDING)).all())
