"""Potentials that are a sum over pairs of atoms.

A new one states one formula, in its own reduced units::

    class InversePower(PairPotential):
        units = REDUCED

        def pair(self, r2, first, second):
            energy = r2**-6
            return energy, 12.0 * energy / r2

It then has batched energies, closed-form forces, energies per atom, and derivatives of all of them. One that also
states its range has periodic systems and stress. `mlopt.potentials.sums.local` describes the evaluation, and why a
system's bits are the same in any batch.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from mlopt.core.atoms.neighbours import find_neighbours
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.potentials.sums.local import (
    CHUNK,
    LocalPotential,
    force_of_pairs,
    short_range,
    spoil_lost,
    squares_of_distances,
    virial_of_pairs,
)


class PairPotential(LocalPotential):
    """A sum over pairs. Write `pair`; override `scales` and `reach` where they are not 1 and infinite."""

    def pair(
        self, r2: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return energy phi and weight ``-(dphi/dr) / r`` of pairs, in the units of `scales`.

        r2: squared distances, any shape; inf for an atom with itself, where both results must be 0.
        first, second: int64 atomic numbers of the two atoms, broadcastable with ``r2``.

        Do not change the arguments in place. The result must not depend on an element's place in ``r2``. So use no
        matrix products, and no `pow` with a fractional exponent, whose bits differ at the end of a tensor.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `pair`")

    def scales(self) -> tuple[float, float]:
        """Return the units of energy and length in which `pair` is written."""
        return 1.0, 1.0

    def reach(self) -> float | None:
        """Return the distance from which on `pair` is zero, in the length of ``pos``; None for infinite range."""
        return None

    def usual_cutoff(self) -> float:
        """Return three lengths of the potential."""
        return 3 * float(self.scales()[1])

    def sums_of_all(
        self, pos: torch.Tensor, z: torch.Tensor, b: int, n: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return row energy (b * n,) and force (b * n, 3), for a few systems (or rows of a large one) at a time."""
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
        """Return sums over all atoms for the atoms ``start:stop`` of each system: (b, rows) and (3, b, rows).

        x: (3, b, n) reduced; z: (b, n).

        One tensor holds all three components. This halves the number of calls, which limits the speed for small
        clusters. The Gram matrix would be cheaper still, but its bits depend on the batch.
        """
        difference = x[:, :, start:stop, None] - x[:, :, None, :]
        r2 = squares_of_distances(difference, start)
        energy, weight = self.pair(r2, z[:, start:stop, None], z[:, None, :])
        if difference.requires_grad or weight.requires_grad:
            force = difference * weight
        else:
            force = difference.mul_(weight)
        return energy.sum(-1), force.sum(-1)

    def sums_of_near(
        self, systems: Systems, stress: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return row energy (n_atoms,), force (n_atoms, 3) and dE/dstrain (n_systems, 3, 3).

        Each pair of the list counts half for each of its atoms.
        """
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
        row_energy = zero.index_add(0, first, energy).index_add(0, second, energy)
        pull = difference * weight
        force = force_of_pairs(zero, first, second, pull)
        virial = scale * virial_of_pairs(systems, first, pull, difference) if stress else None
        row_energy, force = (0.5 * scale) * row_energy, (scale / length) * force
        return spoil_lost(systems, pairs, row_energy, force, virial)


class CutPairPotential(PairPotential):
    """A pair potential of infinite range that can be cut. Write `uncut`, as `PairPotential.pair`.

    With the cutoff c, pairs beyond c do not count. Closer pairs count as

    - ``shift: none``: phi(r), with a jump at c: for comparing numbers, not for minimising;
    - ``shift: energy``: phi(r) - phi(c): continuous, with a jump of the force;
    - ``shift: force``: phi(r) - phi(c) - (r - c) phi'(c): continuous with a continuous force.
    """

    cutoff: float | None = setting(
        None,
        "distance from which pairs do not count, in the length of the positions, as r0; needed for "
        "periodic systems",
        unit="length",
        gt=0,
    )
    shift: Literal["none", "energy", "force"] = setting(
        "energy", "none, energy or force: the highest quantity that is continuous at the cutoff"
    )

    @model_validator(mode="after")
    def _bonds_count(self) -> Self:
        least = float(self.scales()[1])
        if self.cutoff is not None and self.cutoff <= least:
            raise ValueError(short_range("cutoff", self.cutoff, "r0", least, self.usual_cutoff()))
        return self

    def uncut(
        self, r2: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `pair` without a cutoff."""
        raise NotImplementedError(f"{type(self).__name__} must define `uncut`")

    def reach(self) -> float | None:
        return self.cutoff

    def pair(
        self, r2: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `uncut`, cut and shifted."""
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
