"""The basis of a moment tensor potential: table, radial functions, and their values for a batch of atoms."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlopt.core.atoms.systems import Systems
from mlopt.core.kernels.kernel import PotentialKernel
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.potential import per_volume
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import Design
from mlopt.potentials.fitted.mtp import assembly, evaluation
from mlopt.potentials.fitted.mtp.radial import RadialSet
from mlopt.potentials.fitted.mtp.repulsion import Repulsion
from mlopt.potentials.fitted.mtp.table import Table
from mlopt.potentials.fitted.neighbourhoods import Neighbourhoods, arrays, gather
from mlopt.potentials.fitted.species import places
from mlopt.potentials.fitted.threads import chunks, in_threads
from mlopt.potentials.kernels.mtp import mtp_kernel

#: atoms that one thread takes at a time
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Basis:
    """A table with its radial functions, for some species.

    species: atomic numbers, in the order in which coefficients are kept.
    sets: radial functions, each set with its own cutoff.
    set_of, place_of (n_radial,): the set, and the place in it, of each radial function of the table.
    repulsion: a part of the energy without coefficients.
    """

    table: Table
    species: tuple[int, ...]
    sets: tuple[RadialSet, ...]
    set_of: NDArray[np.int64]
    place_of: NDArray[np.int64]
    repulsion: Repulsion | None = None

    @property
    def n_scalars(self) -> int:
        """Number of basis functions for one species of the centre."""
        return len(self.table.scalars)

    @property
    def n_parameters(self) -> int:
        """Number of coefficients: for each species a constant, and for each a coefficient of every scalar."""
        return len(self.species) * (1 + self.n_scalars)

    @property
    def cutoff(self) -> float:
        """The largest cutoff."""
        return max(one.cutoff for one in self.sets)

    @functools.cached_property
    def _arrays(self) -> tuple[Any, ...]:
        """What compiled functions take of the radial functions."""
        functions = max(one.n_functions for one in self.sets)
        degrees = max(one.n_chebyshev for one in self.sets)
        k = len(self.species)
        radial = np.zeros((len(self.sets), k, k, functions, degrees))
        for index, one in enumerate(self.sets):
            radial[index, :, :, : one.n_functions, : one.n_chebyshev] = one.array
        shortest = np.array([one.shortest for one in self.sets])
        cutoff = np.array([one.cutoff for one in self.sets])
        floor = np.array([(one.floor, one.soft) for one in self.sets])
        return shortest, cutoff, floor, radial, self.set_of, self.place_of

    @functools.cached_property
    def _products(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Where the two factors and the product of each are (n, 3), and what it is multiplied with (n,)."""
        times = self.table.times
        return np.ascontiguousarray(times[:, [0, 1, 3]]), times[:, 2].astype(np.float64)

    @functools.cached_property
    def _derivatives(self) -> assembly.Derivatives:
        return _derivatives(self.table)

    @functools.cached_property
    def _monomials(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Exponents of all monomials, the place of the one with a power less, and which each sum takes."""
        wanted = {tuple(row) for row in self.table.basic[:, 1:].tolist()}
        todo = list(wanted)
        while todo:
            one = todo.pop()
            for axis in range(3):
                if one[axis]:
                    less = tuple(power - (axis == c) for c, power in enumerate(one))
                    if less not in wanted:
                        wanted.add(less)
                        todo.append(less)
        ordered = sorted(wanted | {(0, 0, 0)}, key=lambda one: (sum(one), one))
        place = {one: index for index, one in enumerate(ordered)}
        lower = np.full((len(ordered), 3), -1, dtype=np.int64)
        for index, one in enumerate(ordered):
            for axis in range(3):
                if one[axis]:
                    lower[index, axis] = place[tuple(power - (axis == c) for c, power in enumerate(one))]
        of_basic = np.array([place[tuple(row)] for row in self.table.basic[:, 1:].tolist()], dtype=np.int64)
        return np.array(ordered, dtype=np.int64), lower, of_basic

    def kinds(self, systems: Systems) -> torch.Tensor:
        """Return the place of each atom's species: (n_atoms,) int64."""
        return places(self.species, systems)

    def values(self, systems: Systems) -> tuple[torch.Tensor, torch.Tensor]:
        """Return basis functions (n_atoms, n_scalars) and repulsion (n_atoms,), differentiable."""
        near = Neighbourhoods.of(systems, self.cutoff)
        kind = self.kinds(systems)
        r = torch.linalg.vector_norm(near.vector, dim=-1)
        unit = near.vector / r[:, None]
        centre, other = kind[near.centre], kind[near.other]
        parts = [one.values(r, centre, other) for one in self.sets]
        radial = [parts[s][:, p] for s, p in zip(self.set_of.tolist(), self.place_of.tolist(), strict=True)]
        monomials = self.powers(unit)
        n_atoms, like = len(systems.pos), systems.pos
        columns = [radial[m] * monomials[a, b, c] for m, a, b, c in self.table.basic.tolist()]
        sums = like.new_zeros(len(columns), n_atoms).index_add(1, near.centre, torch.stack(columns))
        found = self.scalars_of(sums)
        lost = systems.segments.rows_of(near.lost)
        fixed = like.new_zeros(n_atoms)
        if self.repulsion is not None:
            close = torch.nonzero(r < self.repulsion.outer).flatten()
            pairs = self.repulsion.energies(r[close], centre[close], other[close])
            fixed = fixed.index_add(0, near.centre[close], 0.5 * pairs)
        return (found.masked_fill(lost[:, None], torch.nan) if bool(lost.any()) else found), fixed

    def scalars_of(self, sums: torch.Tensor) -> torch.Tensor:
        """Return basis functions (n_atoms, n_scalars) of sums over neighbours (n_basic, n_atoms), differentiable."""
        value = torch.cat([sums, sums.new_zeros(self.table.n_values - len(sums), sums.shape[1])])
        for level in self.table.levels:
            i, j, factor, k = (torch.as_tensor(column, device=sums.device) for column in level.T.copy())
            value = value.index_add(0, k, factor.to(sums)[:, None] * value[i] * value[j])
        return value[torch.as_tensor(self.table.scalars, device=sums.device)].T

    def powers(self, unit: torch.Tensor) -> dict[tuple[int, int, int], torch.Tensor]:
        """Return all monomials of the components of unit vectors that the table asks for, by exponents."""
        monomial, lower, _ = self._monomials
        found = [torch.ones_like(unit[:, 0])]
        for less in lower[1:].tolist():
            axis = next(c for c in range(3) if less[c] >= 0)
            found.append(unit[:, axis] * found[less[axis]])
        return {tuple(one): part for one, part in zip(monomial.tolist(), found, strict=True)}

    def evaluate(self, systems: Systems, theta: torch.Tensor, stress: bool) -> Evaluation:
        """Return energy, force, row energies and stress by compiled functions, without a graph.

        theta: (p,), or (n_systems, p).
        """
        return self.evaluate_rows(systems, theta, stress, False)[0]

    def evaluate_rows(
        self, systems: Systems, theta: torch.Tensor, stress: bool, rows: bool = True
    ) -> tuple[Evaluation, torch.Tensor]:
        """Return `evaluate`, and for ``rows`` the derivatives of atoms' energies in the parameters (n_atoms, p)."""
        gathered = gather()
        near, kind, system = self._prepared(systems)
        n_atoms, k = len(systems.pos), len(self.species)
        given = theta.detach().to("cpu", torch.float64)
        own = given.ndim == 2
        given = given.reshape(-1, self.n_parameters)
        table = torch.cat([given[:, :k, None], given[:, k:].reshape(len(given), k, -1)], -1).reshape(
            len(given) * k, -1
        )
        scalars = np.zeros((n_atoms, self.n_scalars if rows else 0))
        theta_of = kind + (system * k if own else 0)
        energy, pull = np.zeros(n_atoms), np.zeros((len(near[1]), 3))
        self._pulls(near, kind, table.numpy(), theta_of, energy, pull, scalars)
        self._repel(near, kind, energy, pull)
        force, virial = np.zeros((n_atoms, 3)), np.zeros((len(systems), 3, 3))
        gathered(*near[:2], system, near[2], pull, force, virial)
        like = systems.pos
        row_energy = torch.from_numpy(energy).to(like)
        force_there, tensor = torch.from_numpy(force).to(like), None
        lost = near[3]
        if bool(lost.any()):
            row_energy = row_energy.masked_fill(systems.segments.rows_of(lost), torch.nan)
            force_there = force_there.masked_fill(systems.segments.rows_of(lost)[:, None], torch.nan)
        if stress:
            tensor = per_volume(torch.from_numpy(virial).to(like), systems)
        found = Evaluation(systems.segments.sum(row_energy), force_there, row_energy, tensor)
        return found, self._rows_of(scalars, kind, systems, lost) if rows else found.energy.new_zeros(0)

    def rows(self, systems: Systems) -> torch.Tensor:
        """Return the derivatives of atoms' energies with respect to the parameters (n_atoms, p), without a graph."""
        near, kind, _ = self._prepared(systems)
        n_atoms, k = len(systems.pos), len(self.species)
        scalars = np.zeros((n_atoms, self.n_scalars))
        table, no_pull = np.zeros((k, 1 + self.n_scalars)), np.zeros((0, 3))
        self._pulls(near, kind, table, kind, np.zeros(n_atoms), no_pull, scalars)
        return self._rows_of(scalars, kind, systems, near[3])

    def _pulls(
        self,
        near: tuple[Any, ...],
        kind: NDArray[np.int64],
        table: NDArray[np.float64],
        theta_of: NDArray[np.int64],
        energy: NDArray[np.float64],
        pull: NDArray[np.float64],
        scalars: NDArray[np.float64],
    ) -> None:
        """Fill the last three; see `evaluation.pulls`."""
        pulls = evaluation.compiled()
        monomial, lower, of_basic = self._monomials
        times, factors = self._products

        def work(first: int, last: int) -> None:
            pulls(
                first, last, *near[:2], kind, near[2], *self._arrays, self.table.basic, monomial, of_basic, lower,
                times, factors, self.table.scalars, table, theta_of, self.table.n_values, energy, pull, scalars,
            )  # fmt: skip

        in_threads(work, chunks(len(energy), _CHUNK))

    def _rows_of(
        self, scalars: NDArray[np.float64], kind: NDArray[np.int64], systems: Systems, lost: torch.Tensor
    ) -> torch.Tensor:
        """Basis functions (n_atoms, n_scalars) in the columns of each centre's species, with constants (n_atoms, p)."""
        n_atoms, k = len(scalars), len(self.species)
        whole = np.zeros((n_atoms, self.n_parameters))
        if k == 1:
            whole[:, 0], whole[:, 1:] = 1.0, scalars
        else:
            atoms = np.arange(n_atoms)
            whole[atoms, kind] = 1.0
            whole[:, k:].reshape(n_atoms, k, -1)[atoms, kind] = scalars
        if bool(lost.any()):
            whole[systems.segments.rows_of(lost).cpu().numpy()] = np.nan
        return torch.from_numpy(whole)

    def _repel(
        self,
        near: tuple[Any, ...],
        kind: NDArray[np.int64],
        energy: NDArray[np.float64],
        pull: NDArray[np.float64],
    ) -> bool:
        """Add the repulsion to the energy of each atom and the pull of each pair; say whether there is any."""
        if self.repulsion is None:
            return False
        begin, other, vector = near[:3]
        x, y, z = vector.T
        squares = x * x + y * y + z * z
        close = np.flatnonzero(squares < self.repulsion.outer**2)
        if not len(close):
            return False
        centre, r = np.repeat(np.arange(len(begin) - 1), np.diff(begin))[close], np.sqrt(squares[close])
        value, slope = self.repulsion.of_pairs(r, kind[centre], kind[other[close]])
        np.add.at(energy, centre, 0.5 * value)
        pull[close] += (0.5 * slope / r)[:, None] * vector[close]
        return True

    def _prepared(self, systems: Systems) -> tuple[tuple[Any, ...], NDArray[np.int64], NDArray[np.int64]]:
        """Pairs (begin, other, vector, lost), species and system of each atom, as arrays."""
        pairs = arrays(systems, self.cutoff)
        return pairs, self.kinds(systems).cpu().numpy(), systems.batch.cpu().numpy()

    def kernel(self, theta: torch.Tensor) -> PotentialKernel:
        """Return the same for the fused engine, with coefficients (p,) or (n_systems, p)."""
        table, k = self.table, len(self.species)
        shortest, cutoff, floor, radial, set_of, place_of = self._arrays
        charge, rate = self.repulsion.pairs() if self.repulsion else np.zeros((2, k, k))
        ends = [self.repulsion.inner, self.repulsion.outer] if self.repulsion else [0.0, 0.0]
        exponents, lower, of_basic = self._monomials
        sizes = {
            "KINDS": k,
            "SETS": len(self.sets),
            "FUNCTIONS": radial.shape[3],
            "DEGREES": radial.shape[4],
            "RADIAL": len(set_of),
            "MONOMIALS": len(exponents),
            "SUMS": table.n_basic,
            "VALUES": table.n_values,
            "PRODUCTS": len(table.times),
            "SCALARS": self.n_scalars,
        }
        parts = {
            "AT_RADIAL": radial.ravel(),
            "AT_ENDS": np.column_stack([shortest, cutoff, floor]).ravel(),
            "AT_REPULSION": np.concatenate([ends, np.stack([charge, rate], -1).ravel()]),
            "AT_PLACES": np.stack([set_of, place_of], 1).ravel(),
            "AT_SUMS": np.stack([table.basic[:, 0], of_basic], 1).ravel(),
            "AT_POWERS": np.concatenate([lower, exponents], 1).ravel(),
            "AT_PRODUCTS": table.times[:, [0, 1, 3, 2]].ravel(),
            "AT_SCALARS": table.scalars,
        }

        def with_coefficients(others: list[float]) -> torch.Tensor:
            rows = theta.detach().reshape(-1, self.n_parameters)
            own = torch.cat([rows[:, :k, None], rows[:, k:].reshape(len(rows), k, -1)], -1).flatten(1)
            shared = rows.new_tensor(others).expand(len(rows), -1)
            both = torch.cat([own, shared], 1)
            return both if theta.ndim == 2 else both[0]

        return mtp_kernel(
            species=self.species,
            cutoff=self.cutoff,
            # it decides sizes that are compiled in; on a coarse grid few potentials need a kernel of their own
            length=2.0 ** (math.floor(2.0 * math.log2(1.1 * min(one.shortest for one in self.sets))) / 2.0),
            sizes=sizes,
            parts={name: part.tolist() for name, part in parts.items()},
            own_weights=with_coefficients,
        )

    def design(self, systems: Systems, force: bool, stress: bool, row_energy: bool) -> Design:
        """Return the rows that are linear in the coefficients; see `FittablePotential.design`."""
        near, kind, system = self._prepared(systems)
        n, n_atoms, k, scalars = len(systems), len(systems.pos), len(self.species), self.n_scalars
        p = k * scalars
        energy = np.zeros((k + p, n))
        rows = np.zeros((p, n_atoms if row_energy else 0))
        forces = np.zeros((k + p, 3 * n_atoms if force or stress else 0))
        virial = np.zeros((k + p, n if stress else 0, 9))
        compiled, sparse = assembly.compiled(), self._derivatives
        np.add.at(energy, (kind, system), 1.0)

        def work(first: int, last: int) -> None:
            compiled(
                first, last, *near[:2], system, kind, near[2], *self._arrays, self.table.basic, self.table.times,
                self._products[1], self.table.scalars, sparse.start, sparse.basic, sparse.target, sparse.source,
                sparse.other, sparse.factor, self.table.n_values, force or stress, energy[k:], rows, forces[k:],
                virial[k:],
            )  # fmt: skip

        # a structure is one thread's: what its atoms add to each other stays in one order
        ptr = systems.ptr.tolist()
        in_threads(work, [(ptr[first], ptr[stop]) for first, stop in systems.segments.blocks(_CHUNK)])
        volume = systems.volume.to("cpu", torch.float64)
        told = torch.from_numpy(virial).permute(1, 2, 0).reshape(-1, 3, 3, k + p) if stress else None
        if told is not None:
            told = told / torch.where(volume > 0, volume, torch.nan)[:, None, None, None]
        of_rows = None
        if row_energy:
            constants = torch.nn.functional.one_hot(torch.from_numpy(kind), k).double()
            of_rows = torch.cat([constants, torch.from_numpy(rows).T], 1)
        return Design(
            torch.from_numpy(energy).T,
            torch.from_numpy(forces).T.reshape(n_atoms, 3, k + p) if force else None,
            told,
            of_rows,
            *self._fixed(systems, near, kind, system),
        )

    def _fixed(
        self, systems: Systems, near: tuple[Any, ...], kind: NDArray[np.int64], system: NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | tuple[()]:
        """Energies, forces and stresses of the repulsion; nothing where no atoms are so close."""
        energy, pull = np.zeros(len(systems.pos)), np.zeros((len(near[1]), 3))
        if not self._repel(near, kind, energy, pull):
            return ()
        force, virial = np.zeros((len(energy), 3)), np.zeros((len(systems), 3, 3))
        gather()(*near[:2], system, near[2], pull, force, virial)
        whole = systems.segments.sum(torch.from_numpy(energy)[:, None])
        told = per_volume(torch.from_numpy(virial), systems)
        return whole, torch.from_numpy(force), told


@functools.lru_cache(maxsize=8)
def _derivatives(table: Table) -> assembly.Derivatives:
    """Return the pattern of a table, which bases with other radial functions share."""
    return assembly.Derivatives.of(table)
