"""The energy along a path: a smooth curve through its images, its summit, and the barriers from both sides."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.core.batch.segments import Segments
from mlopt.core.lazy import torch
from mlopt.optimizers.bands.band import Band


@dataclass(frozen=True)
class Summit:
    """The highest point of each path.

    energy (n_problems,): energy of this point.
    s (n_problems,): its distance along the path.
    node (n_problems,) int64: the node before it, counted from the start of its path.
    share (n_problems,): share of the way from that node to the next.
    """

    energy: torch.Tensor
    s: torch.Tensor
    node: torch.Tensor
    share: torch.Tensor


@dataclass(frozen=True)
class Profile:
    """Energies along paths as cubic Hermite curves, one for each problem.

    nodes: Segments of the nodes of each path: start, images, end.
    s, energy, slope: (n_nodes,) distance along the path, energy, and dE/ds, the gradient along the path.

    Everything is differentiable where the energies are. The curve has the right value and slope at every node. The
    error of its summit therefore falls with the fourth power of the distance between images.
    """

    nodes: Segments
    s: torch.Tensor
    energy: torch.Tensor
    slope: torch.Tensor

    @classmethod
    def of(cls, band: Band, x: torch.Tensor) -> Profile:
        """Return the profile of a path ``x (n_rows, d)``, after one evaluation of every image.

        The direction of the path at an image is that of the parabola through it and its neighbours, whatever tangent
        the band uses. At an end it is that of the step to its neighbour.
        """
        layout, frames = band.layout, band.layout.frames
        found, (behind, ahead) = band.inner.evaluate(x), band.steps(x)
        tiny = torch.finfo(x.dtype).tiny
        before2, after2 = (frames.dot(one, one).clamp(min=tiny) for one in (behind, ahead))
        # a parabola's slope, (after / before) tau- + (before / after) tau+, times a number
        way = frames.scale(after2, behind, frames.scale(before2, ahead))
        length = frames.dot(way, way).clamp(min=tiny).sqrt()
        slope = -frames.dot(found.force, way) / length
        slopes = layout.on_nodes(slope, _end_slope(band, x, 0), _end_slope(band, x, 1))
        energies = layout.on_nodes(found.energy, band.at_start.energy, band.at_end.energy)
        return cls(layout.nodes, band.arc_length(x), energies, slopes)

    # -- the curve -------------------------------------------------------------------------------------------------

    def curve(self, problem: int, points: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
        """Return evenly spaced places (points,) on one path and the energies (points,) there, for a plot."""
        first, last = int(self.nodes.ptr[problem]), int(self.nodes.ptr[problem + 1])
        marks = self.s[first:last].detach().contiguous()
        s = torch.linspace(0.0, 1.0, points, dtype=marks.dtype, device=marks.device) * marks[-1]
        node = (torch.searchsorted(marks, s.contiguous(), right=True) - 1).clamp(0, len(marks) - 2) + first
        gap = (self.s[node + 1] - self.s[node]).clamp(min=torch.finfo(marks.dtype).tiny)
        return s, self._at(node, ((s - self.s[node]) / gap).clamp(0.0, 1.0))

    def _at(self, node: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """Return the energies after ``node (k,)``, int64 indices into `s`, at ``share (k,)`` of the way to the next."""
        d, c, b, a = self._cubic(node)
        return d + share * (c + share * (b + share * a))

    def _cubic(self, node: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return coefficients of ``d + c t + b t^2 + a t^3`` from each ``node (k,)`` to the next, for t from 0 to 1."""
        gap = self.s[node + 1] - self.s[node]
        e0, e1 = self.energy[node], self.energy[node + 1]
        m0, m1 = gap * self.slope[node], gap * self.slope[node + 1]
        return e0, m0, 3.0 * (e1 - e0) - 2.0 * m0 - m1, 2.0 * (e0 - e1) + m0 + m1

    # -- the summit ------------------------------------------------------------------------------------------------

    @property
    def summit(self) -> Summit:
        """Return the highest point of each curve, ends included.

        It is differentiable at a fixed place, because the curve is level there and moving the place changes nothing.
        """
        node = torch.arange(self.nodes.n_rows, device=self.s.device)
        is_last = node == self.nodes.rows_of(self.nodes.ptr[1:] - 1)
        here = torch.where(is_last, node - 1, node)  # the end belongs to the curve that leads to it
        with torch.no_grad():
            _, c, b, a = self._cubic(here)
            places = [torch.zeros_like(c), torch.ones_like(c), *_level(a, b, c)]
            heights = torch.stack([self._at(here, place) for place in places])
            best = heights.argmax(0)
            share = torch.stack(places).gather(0, best[None])[0]
            top = self.nodes.argmax(heights.gather(0, best[None])[0])
            node, share = here[top], share[top]
        energy = self._at(node, share)
        s = self.s[node] + share * (self.s[node + 1] - self.s[node])
        return Summit(energy, s, node - self.nodes.ptr[:-1], share)

    @property
    def barrier_forward(self) -> torch.Tensor:
        """The height (n_problems,) of the summit above the start."""
        return self.summit.energy - self.energy[self.nodes.ptr[:-1]]

    @property
    def barrier_reverse(self) -> torch.Tensor:
        """The height (n_problems,) of the summit above the end."""
        return self.summit.energy - self.energy[self.nodes.ptr[1:] - 1]

    @property
    def reaction_energy(self) -> torch.Tensor:
        """The energy (n_problems,) of the end less that of the start."""
        return self.energy[self.nodes.ptr[1:] - 1] - self.energy[self.nodes.ptr[:-1]]


def _end_slope(band: Band, x: torch.Tensor, side: int) -> torch.Tensor:
    """Return dE/ds (n_problems,) at the start (side 0) or the end (side 1), along the step to or from its neighbour."""
    layout, segments = band.layout, band.landscape.segments
    point, found = (band.start, band.at_start) if side == 0 else (band.end, band.at_end)
    image = layout.chain.ptr[:-1] if side == 0 else layout.chain.ptr[1:] - 1
    within = torch.arange(segments.n_rows, device=x.device) - segments.rows_of(segments.ptr[:-1])
    other = x[segments.rows_of(layout.frames.ptr[image]) + within]
    step = band.landscape.manifold.difference(point, other)
    length = segments.dot(step, step).clamp(min=torch.finfo(x.dtype).tiny).sqrt()
    slope = -segments.dot(found.force, step) / length
    return slope if side == 0 else -slope


def _level(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> list[torch.Tensor]:
    """Return zeros of ``3 a t^2 + 2 b t + c`` in [0, 1], else 0, by the formula that loses no digits."""
    root = b * b - 3.0 * a * c
    q = -(b + torch.where(b >= 0, 1.0, -1.0) * root.clamp(min=0.0).sqrt())
    found = []
    for top, bottom in ((q, 3.0 * a), (c, q)):
        place = top / torch.where(bottom == 0, 1.0, bottom)
        sound = (root >= 0) & (bottom != 0) & (place > 0) & (place < 1)
        found.append(torch.where(sound, place, 0.0))
    return found


def image_at(band: Band, x: torch.Tensor, node: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return a point of each path, (rows of the landscape, d), on the geodesic between two nodes.

    It is differentiable.

    node: (n_problems,) int64, the node before it, counted from the start.
    share: (n_problems,), share of the way to the next node.
    """
    layout, landscape = band.layout, band.landscape
    pool = torch.cat([x, band.start, band.end])
    return layout.between(landscape.manifold, pool, landscape.segments, layout.nodes.ptr[:-1] + node, share)


def highest_point(band: Band, x: torch.Tensor, calls: int = 20) -> Summit:
    """Return the highest energy on the continuous path, of the landscape itself on the geodesics between images.

    Unlike the highest image energy it is never below the barrier. Unlike the summit of a `Profile` it is not
    interpolated. The place is sought on both sides of the highest node, by golden section and at last by the parabola
    through the three places left. That costs ``calls`` calls a problem, 6 at least, and an evaluation of the images.

    The energy is differentiable once with respect to ``x (n_rows, d)``, at a fixed place. That is the whole derivative,
    because moving the place would change nothing (envelope theorem). It needs forces alone.
    """
    layout, landscape = band.layout, band.landscape
    last = layout.images

    def at(place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        node = torch.minimum(place.floor().to(torch.int64), last)
        return node, place - node

    def energy(place: torch.Tensor) -> torch.Tensor:
        return landscape.evaluate(image_at(band, x, *at(place))).energy

    with torch.no_grad():
        heights = layout.on_nodes(band.inner.evaluate(x).energy, band.at_start.energy, band.at_end.energy)
        summit = layout.nodes.argmax(heights)
        top = (summit - layout.nodes.ptr[:-1]).to(x.dtype)
        low, high = (top - 1).clamp(min=0.0), torch.minimum(top + 1, last.to(x.dtype) + 1)
        golden = 0.5 * (5.0**0.5 - 1.0)
        left, right = high - golden * (high - low), low + golden * (high - low)
        at_left, at_right = energy(left), energy(right)
        for _ in range(max(calls, 6) - 5):
            up = at_right > at_left  # the maximum is right of `left`
            low, high = torch.where(up, left, low), torch.where(up, high, right)
            kept, at_kept = torch.where(up, right, left), torch.where(up, at_right, at_left)
            fresh = torch.where(up, low + golden * (high - low), high - golden * (high - low))
            at_fresh = energy(fresh)
            left, at_left = torch.where(up, kept, fresh), torch.where(up, at_kept, at_fresh)
            right, at_right = torch.where(up, fresh, kept), torch.where(up, at_fresh, at_kept)
        middle, half = 0.5 * (left + right), 0.5 * (right - left)
        at_middle = energy(middle)
        bend = at_left - 2.0 * at_middle + at_right
        shift = 0.5 * (at_left - at_right) / torch.where(bend < 0, bend, 1.0)
        vertex = torch.where(bend < 0, (middle + half * shift).clamp(low, high), middle)
        places = torch.stack([top, left, right, middle, vertex])
        found = torch.stack([heights[summit], at_left, at_right, at_middle, energy(vertex)])
        place = places.gather(0, found.argmax(0)[None])[0]
    node, share = at(place)
    point = image_at(band, x, node, share)
    with torch.no_grad():
        evaluation = landscape.evaluate(point)
    climb = landscape.segments.dot(-evaluation.force, point - point.detach())
    along, first = band.arc_length(x), layout.nodes.ptr[:-1] + node
    s = along[first] + share * (along[first + 1] - along[first])
    return Summit(evaluation.energy + climb, s, node, share)
