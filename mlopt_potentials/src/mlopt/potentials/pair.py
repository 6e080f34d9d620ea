"""Potentials that are a sum over pairs of atoms.

A new one states one formula, in its own reduced units::

    class InversePower(PairPotential):
        units = "reduced"

        def pair(self, r2, first, second):
            energy = r2**-6
            return energy, 12.0 * energy / r2

and has batched energies, closed-form forces, energies per atom, and derivatives of all of them; one that also states
its range has periodic systems and stress. Free clusters take all pairs at once; periodic systems, and large ones
where the range is finite, take a neighbour list.

Invariant: on the CPU a system's result is bit for bit the same alone and in any batch. Arithmetic done element by
element and sums along rows keep this; matrix products do not, and are not used. (A system of more than 32768 atoms
may differ in the last bit, where torch splits the sum over its atoms among threads.)
"""

from __future__ import annotations

from typing import Literal

from mlopt.core.errors import InputError
from mlopt.core.evaluation import Evaluation
from mlopt.core.lazy import torch
from mlopt.core.neighbours import find_neighbours
from mlopt.core.plugin import setting
from mlopt.core.potential import Potential
from mlopt.core.systems import Systems

#: pairs (n * n for n atoms) treated at once: they and what is computed from them stay in the cache, and they are
#: enough to be worth a second thread (torch's grain is 32768 elements)
CHUNK = 98304
#: atoms of a free system from which on a neighbour list beats all pairs, where the range is finite
LISTED_FROM = 300
#: pairs within the range that `check` lets pass in one system; each takes some 300 bytes
MOST_PAIRS = 50_000_000


class PairPotential(Potential):
    """A sum over pairs. Write `pair`; override `scales` and `reach` where they are not 1 and infinite."""

    def pair(
        self, r2: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy phi and weight ``-(dphi/dr) / r`` of pairs at squared distances ``r2``, in the units of `scales`.

        r2: any shape; inf for an atom with itself, where both must be 0 (as any potential that vanishes at infinity).
        first, second: int64 atomic numbers of the two atoms, broadcastable with ``r2``.

        Do not change the arguments in place, and write nothing that depends on an element's place in ``r2``: no
        matrix products, and no `pow` with a fractional exponent, whose bits differ at the end of a tensor.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `pair`")

    def scales(self) -> tuple[float, float]:
        """Energy and length in whose units `pair` is written."""
        return 1.0, 1.0

    def reach(self) -> float | None:
        """Distance from which on `pair` is zero, in the length of ``pos``; None where it is never."""
        return None

    def energy(self, systems: Systems) -> torch.Tensor:
        """Energy of each system: (n_systems,)."""
        return self.evaluate(systems).energy

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        """Energy, force, the energy of each atom (half of each of its pairs), and stress where asked for.

        Stress is NaN for systems that are not periodic.
        """
        listed = self._listed(systems)
        tensor = systems.cell.new_full((len(systems), 3, 3), float("nan")) if stress else None
        if listed is False:
            row_energy, force = self._all_pairs(systems)
        elif listed is True:
            row_energy, force, virial = self._neighbours(systems, stress)
            tensor = virial
        else:
            near, free = torch.nonzero(listed).flatten(), torch.nonzero(~listed).flatten()
            e_near, f_near, virial = self._neighbours(systems.select(near), stress)
            e_free, f_free = self._all_pairs(systems.select(free))
            order = torch.cat([systems.segments.select(part)[1] for part in (near, free)]).argsort()
            row_energy = torch.cat([e_near, e_free])[order]
            force = torch.cat([f_near, f_free])[order]
            if virial is not None and tensor is not None:
                tensor = tensor.index_put((near,), virial)
        if tensor is not None:
            volume = torch.where(systems.pbc.any(-1), systems.volume, float("nan"))
            tensor = tensor / volume[:, None, None]
        return Evaluation(systems.segments.sum(row_energy), force, row_energy, tensor)

    def check(self, systems: Systems) -> None:
        """Refuse periodic systems where the range is infinite, and more pairs than fit into memory.

        Raises:
            InputError: as said, or an unknown species.
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
        """Which systems take a neighbour list: all (True), none (False), or a mask (n_systems,).

        A property of each system alone, or its bits would depend on the batch.
        """
        reach = self.reach()
        if reach is None:
            if systems.periodic:
                first = int(systems.pbc.any(-1).nonzero()[0])
                raise InputError(
                    f"{type(self).__name__} without a cutoff reaches for ever, but system {first} is periodic. Give "
                    f"a cutoff, such as `cutoff: {3 * float(self.scales()[1]):.3g}`, or remove its periodicity."
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
        """Row energy (n_atoms,) and force (n_atoms, 3) of free systems from all pairs."""
        segments, pos, z = systems.segments, systems.pos, systems.z
        if segments.size is not None:
            return self._all_pairs_uniform(pos, z, len(systems), segments.size)
        if not len(systems):
            return pos.new_zeros(0), torch.zeros_like(pos)
        parts = [
            self._all_pairs_uniform(pos[rows], z[rows], problems.numel(), size)
            for size, problems, rows in segments.buckets
        ]
        order = torch.cat([rows for _, _, rows in segments.buckets]).argsort()
        return torch.cat([part[0] for part in parts])[order], torch.cat([part[1] for part in parts])[order]

    def _all_pairs_uniform(
        self, pos: torch.Tensor, z: torch.Tensor, b: int, n: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for ``b`` systems of ``n`` atoms each, a few systems (or a few rows of a large one) at a time."""
        scale, length = self.scales()
        x = (pos / length).reshape(b, n, 3).permute(2, 0, 1).contiguous()
        z = z.reshape(b, n)
        systems_each = max(1, CHUNK // max(1, n * n))
        rows_each = max(1, min(n, CHUNK // max(1, n)))
        energies, forces = [], []
        for start in range(0, b, systems_each):
            part, kinds = x[:, start : start + systems_each], z[start : start + systems_each]
            blocks = [self._block(part, kinds, row, row + rows_each) for row in range(0, n, rows_each)]
            if blocks:
                energies.append(
                    torch.cat([block[0] for block in blocks], -1) if len(blocks) > 1 else blocks[0][0]
                )
                forces.append(
                    torch.cat([block[1] for block in blocks], -1) if len(blocks) > 1 else blocks[0][1]
                )
        if not energies:
            return pos.new_zeros(0), torch.zeros_like(pos)
        energy = torch.cat(energies) if len(energies) > 1 else energies[0]
        force = torch.cat(forces, 1) if len(forces) > 1 else forces[0]
        return (0.5 * scale) * energy.flatten(), (scale / length) * force.permute(1, 2, 0).contiguous().view(
            b * n, 3
        )

    def _block(
        self, x: torch.Tensor, z: torch.Tensor, start: int, stop: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums over all atoms for the atoms ``start:stop`` of each system.

        x: (3, b, n) reduced; z: (b, n). Returns (b, rows) and (3, b, rows).

        One tensor holds all three components, for that halves the number of calls, which is what small clusters wait
        for; the Gram matrix would be cheaper still, but its bits depend on the batch.
        """
        difference = x[:, :, start:stop, None] - x[:, :, None, :]
        if difference.requires_grad:
            r2 = difference[0] * difference[0]
            for component in difference[1:]:
                r2 = torch.addcmul(r2, component, component)
            own = torch.eye(x.shape[-1], dtype=torch.bool, device=x.device)[start:stop]
            r2 = r2.masked_fill(own, float("inf"))
        else:
            r2 = difference[0] * difference[0]
            for component in difference[1:]:
                r2.addcmul_(component, component)
            r2.diagonal(offset=start, dim1=-2, dim2=-1).fill_(float("inf"))
        energy, weight = self.pair(r2, z[:, start:stop, None], z[:, None, :])
        if difference.requires_grad or weight.requires_grad:
            force = difference * weight
        else:
            force = difference.mul_(weight)
        return energy.sum(-1), force.sum(-1)

    def _neighbours(
        self, systems: Systems, stress: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Row energy, force, and dE/dstrain (n_systems, 3, 3) where asked for, from the neighbour list."""
        scale, length = self.scales()
        reach = self.reach()
        if reach is None:  # unreachable after `_listed`; tells the type checker
            raise InputError(f"{type(self).__name__} needs a cutoff for a neighbour list")
        pairs = find_neighbours(systems, float(reach))
        first, second = pairs.first, pairs.second
        difference = pairs.differences(systems) / length
        square = difference * difference
        energy, weight = self.pair(square[0] + square[1] + square[2], systems.z[first], systems.z[second])
        zero = systems.pos.new_zeros(len(systems.pos))
        # one component at a time: on the CPU, 1-D index_add is a plain loop, fast and in a fixed order
        row_energy = zero.index_add(0, first, energy).index_add(0, second, energy)
        pull = difference * weight
        force = torch.stack(
            [zero.index_add(0, first, part).index_add(0, second, part, alpha=-1) for part in pull.unbind(0)],
            -1,
        )
        virial = None
        if stress:
            owner = systems.batch[first]
            none = systems.cell.new_zeros(len(systems))
            upper = {
                (a, b): none.index_add(0, owner, pull[a] * difference[b], alpha=-1)
                for a in range(3)
                for b in range(a, 3)
            }
            virial = scale * torch.stack(
                [torch.stack([upper[min(a, b), max(a, b)] for b in range(3)], -1) for a in range(3)], -2
            )
        row_energy, force = (0.5 * scale) * row_energy, (scale / length) * force
        if bool(pairs.lost.any()):
            rows = systems.segments.rows_of(pairs.lost)
            row_energy = row_energy.masked_fill(rows, float("nan"))
            force = force.masked_fill(rows[:, None], float("nan"))
            if virial is not None:
                virial = virial.masked_fill(pairs.lost[:, None, None], float("nan"))
        return row_energy, force, virial


class CutPairPotential(PairPotential):
    """A pair potential of infinite range that can be cut. Write `uncut`, as `PairPotential.pair`.

    With the cutoff c, pairs beyond c do not count, and nearer ones count as

    - ``shift: none``: phi(r), with a jump at c: fit for comparing numbers, not for minimising;
    - ``shift: energy``: phi(r) - phi(c): continuous, with a jump of the force;
    - ``shift: force``: phi(r) - phi(c) - (r - c) phi'(c): continuous with a continuous force.
    """

    cutoff: float | None = setting(
        None,
        "pairs from this distance on do not count; needed for periodic systems",
        unit="length of r0",
        gt=0,
    )
    shift: Literal["none", "energy", "force"] = setting(
        "energy", "what is continuous at the cutoff: nothing, the energy, or also the force"
    )

    def uncut(
        self, r2: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What `pair` is without a cutoff."""
        raise NotImplementedError(f"{type(self).__name__} must define `uncut`")

    def reach(self) -> float | None:
        return self.cutoff

    def pair(
        self, r2: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`uncut`, cut and shifted."""
        energy, weight = self.uncut(r2, first, second)
        if self.cutoff is None:
            return energy, weight
        edge = self.cutoff / self.scales()[1]
        if self.shift != "none":
            edge_energy, edge_weight = self.uncut(torch.full_like(r2[..., :1], edge * edge), first, second)
            energy = energy - edge_energy
            if self.shift == "force":
                r = r2.sqrt()
                energy = energy + edge * edge_weight * (r - edge)
                weight = weight - edge * edge_weight / r
        # not `r2 < edge`: NaN must stay NaN, or a broken system would pass for one without neighbours
        beyond = r2 >= edge * edge
        return torch.where(beyond, 0.0, energy), torch.where(beyond, 0.0, weight)
