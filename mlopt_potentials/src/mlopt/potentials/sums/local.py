"""The base of potentials that sum over the neighbours of each atom.

Free clusters take all pairs at once, in blocks of systems of one size. Periodic systems, and large ones if the range is
finite, use a neighbour list.

Invariant: on the CPU a system's result is bit for bit the same alone and in any batch. Element-wise arithmetic and sums
along rows have this property. Matrix products do not, and are not used. (A system of more than 32768 atoms may differ
in the last bit, where torch splits the sum over its atoms among threads.)
"""

from __future__ import annotations

from mlopt.core.atoms.neighbours import Neighbours
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.potential import Potential, per_volume
from mlopt.core.lazy import torch

#: pairs (n * n for n atoms) treated at once. They and their results stay in the cache, and they are enough to be worth
#: a second thread (torch's grain is 32768 elements)
CHUNK = 98304
#: atoms of a free system from which on a neighbour list beats all pairs, where the range is finite
LISTED_FROM = 300
#: pairs within the range that `check` lets pass in one system; each takes some 300 bytes
MOST_PAIRS = 50_000_000


class LocalPotential(Potential):
    """A potential in which atoms interact with their neighbours.

    Write `reach`, `sums_of_all` and `sums_of_near`; this class makes energies, forces, stress and messages from them.
    """

    def reach(self) -> float | None:
        """Return the distance beyond which atoms do not interact, in the length of ``pos``; None for infinite range."""
        return None

    def usual_cutoff(self) -> float:
        """Return a cutoff to suggest if one is missing, in the length of ``pos``."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `usual_cutoff`, or always have a `reach`"
        )

    def sums_of_all(
        self, pos: torch.Tensor, z: torch.Tensor, b: int, n: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return row energy (b * n,) and force (b * n, 3) of ``b`` free systems of ``n`` atoms each, from all pairs."""
        raise NotImplementedError(f"{type(self).__name__} must define `sums_of_all`")

    def sums_of_near(
        self, systems: Systems, stress: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return row energy, force, and dE/dstrain (n_systems, 3, 3) where asked for, from the neighbour list."""
        raise NotImplementedError(f"{type(self).__name__} must define `sums_of_near`")

    def energy(self, systems: Systems) -> torch.Tensor:
        """Return the energy of each system: (n_systems,)."""
        return self.evaluate(systems).energy

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        """Return energy, force, the energy of each atom, and stress where asked for.

        Stress is NaN for systems without three lattice vectors.
        """
        listed = self._listed(systems)
        virial: torch.Tensor | None = None
        if listed is False:
            row_energy, force = self._all_pairs(systems)
            virial = _virial_of_free(systems, force) if stress else None
        elif listed is True:
            row_energy, force, virial = self.sums_of_near(systems, stress)
        else:
            near, free = torch.nonzero(listed).flatten(), torch.nonzero(~listed).flatten()
            e_near, f_near, v_near = self.sums_of_near(systems.select(near), stress)
            e_free, f_free = self._all_pairs(systems.select(free))
            order = torch.cat([systems.segments.select(part)[1] for part in (near, free)]).argsort()
            row_energy = torch.cat([e_near, e_free])[order]
            force = torch.cat([f_near, f_free])[order]
            if v_near is not None:
                v_free = _virial_of_free(systems.select(free), f_free)
                virial = torch.cat([v_near, v_free])[torch.cat([near, free]).argsort()]
        tensor = None if virial is None else per_volume(virial, systems)
        return Evaluation(systems.segments.sum(row_energy), force, row_energy, tensor)

    def check(self, systems: Systems) -> None:
        """Refuse periodic systems if the range is infinite, and more pairs than fit into memory.

        Raises:
            InputError: one of these, or an unknown species.
        """
        super().check(systems)
        self._listed(systems)
        reach = self.reach()
        if reach is None or not systems.periodic:
            return
        counts = systems.segments.counts
        sphere = 4.18879 * float(reach) ** 3
        pairs = 0.5 * counts * counts * sphere / systems.volume
        pairs = torch.where(systems.pbc.all(-1), pairs, 0.0)
        if bool((pairs > MOST_PAIRS).any()):
            worst = int(pairs.argmax())
            raise InputError(
                f"{type(self).__name__}: system {worst} has {int(counts[worst])} atoms in a cell of volume "
                f"{float(systems.volume[worst]):.3g}, about {float(pairs[worst]):.1e} pairs closer than {reach:.4g}; "
                f"at most {MOST_PAIRS:.0e} fit. Shorten the cutoff, or check the units of the cell."
            )

    def _listed(self, systems: Systems) -> bool | torch.Tensor:
        """Return the systems that use a neighbour list: all (True), none (False), or a mask (n_systems,).

        The choice depends on each system alone; otherwise its bits would depend on the batch.
        """
        reach = self.reach()
        if reach is None:
            if systems.periodic:
                first = int(systems.pbc.any(-1).nonzero()[0])
                raise InputError(
                    f"{type(self).__name__} without a cutoff reaches for ever, but system {first} is periodic. Give "
                    f"a cutoff, such as `cutoff: {self.usual_cutoff():.3g}`, or remove its periodicity."
                )
            return False
        size = systems.segments.size
        if size is not None and not systems.periodic:
            return size >= LISTED_FROM
        mask = systems.pbc.any(-1) | (systems.segments.counts >= LISTED_FROM)
        if bool(mask.all()):
            return len(systems) > 0
        return mask if bool(mask.any()) else False

    def _all_pairs(self, systems: Systems) -> tuple[torch.Tensor, torch.Tensor]:
        """Return row energy (n_atoms,) and force (n_atoms, 3) of free systems from all pairs."""
        segments, pos, z = systems.segments, systems.pos, systems.z
        if segments.size is not None:
            return self.sums_of_all(pos, z, len(systems), segments.size)
        if not len(systems):
            return pos.new_zeros(0), torch.zeros_like(pos)
        parts = [
            self.sums_of_all(pos[rows], z[rows], problems.numel(), size)
            for size, problems, rows in segments.buckets
        ]
        order = torch.cat([rows for _, _, rows in segments.buckets]).argsort()
        return torch.cat([part[0] for part in parts])[order], torch.cat([part[1] for part in parts])[order]


def _virial_of_free(systems: Systems, force: torch.Tensor) -> torch.Tensor:
    """Return dE/dstrain (n_systems, 3, 3) of free systems: minus the sum of position times force.

    It does not depend on the origin, because the net force is zero.
    """
    total = systems.segments.sum
    upper = {(a, b): -total(systems.pos[:, a] * force[:, b]) for a in range(3) for b in range(a, 3)}
    return torch.stack(
        [torch.stack([upper[min(a, b), max(a, b)] for b in range(3)], -1) for a in range(3)], -2
    )


def short_range(name: str, given: float, bond: str, length: float, usual: float) -> str:
    """Return a warning about a range ``given`` as setting ``name`` that is shorter than the bond ``bond``."""
    return (
        f"{name}: {given:g} is not longer than {bond} ({length:.4g}), the distance at which a pair's energy is least, "
        f"so that atoms would not hold together. Both are lengths in the unit of the positions (angstrom for most "
        f"structure files), not multiples of {bond}: take {usual:.4g}, for example"
    )


def squares_of_distances(difference: torch.Tensor, start: int = 0) -> torch.Tensor:
    """Return squared distances (b, rows, n) of ``difference (3, b, rows, n)``; inf for an atom with itself.

    Row ``k`` belongs to atom ``start + k``.
    """
    r2 = difference[0] * difference[0]
    if difference.requires_grad:
        for component in difference[1:]:
            r2 = torch.addcmul(r2, component, component)
        rows, n = r2.shape[-2:]
        own = torch.eye(n, dtype=torch.bool, device=r2.device)[start : start + rows]
        return r2.masked_fill(own, float("inf"))
    for component in difference[1:]:
        r2.addcmul_(component, component)
    r2.diagonal(offset=start, dim1=-2, dim2=-1).fill_(float("inf"))
    return r2


def force_of_pairs(
    zero: torch.Tensor, first: torch.Tensor, second: torch.Tensor, pull: torch.Tensor
) -> torch.Tensor:
    """Return the force (n_atoms, 3) of pairs that pull their first atom by ``pull (3, n_pairs)``, the second opposite.

    It goes one component at a time, because on the CPU 1-D index_add is a plain loop, fast and in a fixed order.
    """
    return torch.stack(
        [zero.index_add(0, first, part).index_add(0, second, part, alpha=-1) for part in pull.unbind(0)],
        -1,
    )


def virial_of_pairs(
    systems: Systems, first: torch.Tensor, pull: torch.Tensor, difference: torch.Tensor
) -> torch.Tensor:
    """Return dE/dstrain (n_systems, 3, 3) of pairs with ``difference (3, n_pairs)`` and force ``pull``."""
    owner = systems.batch[first]
    none = systems.cell.new_zeros(len(systems))
    upper = {
        (a, b): none.index_add(0, owner, pull[a] * difference[b], alpha=-1)
        for a in range(3)
        for b in range(a, 3)
    }
    return torch.stack(
        [torch.stack([upper[min(a, b), max(a, b)] for b in range(3)], -1) for a in range(3)], -2
    )


def spoil_lost(
    systems: Systems,
    pairs: Neighbours,
    row_energy: torch.Tensor,
    force: torch.Tensor,
    virial: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return row energy, force and dE/dstrain with NaN for systems whose neighbours could not be found.

    row_energy: (n_atoms,). force: (n_atoms, 3). virial: (n_systems, 3, 3) or None.
    """
    if not bool(pairs.lost.any()):
        return row_energy, force, virial
    nan, rows = float("nan"), systems.segments.rows_of(pairs.lost)
    if virial is not None:
        virial = virial.masked_fill(pairs.lost[:, None, None], nan)
    return row_energy.masked_fill(rows, nan), force.masked_fill(rows[:, None], nan), virial
