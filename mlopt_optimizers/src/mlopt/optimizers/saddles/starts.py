"""Starts of searches for saddles: beside a minimum, half-way between two, or below a higher saddle.

Each function returns one start (n, d) for each key; a start depends on its key alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlopt.core.batch.random import Stream, derive, normal, uniform
from mlopt.core.landscapes.landscape import AtomsLandscape, Landscape
from mlopt.core.lazy import torch
from mlopt.optimizers.saddles.modes import lowest_modes


def kicked(
    landscape: Landscape, points: Sequence[torch.Tensor], kick: float, keys: torch.Tensor
) -> list[torch.Tensor]:
    """Return one of ``points (n, d)``, with normal noise, for each key.

    The width of the noise is drawn evenly between 0 and ``kick``, in the length of x.

    landscape: of one problem. keys: (k,) int64.
    """
    starts, keys = [], derive(keys, Stream.KICK)
    for key in keys[:, None]:
        first = uniform(key, torch.zeros_like(key), 2)[0]
        x = points[int(first[0] * len(points))]
        noise = normal(key, torch.full_like(key, 2), x.numel()).reshape(x.shape).to(x)
        starts.append(_pushed(landscape, x, float(first[1]) * kick * noise))
    return starts


def halfway(
    landscape: Landscape, points: Sequence[torch.Tensor], kick: float, keys: torch.Tensor
) -> list[torch.Tensor]:
    """Return the middle between two of ``points (n, d)``, with noise of a tenth of ``kick``, for each key.

    A free cluster is turned, and mirrored, at random against the other, and its atoms take the nearest places. So it
    may be paired with itself, and leads to saddles that only exchange atoms.
    """
    starts, keys = [], derive(keys, Stream.PAIR)
    for key in keys[:, None]:
        first = uniform(key, torch.zeros_like(key), 2)[0]
        a, b = (points[int(part * len(points))] for part in first.tolist())
        counter = torch.full_like(key, 2)
        if isinstance(landscape, AtomsLandscape) and _free(landscape):
            turn, _ = np.linalg.qr(normal(key, counter, 9).reshape(3, 3).cpu().numpy())
            b = _turned(a, b, turn, landscape.systems.z)
        noise = normal(key, counter + 18, a.numel()).reshape(a.shape).to(a)
        middle = landscape.manifold.retract(a, 0.5 * landscape.manifold.difference(a, b))
        starts.append(_pushed(landscape, middle, 0.1 * kick * noise))
    return starts


def downhill(
    landscape: Landscape, points: Sequence[torch.Tensor], kick: float, keys: torch.Tensor
) -> list[torch.Tensor]:
    """Return one of ``points (n, d)``, higher saddles, displaced along one of its negative modes, for each key.

    The step has a root mean square of at most half of ``kick``, drawn evenly. Saddles of lower order are reached from
    above in this way (Yin, Wang, Chen, Zhang & Zhang, Phys. Rev. Lett. 124, 090601 (2020)).
    """
    found = []
    for x in points:
        modes = lowest_modes(landscape, x, min(x.numel(), 12))
        found.append(modes.vectors[: max(1, int(modes.count_negative()[0]))])
    starts, keys = [], derive(keys, Stream.DOWNHILL)
    for key in keys[:, None]:
        first = uniform(key, torch.zeros_like(key), 4)[0].tolist()
        which = int(first[0] * len(points))
        x, vectors = points[which], found[which]
        size = first[2] * 0.5 * kick * len(x) ** 0.5 * (1.0 if first[3] < 0.5 else -1.0)
        starts.append(_pushed(landscape, x, size * vectors[int(first[1] * len(vectors))]))
    return starts


def _pushed(landscape: Landscape, x: torch.Tensor, push: torch.Tensor) -> torch.Tensor:
    push = landscape.manifold.project(x, push)
    if landscape.fixed is not None:
        push = push.masked_fill(landscape.fixed[:, None], 0.0)
    return landscape.manifold.retract(x, push)


def _free(landscape: AtomsLandscape) -> bool:
    """Return True if the atoms may be turned and exchanged."""
    return landscape.fixed is None and not landscape.systems.periodic


def _turned(a: torch.Tensor, b: torch.Tensor, turn: np.ndarray, z: torch.Tensor) -> torch.Tensor:
    """Return ``b (n, 3)`` turned about the centre, with its atoms in the order of the nearest ones of ``a (n, 3)``."""
    from scipy.optimize import linear_sum_assignment

    centre = a.mean(0)
    turned = (b - b.mean(0)) @ torch.as_tensor(turn).to(b) + centre
    apart = torch.cdist(a, turned) ** 2
    # like atoms only: nothing that is sound is farther off than this
    cost = apart.masked_fill(z[:, None] != z, 1e3 * (1.0 + float(apart.max())))
    _, order = linear_sum_assignment(cost.cpu().numpy())
    return turned[torch.as_tensor(order, device=b.device)]
