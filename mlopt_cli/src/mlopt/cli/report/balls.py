"""Ball pictures of clusters and cells as SVG: shaded spheres, far ones faded, seen along the symmetry axis.

Structures of one element are coloured by coordination number, which distinguishes their minima. Others are coloured by
element, in the colours of Jmol.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from mlopt.cli.report.minima import ShownMinimum
from mlopt.core.geometry.minimum_image import shortest_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float64]"

SIZE = 240.0
# Pictures of larger structures would be large files that show a blob.
MAX_ATOMS, MAX_SPHERES = 2000, 1500
_MARGIN = 6.0
_FADE = 0.62
# Between the first shell and the second one of close-packed structures (1.41).
_NEIGHBOUR = 1.22
# A little off the axis, or atoms behind one another hide and the picture looks flat.
_TILT = (math.radians(-13), math.radians(9))
# From few neighbours (vertices, warm) to twelve (bulk, cool), and beyond.
_COORDINATION = (
    "#7f1d1d", "#8f2418", "#a93226", "#c0392b", "#d9572f", "#e8793a", "#f0a04b", "#f2c14e", "#d6cf62",
    "#9cc47a", "#5fb19b", "#4391b5", "#3f6db0", "#4d4f9e", "#5b3b8c", "#6a2c7a", "#722062",
)  # fmt: skip


def pictured(minima: Sequence[ShownMinimum], most: int) -> tuple[ShownMinimum, ...]:
    """Return the first minima that are worth drawing, at most ``most``."""
    chosen: list[ShownMinimum] = []
    spheres = 0
    for minimum in minima[:most]:
        size = len(minimum.numbers)
        spheres += size
        if not 0 < size <= MAX_ATOMS or (chosen and spheres > MAX_SPHERES) or not _is_finite(minimum):
            break
        chosen.append(minimum)
    return tuple(chosen)


def gradients(minima: Sequence[ShownMinimum]) -> str:
    """Return the colour gradients for the pictures of these minima; include them once per page."""
    colours = sorted({colour for minimum in minima for colour in _colours(minimum)})
    spheres = "".join(
        f'<radialGradient id="{_name(colour)}" cx=".5" cy=".5" r=".5" fx=".34" fy=".3">'
        f'<stop offset="0" stop-color="{_mix(colour, "#ffffff", 0.72)}"/>'
        f'<stop offset=".42" stop-color="{_mix(colour, "#ffffff", 0.12)}"/>'
        f'<stop offset=".8" stop-color="{_mix(colour, "#000000", 0.16)}"/>'
        f'<stop offset="1" stop-color="{_mix(colour, "#000000", 0.45)}"/></radialGradient>'
        for colour in colours
    )
    # Not display:none: some browsers then ignore the gradients.
    return f'<svg class="definitions" width="0" height="0" aria-hidden="true"><defs>{spheres}</defs></svg>'


def legend(minima: Sequence[ShownMinimum]) -> str:
    """Return the key to the colours of these minima."""
    from ase.data import chemical_symbols

    entries: dict[str, tuple[int, str]] = {}
    by_coordination = False
    for minimum in minima:
        one_element = len(set(minimum.numbers.tolist())) == 1
        by_coordination |= one_element
        values = _coordination(minimum).tolist() if one_element else minimum.numbers.tolist()
        for value, colour in zip(values, _colours(minimum), strict=True):
            label = str(value) if one_element else chemical_symbols[value]
            entries[colour] = (value, label)
    keys = "".join(
        f'<li><svg viewBox="0 0 10 10" aria-hidden="true"><circle cx="5" cy="5" r="5" fill="url(#{_name(colour)})"/>'
        f"</svg>{html.escape(label)}</li>"
        for colour, (_, label) in sorted(entries.items(), key=lambda item: item[1])
    )
    title = "neighbours" if by_coordination else "element"
    return f'<ul class="key"><li>{title}:</li>{keys}</ul>'


def picture(minimum: ShownMinimum, label: str) -> str:
    """Return a structure as an SVG element; ``label`` is what a screen reader says."""
    points, box = _projected(minimum)
    low, high = _extent(points, box, _radii(minimum))
    return _drawing(minimum, label, points, box, _radii(minimum), low, high)


def pictures_alike(minima: Sequence[ShownMinimum], labels: Sequence[str]) -> list[str]:
    """Return the stages of one motion as SVG elements, with the rotation and scale of the first structure."""
    import numpy as np

    turn = None
    if not any(minima[0].periodic):
        centred = minima[0].positions - minima[0].positions.mean(axis=0)
        turn = _view(centred, minima[0])
    seen = [_projected(one, turn) for one in minima]
    # a ball keeps its size from one picture to the next where the atoms are the same
    same = all(np.array_equal(one.numbers, minima[0].numbers) for one in minima)
    radii = [_radii(minima[0] if same else one) for one in minima]
    extents = [_extent(points, box, r) for (points, box), r in zip(seen, radii, strict=True)]
    low = np.min([low for low, _ in extents], axis=0)
    high = np.max([high for _, high in extents], axis=0)
    return [
        _drawing(one, label, points, box, r, low, high)
        for one, label, (points, box), r in zip(minima, labels, seen, radii, strict=True)
    ]


def _extent(points: Floats, box: list[Floats], radii: Floats) -> tuple[Floats, Floats]:
    """Return the lowest and the highest corner (2,) of the drawing."""
    import numpy as np

    everything = np.concatenate([points[:, :2] - radii[:, None], points[:, :2] + radii[:, None], *box])
    return everything.min(axis=0), everything.max(axis=0)


def _drawing(
    minimum: ShownMinimum,
    label: str,
    points: Floats,
    box: list[Floats],
    radii: Floats,
    low: Floats,
    high: Floats,
) -> str:
    """Return balls at ``points`` (n, 3) and the edges of the cell, within the frame from ``low`` to ``high``."""
    import numpy as np

    scale = (SIZE - 2 * _MARGIN) / float((high - low).max())
    middle = (low + high) / 2

    def place(point: Floats) -> tuple[float, float]:
        x, y = (point[:2] - middle) * scale
        return SIZE / 2 + float(x), SIZE / 2 - float(y)

    depth = points[:, 2]
    span = float(depth.max() - depth.min())
    # A flat structure has no far side.
    far = (depth.max() - depth) / max(span, 0.7 * float((high - low).max()))
    colours = _colours(minimum)
    shapes = []
    for i in np.argsort(depth, kind="stable"):
        x, y = place(points[i])
        circle = f'cx="{x:.1f}" cy="{y:.1f}" r="{radii[i] * scale:.1f}"'
        shapes.append(f'<circle {circle} fill="url(#{_name(colours[i])})"/>')
        fade = _FADE * float(far[i])
        if fade > 0.03:
            shapes.append(f'<circle {circle} class="fade" fill-opacity="{fade:.2f}"/>')
    lines = []
    for edge in box:
        (x1, y1), (x2, y2) = place(edge[0]), place(edge[1])
        lines.append(f'<path class="edge" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>')
    # The last three edges of the box meet in its farthest corner: they lie behind the atoms.
    drawn = "".join([*lines[9:], *shapes, *lines[:9]])
    head = f'<svg class="balls" viewBox="0 0 {SIZE:g} {SIZE:g}" role="img" aria-label="{html.escape(label)}">'
    return f"{head}{drawn}</svg>"


def _is_finite(minimum: ShownMinimum) -> bool:
    import numpy as np

    return bool(np.isfinite(minimum.positions).all() and np.isfinite(minimum.cell).all())


def _projected(minimum: ShownMinimum, turn: Floats | None = None) -> tuple[Floats, list[Floats]]:
    """Return positions as seen (x right, y up, z to the viewer), and the 12 edges (2, 2) of a periodic cell.

    ``turn`` (3, 3): the rotation to see a cluster by; its own best view if None.
    """
    import numpy as np

    positions = np.asarray(minimum.positions, dtype=np.float64)
    if not any(minimum.periodic) or abs(np.linalg.det(minimum.cell)) < 1e-9:
        centred = positions - positions.mean(axis=0)
        return centred @ (_view(centred, minimum) if turn is None else turn).T, []
    from ase.geometry import wrap_positions

    wrapped = np.asarray(wrap_positions(positions, minimum.cell, minimum.periodic))
    # The usual view of a crystal: c up, a to the viewer, a little from the right and from above.
    crystal = _rotation(0, math.radians(14)) @ _rotation(1, math.radians(-24)) @ np.eye(3)[[1, 2, 0]]
    corners = {
        (i, j, k): np.array([i, j, k]) @ minimum.cell @ crystal.T
        for i in (0, 1)
        for j in (0, 1)
        for k in (0, 1)
    }
    farthest = min(corners, key=lambda corner: float(corners[corner][2]))
    edges = [
        (first, second)
        for first in corners
        for second in corners
        if first < second and sum(a != b for a, b in zip(first, second, strict=True)) == 1
    ]
    edges.sort(key=lambda edge: farthest in edge)
    return wrapped @ crystal.T, [np.stack([corners[a][:2], corners[b][:2]]) for a, b in edges]


def _view(centred: Floats, minimum: ShownMinimum) -> Floats:
    """Return the rotation that turns a cluster's symmetry axis, or else its shortest side, to the viewer."""
    import numpy as np

    if len(centred) == 1:
        return np.eye(3)
    _, extent, axes = np.linalg.svd(centred, full_matrices=True)
    extent = np.append(extent, np.zeros(3 - len(extent)))
    toward, across = axes[2], axes[0]
    # A rod seen along its axis would be a dot.
    symmetric = _symmetry_axis(centred, minimum) if extent[0] < 1.7 * extent[1] else None
    if symmetric is not None:
        toward, fold = symmetric
        side = np.cross(toward, np.eye(3)[np.argmin(np.abs(toward))])
        side /= np.linalg.norm(side)
        # The phase of this moment is where corners stick out: up, or sideways for what is longer than wide.
        moment = np.sum((centred @ side + 1j * centred @ np.cross(toward, side)) ** fold)
        phase = np.angle(moment) / fold - (0 if fold == 2 else math.pi / 2)
        across = math.cos(phase) * side + math.sin(phase) * np.cross(toward, side)
    frame = np.stack([across, np.cross(toward, across), toward])
    view: Floats = _rotation(0, _TILT[0]) @ _rotation(1, _TILT[1]) @ frame
    return view


def _symmetry_axis(centred: Floats, minimum: ShownMinimum) -> tuple[Floats, int] | None:
    """Return axis and order of the highest rotational symmetry, or None."""
    import numpy as np

    from mlopt.core.minima.matching import alignments

    tolerance = 0.05 * _shortest(minimum)
    if len(centred) > 400 or tolerance <= 0:
        return None
    operations = next(alignments(centred, minimum.numbers, centred, minimum.numbers, tolerance)).rotation
    angles = np.arccos(np.clip((np.trace(operations, axis1=1, axis2=2) - 1) / 2, -1, 1))
    turning = np.flatnonzero(angles > 0.05)
    if not len(turning):
        return None
    chosen = turning[np.argmin(angles[turning].round(3))]
    # The axis is what the rotation leaves as it is.
    axis = np.linalg.svd(operations[chosen] - np.eye(3))[2][2]
    return axis, round(2 * math.pi / float(angles[chosen]))


def _rotation(axis: int, angle: float) -> Floats:
    import numpy as np

    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = math.cos(angle)
    matrix[b, a], matrix[a, b] = math.sin(angle), -math.sin(angle)
    return matrix


def _distances(minimum: ShownMinimum) -> Floats:
    """Return distances (n, n), of nearest images where periodic, with infinity on the diagonal."""
    import numpy as np

    n = len(minimum.positions)
    apart = (minimum.positions - minimum.positions[:, None]).reshape(-1, 3)
    if any(minimum.periodic):
        apart = shortest_vectors(apart, minimum.cell, np.array(minimum.periodic))
    distances: Floats = np.linalg.norm(apart, axis=1).reshape(n, n)
    np.fill_diagonal(distances, np.inf)
    return distances


def _shortest(minimum: ShownMinimum) -> float:
    shortest = float(_distances(minimum).min())
    return shortest if math.isfinite(shortest) else 0.0


def _radii(minimum: ShownMinimum) -> Floats:
    """Return radii (n,) in the ratio of covalent ones, such that the closest pair nearly touches.

    Covalent radii themselves have no meaning in reduced units.
    """
    import numpy as np
    from ase.data import covalent_radii

    covalent = np.asarray(covalent_radii)[minimum.numbers]
    if len(covalent) == 1:
        return np.ones(1)
    # A low percentile of the nearest distances, so that one unusual pair does not shrink all balls.
    ratio = (_distances(minimum) / (covalent[:, None] + covalent)).min(axis=1)
    radii: Floats = covalent * max(0.96 * float(np.quantile(ratio, 0.2)), 1e-6)
    return radii


def _coordination(minimum: ShownMinimum) -> Any:
    """Return the number of neighbours of each atom: (n,)."""
    import numpy as np

    if len(minimum.numbers) == 1:
        return np.zeros(1, dtype=np.int64)
    distances = _distances(minimum)
    return (distances <= _NEIGHBOUR * np.quantile(distances.min(axis=1), 0.5)).sum(axis=1)


def _colours(minimum: ShownMinimum) -> list[str]:
    from ase.data.colors import jmol_colors

    if len(set(minimum.numbers.tolist())) == 1:
        return [_COORDINATION[min(n, len(_COORDINATION) - 1)] for n in _coordination(minimum).tolist()]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in jmol_colors[z]) for z in minimum.numbers]


def _mix(colour: str, other: str, share: float) -> str:
    parts = ((int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in parts)


def _name(colour: str) -> str:
    return "ball" + colour[1:]
