"""Initial paths of atoms that keep their distances: the image dependent pair potential."""

from __future__ import annotations

from typing import Self

from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import minimize
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.landscapes.manifold import Flat, Manifold
from mlopt.core.lazy import torch
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.initial import geodesic
from mlopt.optimizers.bands.string import String
from mlopt.optimizers.local.lbfgs import LBFGS


def idpp(band: Band, x: torch.Tensor | None = None, *, calls: int = 200, fmax: float = 0.01) -> torch.Tensor:
    """Return images (n_rows, d) whose interatomic distances change as evenly as possible from start to end.

    Each image minimises ``sum_{i<j} (d_ij - t_ij)^2 / d_ij^4``, where the target t_ij of its distances is interpolated
    between the ends. So atoms pass around each other where a straight line would take one through another. All paths
    are relaxed at once, in units of each problem's shortest distance, and so independently of the system of units. The
    potential is not called. Pairs of fixed atoms are left out.

    Source: Smidstrup, Pedersen, Stokbro & Jónsson, J. Chem. Phys. 140, 214106 (2014), eqs. 4-6. They relax an elastic
    band, and this function a `String`. Where atoms change places, the energies of these surfaces are hundreds of times
    the springs, and a band becomes a tangle. Periodic images of a pair are chosen on the path ``x`` and kept; at the
    ends the nearest count. Atoms that meet exactly part in a direction that rounding chooses. Call `initial.perturb`
    first if that matters.

    x: (n_rows, d), the path to begin with; None for a straight one. calls, fmax: limits of the relaxation, evaluations
        and the largest force in these units. A path that has not converged is as good a beginning.

    Raises:
        InputError: the landscape is not flat, or two atoms of an end are at the same place.
    """
    manifold, layout = band.landscape.manifold, band.layout
    if not isinstance(manifold, Flat):
        raise InputError("IDPP interpolates distances between atoms; for spins use `initial.geodesic`")
    x = geodesic(band) if x is None else x
    surface = PairDistances.of(band, x)
    unit = surface.unit[layout.chain.batch]
    segments = band.landscape.segments
    ends = [segments.scale(1.0 / surface.unit, end) for end in (band.start, band.end)]
    level = Evaluation(torch.zeros_like(surface.unit), torch.zeros_like(band.start))  # an end misses nothing
    scaled = String.over(band, surface, ends[0], ends[1], level, level)
    quench = LBFGS(max_step=0.1, scale=0.1)
    begin = layout.frames.scale(1.0 / unit, x)
    found = minimize(scaled, quench, begin, force_calls=calls, fmax=fmax, engine="eager")
    relaxed = layout.frames.scale(unit, found.x)
    if band.fixed is not None:  # not even rounded
        relaxed = torch.where(band.fixed[:, None], x, relaxed)
    band.check(relaxed)
    return relaxed


class PairDistances(Landscape):
    """The landscape of misfits of interatomic distances from their targets: ``sum (d - t)^2 / d^4``.

    A problem is an image. Lengths are in units of `unit (n_paths,)`, the shortest distance in the ends of each path.

    first, second (n_pairs,) int64: rows of the atoms of each pair.
    target (n_pairs,): wanted distances.
    shift (n_pairs, 3): lattice vector to subtract from ``x[second] - x[first]``.
    pairs: Segments of each image's pairs.
    """

    def __init__(
        self,
        segments: Segments,
        manifold: Manifold,
        pairs: Segments,
        first: torch.Tensor,
        second: torch.Tensor,
        target: torch.Tensor,
        shift: torch.Tensor,
        unit: torch.Tensor,
    ) -> None:
        self.segments, self.manifold, self.pairs = segments, manifold, pairs
        self.first, self.second, self.target, self.shift, self.unit = first, second, target, shift, unit

    @classmethod
    def of(cls, band: Band, x: torch.Tensor) -> Self:
        """Return targets between the distances at the ends of a band, with periodic images as on ``x (n_rows, d)``."""
        layout, frames = band.layout, band.layout.frames
        manifold = band.inner.manifold
        first, second, counts = _pairs(frames, band.fixed)
        pairs = Segments(torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
        images = torch.arange(layout.n_images, device=x.device)
        geometry = manifold.select(images, first)

        def distances(points: torch.Tensor) -> torch.Tensor:
            return geometry.distance(points[first], points[second])

        at_start, at_end = distances(band.start[layout.source]), distances(band.end[layout.source])
        nearest = torch.minimum(at_start, at_end)
        whole = Segments(pairs.ptr[layout.chain.ptr])
        unit = -whole.max(-nearest) if len(nearest) else nearest.new_ones(layout.n_problems)
        lost = torch.nonzero(unit <= 1e-9 * whole.max(nearest)).flatten()
        if len(lost):
            raise InputError(
                f"an end{band.landscape.problem_word(int(lost[0]))} has two atoms at the same place, or only "
                f"fixed atoms, so that IDPP has no distances to go by"
            )
        share = layout.position.to(x.dtype) / (layout.chain.rows_of(layout.images) + 1).to(x.dtype)
        part = pairs.rows_of(share)
        inverse = whole.rows_of(1.0 / unit)
        target = ((1.0 - part) * at_start + part * at_end) * inverse
        apart = x[second] - x[first]
        shift = (apart - geometry.difference(x[first], x[second])) * inverse[:, None]
        if isinstance(manifold, Flat) and manifold.cell is not None:
            rows = (1.0 / unit)[layout.chain.batch]
            manifold = Flat(manifold.cell * frames.rows_of(rows)[:, None, None], manifold.pbc)
        made = cls(frames, manifold, pairs, first, second, target, shift, unit)
        made.fixed = band.fixed
        return made

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Return the misfit (n_images,) of each image, and the force (n_rows, d) on its atoms."""
        delta = x[self.second] - x[self.first] - self.shift
        # atoms on top of each other are pushed apart, if there is any direction to do so
        distance = torch.linalg.vector_norm(delta, dim=-1).clamp(min=1e-3)
        off = distance - self.target
        weight = distance**-4
        slope = 2.0 * off * weight * (1.0 - 2.0 * off / distance)
        pull = (slope / distance)[:, None] * delta
        force = torch.zeros_like(x).index_add(0, self.first, pull).index_add(0, self.second, -pull)
        if self.fixed is not None:
            force = force.masked_fill(self.fixed[:, None], 0.0)
        return Evaluation(self.pairs.sum(off * off * weight), force)

    def select(self, problems: torch.Tensor) -> PairDistances:
        """Return the landscape of some of the images."""
        segments, rows = self.segments.select(problems)
        pairs, chosen = self.pairs.select(problems)
        moved = pairs.rows_of(segments.ptr[:-1] - self.segments.ptr[problems])
        part = PairDistances(
            segments,
            self.manifold.select(problems, rows),
            pairs,
            self.first[chosen] + moved,
            self.second[chosen] + moved,
            self.target[chosen],
            self.shift[chosen],
            self.unit,
        )
        part.fixed = None if self.fixed is None else self.fixed[rows]
        return part


def _pairs(frames: Segments, fixed: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the first and second atoms (n_pairs,) of pairs that can move, and each image's number of pairs."""
    device = frames.ptr.device
    firsts, seconds, counts = [], [], []
    triangles: dict[int, torch.Tensor] = {}
    for start, size in zip(frames.ptr[:-1].tolist(), frames.counts.tolist(), strict=True):
        if size not in triangles:
            triangles[size] = torch.triu_indices(size, size, 1, device=device)
        i, j = start + triangles[size][0], start + triangles[size][1]
        if fixed is not None:
            free = ~(fixed[i] & fixed[j])
            i, j = i[free], j[free]
        firsts.append(i)
        seconds.append(j)
        counts.append(len(i))
    return torch.cat(firsts), torch.cat(seconds), torch.tensor(counts, dtype=torch.int64, device=device)
