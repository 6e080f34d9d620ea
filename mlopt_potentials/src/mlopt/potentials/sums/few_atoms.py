"""Neighbours in batches of small systems, on their own device, for short-range potentials."""

from __future__ import annotations

from mlopt.core.atoms.neighbours import Neighbours, find_neighbours
from mlopt.core.atoms.systems import Systems
from mlopt.core.geometry.lattice import reciprocal
from mlopt.core.lazy import torch
from mlopt.potentials.sums.local import CHUNK

#: pairs of atoms, times images, of one system from which on a search by cells is faster
MOST = 65536
#: so many cells away, positions have no digits left for the place within the cell
FARTHEST = 2.0**30


def find_pairs(systems: Systems, cutoff: float) -> Neighbours:
    """Return all pairs closer than ``cutoff``: those of `find_neighbours`, each once, in another order.

    In a small system, free or periodic along all directions, every pair of atoms is tried with every image within
    reach. Other systems are left to `find_neighbours`. The order of a system's pairs depends on that system alone.
    """
    pos, cell = systems.pos.detach().double(), systems.cell.detach().double()
    counts, batch = systems.segments.counts, systems.batch
    whole = systems.pbc.all(-1)
    dual = reciprocal(cell) if systems.periodic else torch.zeros_like(cell)
    square = dual * dual
    images = torch.floor(cutoff * (square[..., 0] + square[..., 1] + square[..., 2]).sqrt() + (0.5 + 1e-9))
    images = images.masked_fill(~whole[:, None], 0.0)
    number = 2.0 * images + 1.0
    tried = number[:, 0] * number[:, 1] * number[:, 2] * counts * counts
    # a cell without volume has NaN or infinity here
    small = (whole | ~systems.pbc.any(-1)) & (tried <= MOST)

    # positions in units of the cell where there is one
    at = pos.T.contiguous()
    if systems.periodic:
        rows = dual[batch].permute(2, 1, 0)  # (3 components, 3 vectors, n_atoms)
        within = at[0] * rows[0] + at[1] * rows[1] + at[2] * rows[2]
        at = torch.where(whole[batch], within, at)
    strange = ~(at.abs() <= FARTHEST).all(0)
    lost = torch.zeros(len(systems), dtype=torch.int64, device=pos.device)
    lost = (lost.index_add(0, batch, strange.long()) > 0) & small

    searched = torch.nonzero(small & ~lost).flatten()
    key = torch.cat([counts[:, None], whole[:, None].long(), images.nan_to_num(0.0).long()], -1)[searched]
    found = []
    alike = bool((key == key[:1]).all())  # the usual case, and `unique` is slow
    kinds, kind = (key[:1], None) if alike else torch.unique(key, dim=0, return_inverse=True)
    for index, (n, periodic, *m) in enumerate(kinds.tolist()):
        group = searched if kind is None else searched[kind == index]
        metric = _metric(cell[group]) if periodic else None
        found += _tried(at, systems.ptr[group], n, m, metric, cutoff)
    other = torch.nonzero(~small).flatten()
    if len(other):
        part = find_neighbours(systems.select(other), cutoff)
        rows = systems.segments.select(other)[1]
        found.append((rows[part.first], rows[part.second], part.shift.T.double()))
        lost = lost.index_put((other,), part.lost)
    if not found:
        none = torch.zeros(0, dtype=torch.int64, device=pos.device)
        return Neighbours(none, none, systems.pos.new_zeros(0, 3), lost)
    first, second, shift = (torch.cat(parts, -1) for parts in zip(*found, strict=True))
    return Neighbours(first, second, shift.T.to(systems.pos.dtype), lost)


def _tried(
    at: torch.Tensor, start: torch.Tensor, n: int, m: list[int], metric: torch.Tensor | None, cutoff: float
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Return the pairs of systems of ``n`` atoms that begin at ``start (b,)``, with images up to ``m`` cells away.

    at: (3, n_atoms) in cells, or in lengths where metric is None. metric: six numbers of each cell (6, b).
    """
    device = at.device
    steps = torch.cartesian_prod(*[torch.arange(-k, k + 1, device=device) for k in m]).T.double()  # (3, k)
    k = steps.shape[1]
    # each pair once; of an atom's pairs with its own images, which are mirrored in the list, the second half
    wanted = torch.ones(n, n, dtype=torch.bool, device=device).triu(1).expand(k, n, n).clone()
    wanted[k // 2 + 1 :] |= torch.eye(n, dtype=torch.bool, device=device)
    rows = start[:, None] + torch.arange(n, device=device)
    at_once = max(1, CHUNK // max(1, k * n * n))
    found = []
    for begin in range(0, len(start), at_once):
        few = rows[begin : begin + at_once]
        x = at.index_select(1, few.flatten()).view(3, *few.shape)
        d = x[:, :, :, None] - x[:, :, None, :]
        if metric is None:
            r2 = (d[0] * d[0] + d[1] * d[1] + d[2] * d[2])[:, None]
        else:
            r2 = _square(d.sub_(d.round()), steps, metric[:, begin : begin + at_once])
        system, image, i, j = torch.nonzero((r2 < cutoff * cutoff) & wanted, as_tuple=True)
        first, second = few[system, i], few[system, j]
        if metric is None:
            shift = at.new_zeros(3, len(first))
        else:
            shift = (at.index_select(1, first) - at.index_select(1, second)).round() - steps[:, image]
        found.append((first, second, shift))
    return found


def _square(d: torch.Tensor, steps: torch.Tensor, metric: torch.Tensor) -> torch.Tensor:
    """Return squared lengths (b, k, n, n) of ``d (3, b, n, n)`` plus ``steps (3, k)``, in cells."""
    if steps.shape[1] == 1:
        x, y, z = d[:, :, None]
    else:
        x, y, z = d[:, :, None] + steps[:, None, :, None, None]
    g = metric[:, :, None, None, None]
    r2: torch.Tensor = g[0] * (x * x) + g[1] * (y * y) + g[2] * (z * z)
    if bool((metric[3:] != 0).any()):  # adding zeros would change no bit
        r2 += x * (g[3] * y + g[4] * z) + g[5] * (y * z)
    return r2


def _metric(cell: torch.Tensor) -> torch.Tensor:
    """Return products of the vectors of ``cell (b, 3, 3)``: aa, bb, cc, 2 ab, 2 ac, 2 bc (6, b)."""
    a, b, c = cell.unbind(1)
    pairs = ((a, a, 1), (b, b, 1), (c, c, 1), (a, b, 2), (a, c, 2), (b, c, 2))
    return torch.stack([k * (u[:, 0] * v[:, 0] + u[:, 1] * v[:, 1] + u[:, 2] * v[:, 2]) for u, v, k in pairs])
