"""First images of a band: on the shortest way, through key images, or shaken.

Each function returns the point ``x (n_rows, d)`` of a `Band`, and works on every manifold. A straight line to the
nearest periodic image is a geodesic of flat space, and a rotation is one of a sphere.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlopt.core.batch.random import Draws
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.optimizers.bands.band import Band


def geodesic(band: Band, axis: torch.Tensor | Sequence[float] | None = None) -> torch.Tensor:
    """Return images (n_rows, d) that are evenly spaced on the shortest path between the ends.

    axis: (3,) or (rows of the landscape, 3), for rows whose ends are opposite on a sphere and so have no shortest path.
        They leave the start towards ``axis x start``. For the axis z, x turns to -x by way of y.

    Raises:
        InputError: rows are opposite and there is no axis, or the axis is along such a row; names the rows.
    """
    return through(band, [], axis)


#: on flat space the shortest path is a straight line
linear = geodesic


def through(
    band: Band,
    keys: Sequence[torch.Tensor],
    axis: torch.Tensor | Sequence[float] | None = None,
) -> torch.Tensor:
    """Return images (n_rows, d) that are evenly spaced on the shortest path from the start through ``keys`` to the end.

    keys: any number of points in their order, each (rows of the landscape, d). They may be a path of another length.
        Images do not stop at keys, but are spaced evenly over the whole way.
    axis: as for `geodesic`.

    Raises:
        InputError: a key has the wrong shape, rows are opposite without a usable axis, or `Band.check` refuses the
            path.
    """
    landscape, layout = band.landscape, band.layout
    for i, key in enumerate(keys):
        if key.shape != band.start.shape:
            raise InputError(
                f"key image {i} must have shape {tuple(band.start.shape)}, like the ends, got {tuple(key.shape)}"
            )
    points = [band.start, *(key.to(band.start) for key in keys), band.end]
    names = ["the start", *(f"key image {i}" for i in range(len(keys))), "the end"]
    legs = [
        _leg(landscape, points[i], points[i + 1], axis, f"{names[i]} and {names[i + 1]}")
        for i in range(len(points) - 1)
    ]
    segments = landscape.segments
    lengths = torch.stack([segments.dot(leg, leg).sqrt() for leg in legs])  # (legs, problems)
    reached = lengths.cumsum(0)
    problem = layout.chain.batch
    share = layout.position.to(lengths.dtype) / (layout.chain.rows_of(layout.images) + 1).to(lengths.dtype)
    wanted = share * reached[-1, problem]
    on = (reached[:-1, problem] <= wanted).sum(0)  # the leg of each image
    before = reached[on, problem] - lengths[on, problem]
    part = (wanted - before) / lengths[on, problem].clamp(min=torch.finfo(lengths.dtype).tiny)
    rows = layout.source + layout.frames.rows_of(on) * segments.n_rows
    a, step = torch.cat(points[:-1])[rows], torch.cat(legs)[rows]
    x = band.inner.manifold.retract(a, layout.frames.scale(part, step))
    band.check(x)
    return x


def _leg(
    landscape: Landscape,
    a: torch.Tensor,
    b: torch.Tensor,
    axis: torch.Tensor | Sequence[float] | None,
    between: str,
) -> torch.Tensor:
    """Return tangent vectors at ``a`` that lead to ``b``, by way of ``axis`` for opposite rows; all (rows, d)."""
    manifold = landscape.manifold
    step = manifold.difference(a, b)
    unclear = manifold.ambiguous(a, b)
    rows = torch.nonzero(unclear).flatten()
    if not len(rows):
        return step
    listed = _rows(landscape, rows)
    if axis is None:
        raise InputError(
            f"{between} have opposite directions at {listed}, so there is no shortest path; give an `axis` to turn "
            f"about, such as [0, 0, 1], or a key image between them"
        )
    if a.shape[1] != 3:
        raise InputError(f"an `axis` turns rows of 3 numbers, these have {a.shape[1]}; give a key image")
    turn = torch.as_tensor(axis, dtype=a.dtype, device=a.device)
    if turn.shape not in ((3,), a.shape):
        raise InputError(
            f"`axis` must have shape (3,) or {tuple(a.shape)}, one for each row; got {tuple(turn.shape)}"
        )
    way = manifold.project(a, torch.linalg.cross(turn.expand_as(a), a))
    length = torch.linalg.vector_norm(way, dim=-1)
    along = torch.nonzero(unclear & ~(length > 1e-6 * torch.linalg.vector_norm(turn, dim=-1))).flatten()
    if len(along):
        raise InputError(
            f"`axis` points along {_rows(landscape, along)} (or is zero), which does not turn about it; choose another"
        )
    full = (manifold.distance(a, b) / length.clamp(min=torch.finfo(a.dtype).tiny))[:, None] * way
    return torch.where(unclear[:, None], full, step)


def _rows(landscape: Landscape, rows: torch.Tensor) -> str:
    """Return the names of some rows, for a message."""
    names = [landscape.row_name(row) for row in rows[:5].tolist()]
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return ", ".join(names) + more


def perturb(
    band: Band, x: torch.Tensor, key: torch.Tensor, amount: float = 0.05, counter: int = 0
) -> torch.Tensor:
    """Return ``x (n_rows, d)`` with every free row of every image displaced at random.

    amount: size of the displacement of an image, as a share of the path's length. Each component is drawn evenly from
        +-``amount`` times that length over the root of the number of rows, then projected on the tangent space.
    key: (n_problems,) int64 from `mlopt.core.batch.random.problem_keys`. The displacement of a band depends on its key
        and ``counter`` alone, not on the batch. Use another counter for another epoch.
    """
    landscape = band.landscape.segments
    whole = band.arc_length(x)[band.layout.nodes.ptr[1:] - 1]
    length = whole / landscape.counts.to(x.dtype).sqrt()
    draws = Draws(key, torch.full_like(key, counter), band.segments)
    shift = (2.0 * draws.rows(x.shape[1]) - 1.0).to(x)
    shift = band.segments.scale(amount * length, band.manifold.project(x, shift))
    if band.fixed is not None:
        shift = shift.masked_fill(band.fixed[:, None], 0.0)
    return band.inner.manifold.retract(x, shift)
