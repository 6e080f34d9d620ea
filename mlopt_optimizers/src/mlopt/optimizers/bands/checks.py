"""Checks of paths before an optimizer starts on them. Each error says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.landscapes.manifold import Manifold
from mlopt.core.lazy import torch
from mlopt.core.structures import checks
from mlopt.optimizers.bands.layout import Layout

#: rows may be off their manifold by as much (the length of a spin off 1)
_OFF = 1e-6
#: neighbouring images closer than this share of the longest step of their path are the same point
_SAME = 1e-8
#: fixed rows may differ between the ends by this share of the distance of the ends (rounding of a file)
_FIXED = 1e-3


def check_same_atoms(start: Systems, end: Systems) -> None:
    """Refuse ends of a path that are not the same atoms in the same order, cell and periodicity.

    Raises:
        InputError: they are not; the message names the atom and its system.
    """
    if len(start) != len(end):
        raise InputError(f"there are {len(start)} starts of a path but {len(end)} ends; give one of each")
    for i in range(len(start)):
        checks.check_same_atoms(end[i], start[i], f"the end of path {i}", "its start")


def check_fixed(
    landscape: Landscape,
    start: torch.Tensor,
    end: torch.Tensor,
    names: Sequence[str],
    ends: tuple[str, str] = ("`initial`", "`final`"),
) -> None:
    """Refuse ends of one problem, each (n_rows, d), in which a fixed row has two places.

    names: names of the rows in messages. ends: names of the ends.

    Raises:
        InputError: a fixed row differs; the message names the row that is farthest off, and its distance.
    """
    if landscape.fixed is None:
        return
    row = landscape.manifold.distance(start, end)
    moved = torch.nonzero(landscape.fixed & (row > _FIXED * torch.linalg.vector_norm(row))).flatten()
    if len(moved):
        worst = int(moved[row[moved].argmax()])
        more = f" ({len(moved) - 1} more are off)" if len(moved) > 1 else ""
        raise InputError(
            f"{names[worst]} is fixed, but its places in {ends[0]} and {ends[1]} are {float(row[worst]):.3g} apart"
            f"{more}; give it the same place in both, or free it"
        )


def check_ends(landscape: Landscape, start: torch.Tensor, end: torch.Tensor) -> None:
    """Refuse ends, each (rows of the landscape, d), that cannot be joined by a path.

    Raises:
        InputError: they have wrong shapes or numbers that are not finite, rows are off the manifold, fixed rows move,
            or the ends are equal.
    """
    segments, manifold = landscape.segments, landscape.manifold
    for name, x in (("start", start), ("end", end)):
        if x.ndim != 2 or len(x) != segments.n_rows:
            raise InputError(
                f"the {name} must have shape ({segments.n_rows}, d) to fit the landscape, got {tuple(x.shape)}"
            )
        _sound(x, manifold, lambda row, name=name: _of_end(landscape, row, name))  # type: ignore[misc]
    if start.shape != end.shape:
        raise InputError(
            f"start and end must have one shape, got {tuple(start.shape)} and {tuple(end.shape)}"
        )
    if start.dtype != end.dtype or start.device != end.device:
        raise InputError(
            f"start and end must have one dtype and device, got {start.dtype} on {start.device} and "
            f"{end.dtype} on {end.device}"
        )
    step = manifold.difference(start, end)
    row = torch.where(manifold.ambiguous(start, end), torch.inf, torch.linalg.vector_norm(step, dim=-1))
    apart = segments.sum(row * row).sqrt()
    size = segments.sum(start * start).sqrt()
    same = torch.nonzero(apart <= 1e-8 * (1e-8 + size)).flatten()
    if len(same):
        raise InputError(
            f"start and end{landscape.problem_word(int(same[0]))} are the same point; a path needs two different ends"
        )
    if landscape.fixed is not None:
        moved = torch.nonzero(landscape.fixed & (row > _FIXED * segments.rows_of(apart))).flatten()
        if len(moved):
            where = landscape.row_name(int(moved[0]))
            raise InputError(
                f"{where} is fixed but differs between start and end by {float(row[moved[0]]):.3g}; free it, or give "
                f"it the same place in both"
            )


def check_path(
    landscape: Landscape, layout: Layout, manifold: Manifold, x: torch.Tensor, pool: torch.Tensor
) -> None:
    """Refuse images ``x (n_rows, d)`` of a band over ``landscape`` that cannot be relaxed.

    pool: ``cat(x, start, end)``.

    Raises:
        InputError: images have a wrong shape or numbers that are not finite, or rows are off the manifold. Neighbouring
            images are at the same point, or have no single shortest path between them.
    """
    frames = layout.frames
    if x.ndim != 2 or len(x) != frames.n_rows:
        raise InputError(
            f"the images must have shape ({frames.n_rows}, d) to fit the band, got {tuple(x.shape)}"
        )
    problems, places = layout.chain.batch.tolist(), layout.position.tolist()
    names = [f"image {k}{landscape.problem_word(p)}" for p, k in zip(problems, places, strict=True)]

    def called(row: int) -> str:
        return f"{landscape.row_word(int(layout.source[row]))} of {names[int(frames.batch[row])]}"

    _sound(x, manifold, called)
    for side, rows in zip((-1, 1), layout.neighbour_rows, strict=True):
        other = pool[rows]
        unclear = torch.nonzero(manifold.ambiguous(x, other)).flatten()
        if len(unclear):
            image = int(frames.batch[unclear[0]])
            raise InputError(
                f"{called(int(unclear[0]))} is opposite to that of image {places[image] + side}; no single shortest "
                f"path joins them, so put an image between them"
            )
        step = manifold.difference(x, other)
        gap = frames.dot(step, step).sqrt()
        longest = layout.chain.rows_of(layout.chain.max(gap))
        same = torch.nonzero(gap <= _SAME * longest).flatten()
        if len(same):
            image = int(same[0])
            raise InputError(
                f"{names[image]} is the same point as image {places[image] + side} (image 0 is the start); space the "
                f"images along the path, for instance with `initial.through`"
            )


def _sound(x: torch.Tensor, manifold: Manifold, called: Callable[[int], str]) -> None:
    """Refuse rows of ``x (n, d)`` that are not finite or not on the manifold. called: names a row in messages."""
    bad = torch.nonzero(~torch.isfinite(x).all(-1)).flatten()
    if len(bad):
        raise InputError(
            f"{called(int(bad[0]))} is not finite: {x[bad[0]].tolist()}; check where it came from"
        )
    off = torch.linalg.vector_norm(manifold.retract(x, torch.zeros_like(x)) - x, dim=-1)
    left = torch.nonzero(off > _OFF).flatten()
    if len(left):
        length = float(torch.linalg.vector_norm(x[left[0]]))
        raise InputError(
            f"{called(int(left[0]))} has left its manifold by {float(off[left[0]]):.3g} (its length is "
            f"{length:.6g}); bring it back, for spins by dividing by the length"
        )
    # a zero vector on a sphere retracts to NaN, which no comparison finds
    lost = torch.nonzero(~torch.isfinite(off)).flatten()
    if len(lost):
        raise InputError(f"{called(int(lost[0]))} has length 0; a unit vector is expected there")


def _of_end(landscape: Landscape, row: int, name: str) -> str:
    """Return the name of an end's row in a message."""
    problem = int(landscape.segments.batch[row])
    return f"{landscape.row_word(row)} of the {name}{landscape.problem_word(problem)}"
