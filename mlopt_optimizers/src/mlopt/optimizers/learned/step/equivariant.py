"""The equivariant variant of the network, whose moves turn with the system.

The step of a component-wise network depends on the orientation of the axes. Here the inputs of a row do not. The
vectors of a row are the force, running means of the force, and the position from the centre. Inputs are their lengths,
the cosines between them, and the features of rows and problems. The outputs are the coefficients of each unit vector in
the move. The moves of a rotated or reflected system are therefore rotated or reflected as well.
"""

from __future__ import annotations

from itertools import combinations

from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.landscapes.manifold import Flat
from mlopt.core.lazy import torch
from mlopt.optimizers.learned.kernels.network import TINY
from mlopt.optimizers.learned.step.inputs import Inputs, Seen, coded, periodic_rows, root
from mlopt.optimizers.learned.step.network import Parts, buckets, gated, own, repeated, rest


def vectors_of(settings: Inputs) -> list[str]:
    """Return the names of the vectors of a row, in order."""
    names = ["gradient"] if settings.gradient else []
    names += [f"mean {decay}" for decay in settings.decays] if settings.moments else []
    return names + (["position"] if settings.position else [])


def sizes(settings: Inputs) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of the network."""
    v, k = len(vectors_of(settings)), len(settings.decays)
    scalars = 2 * k * (settings.moments + settings.adam)
    shared = sum(group.width for group in settings.groups if group.level != "component")
    return 2 * v + v * (v - 1) // 2 + scalars + shared, v + 1


def by_vector(settings: Inputs, parts: Parts, landscape: Landscape, seen: Seen) -> torch.Tensor:
    """Return the moves (n_rows, d)."""
    vectors = _vectors(settings, landscape, seen)
    inputs = torch.cat(
        [_scalars(settings, landscape, seen, vectors), _shared(settings, parts, landscape, seen)], 1
    )
    units = torch.stack([_unit(one) for one in vectors], 1)
    moved = torch.zeros_like(seen.x)
    for size, problems, rows in buckets(landscape.segments):
        b, mine = len(problems), own(parts, problems)
        first = torch.bmm(inputs[rows].reshape(b, size, -1), repeated(mine.first, b)) + mine.first_bias
        shares = gated(mine, rest(mine, first, settings.activation)).reshape(b * size, -1)
        move = torch.zeros_like(seen.x[rows])
        for share, unit in zip(shares.unbind(1), units[rows].unbind(1), strict=True):
            move = move + share[:, None] * unit
        moved = moved.index_copy(0, rows, move)
    return moved


def _vectors(settings: Inputs, landscape: Landscape, seen: Seen) -> list[torch.Tensor]:
    """Return the vectors (n_rows, d) that `vectors_of` names, zero where the landscape has none."""
    found = [seen.force] if settings.gradient else []
    found += list(seen.mean) if settings.moments else []
    if settings.position:
        segments = landscape.segments
        away = (seen.x - segments.rows_of(segments.mean_rows(seen.x))) / seen.unit
        if not isinstance(landscape.manifold, Flat):
            away = torch.zeros_like(away)
        periodic = periodic_rows(landscape)
        found.append(away if periodic is None else away.masked_fill(periodic[:, None], 0.0))
    return found


def _length(vector: torch.Tensor) -> torch.Tensor:
    """Return the lengths (n_rows, 1) of ``vector (n_rows, d)``, with a finite derivative at zero."""
    return root((vector * vector).sum(-1, keepdim=True))


def _unit(vector: torch.Tensor) -> torch.Tensor:
    """Return ``vector (n_rows, d)`` with length one, or zero."""
    return vector / (_length(vector) + TINY)


def _scalars(settings: Inputs, landscape: Landscape, seen: Seen, vectors: list[torch.Tensor]) -> torch.Tensor:
    """Return lengths, cosines, root mean squares, and the ratio that Adam takes, (n_rows, w)."""
    columns: list[torch.Tensor] = []
    for one in vectors:
        there = (one != 0).any(-1, keepdim=True)  # a vector that is absent leaves its inputs out
        columns += [torch.where(there, column, 0.0) for column in coded(_length(one))]
    units = [_unit(one) for one in vectors]
    columns += [(a * b).sum(-1, keepdim=True) for a, b in combinations(units, 2)]
    if settings.moments:
        for square in seen.square:
            columns += coded(root(square))
    if settings.adam:
        for mean, square, power in zip(seen.mean, seen.square, seen.power.unbind(1), strict=True):
            left = landscape.segments.rows_of(1.0 - power)[:, None]
            columns += coded(_length(mean) / left / (root(square) / left.sqrt() + TINY))
    return torch.cat(columns, 1)


def _shared(settings: Inputs, parts: Parts, landscape: Landscape, seen: Seen) -> torch.Tensor:
    """Return the inputs of rows and problems, (n_rows, w), zero where the landscape has none."""
    present = {group.name: group for group in settings.present(landscape)}
    columns = [seen.x.new_zeros(len(seen.x), 0)]
    for group in settings.groups:
        if group.level == "component":
            continue
        if group.name not in present:
            columns.append(seen.x.new_zeros(len(seen.x), group.width))
            continue
        (column,) = settings.inputs([group], landscape, seen, parts.messages)
        columns.append(landscape.segments.rows_of(column) if group.level == "problem" else column)
    return torch.cat(columns, 1)
