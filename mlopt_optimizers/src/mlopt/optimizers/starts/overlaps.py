"""Push overlapping atoms apart, as soft spheres."""

from __future__ import annotations

from mlopt.core.atoms.systems import Systems
from mlopt.core.geometry.minimum_image import MinimumImage
from mlopt.core.lazy import torch

#: pairs treated at once: their tensors then stay in the processor's cache
_CHUNK = 32_768
#: largest displacement of an atom in one step, in diameters: crowded boxes must spread, not explode
_MAX_STEP = 0.1


def separate(
    systems: Systems, pos: torch.Tensor, diameter: torch.Tensor, *, steps: int, step: float
) -> torch.Tensor:
    """Return positions (n_atoms, 3) after gradient descent from ``pos`` on a repulsion of overlapping atoms.

    The energy is ``sum (1 - r/d_ij)^2 / 2`` over overlapping pairs, where d_ij is the mean of both diameters. Periodic
    directions take the nearest image. Fixed atoms push others, and do not move.

    diameter: (n_atoms,). step: in squared mean diameters of the system.
    """
    segments, out = systems.segments, pos.clone()
    mean = segments.rows_of(segments.sum(diameter) / segments.counts.clamp(min=1))
    for size, problems, rows in segments.buckets:
        if size < 2:
            continue
        per_chunk = max(1, _CHUNK // size**2)
        for some, own in zip(
            torch.split(problems, per_chunk), torch.split(rows, per_chunk * size), strict=True
        ):
            unit = mean[own]
            cell = systems.cell[some].to(pos.dtype) / unit.reshape(-1, size)[:, 0, None, None]
            moved = _relax(
                (pos[own] / unit[:, None]).reshape(-1, size, 3),
                (diameter[own] / unit).reshape(-1, size),
                cell if bool(systems.pbc[some].any()) else None,
                systems.pbc[some],
                systems.fixed[own].reshape(-1, size),
                steps,
                step,
            )
            out[own] = moved.reshape(-1, 3) * unit[:, None]
    return out


def _relax(
    pos: torch.Tensor,
    diameter: torch.Tensor,
    cell: torch.Tensor | None,
    pbc: torch.Tensor,
    fixed: torch.Tensor,
    steps: int,
    step: float,
) -> torch.Tensor:
    """Return positions (p, size, 3) after the descent of p systems of one size.

    pos: (p, size, 3). diameter, fixed: (p, size). cell: (p, 3, 3). pbc: (p, 3).
    """
    x = pos.movedim(-1, 0).contiguous()  # (3, p, size): component by component is what vectorises
    touch = (0.5 * (diameter[:, :, None] + diameter[:, None, :])).reciprocal_()
    free = (~fixed).to(x.dtype)
    image = None if cell is None else MinimumImage.of(cell, pbc).within(diameter.amax(-1))
    for count in range(steps):
        delta = x[..., :, None] - x[..., None, :]
        if image is not None:
            delta = image.shortest(delta.flatten(2)).view_as(delta)
        square = delta * delta
        r2 = square[0].add_(square[1]).add_(square[2])
        r2.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        # -dE/dr / r = (1/r - 1/d) / d where r < d; two atoms on one spot have no direction and feel nothing
        weight = r2.clamp_(min=1e-24).sqrt_().reciprocal_().sub_(touch).clamp_(min=0.0).mul_(touch)
        force = delta.mul_(weight).sum(-1)
        if count % 16 == 0 and not bool(force.any()):
            break  # all further steps would be zero as well: nothing that depends on the batch is lost
        length = (force[0] * force[0] + force[1] * force[1] + force[2] * force[2]).sqrt_()
        x += force * (_MAX_STEP / length.clamp_(min=_MAX_STEP / step) * free)
    return x.movedim(0, -1)
