"""A path between two points as a landscape: images, tied by springs, whose forces are nudged.

Any optimizer relaxes a band as it relaxes anything else. Everything special about paths stays in here.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from mlopt.core.batch.segments import Segments
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.landscapes.manifold import Manifold
from mlopt.core.lazy import torch
from mlopt.core.quoting import quoted
from mlopt.optimizers.bands.checks import check_ends, check_path
from mlopt.optimizers.bands.layout import Layout
from mlopt.optimizers.bands.springs import ConstantSpring, Spring
from mlopt.optimizers.bands.tangents import ImprovedTangent, Surroundings, Tangent


@dataclass(frozen=True)
class Images:
    """A band seen image by image.

    energy (n_images,), force (n_rows, d): energy of the landscape at the moving images, and minus its gradient.
    tangent (n_rows, d): tangent of the path, with unit length over each whole image.
    slope (n_images,): dE/ds along the tangent.
    behind, ahead (n_rows, d): the steps tau- from the node before and tau+ to the node after. Both are in the tangent
    space of the image.
    gap_behind, gap_ahead (n_images,): lengths of these steps, the geodesic distances of whole images.
    climbing (n_images,) bool: images that climb.
    """

    energy: torch.Tensor
    force: torch.Tensor
    tangent: torch.Tensor
    slope: torch.Tensor
    behind: torch.Tensor
    ahead: torch.Tensor
    gap_behind: torch.Tensor
    gap_ahead: torch.Tensor
    climbing: torch.Tensor
    surroundings: Surroundings


class Band(Landscape):
    """Nudged elastic bands, one for each problem of a landscape, of moving images between constant ends.

    Rows are ordered problem by problem, image by image. `pack` and `unpack` convert from and to lists of images. An
    evaluation evaluates every moving image once, all in one batch. It returns the highest image energy and the nudged
    force. This is the landscape's force across the path, plus the force of the springs along it,

        ``F - (F . tau) tau + (k+ d+ - k- d-) tau``,

    where products run over a whole image. So gradient descent is ``x <- retract(x, gamma (-g_perp + mu e tau))``, with
    the springs inside the step. As printed by Bushuev & Lobanov 2020, eq. 2, it diverges at their mu = 1. On a curved
    manifold d is the geodesic distance and tau is made of logarithms, so that every manifold works. Spins follow
    Bessarab, Uzdin & Jónsson, Comput. Phys. Commun. 196, 335 (2015) without their projections.

    landscape: its problems may be of unlike size. start, end: (rows of the landscape, d).
    images: moving images, one number or one for each problem.
    tangent, spring: see `mlopt.optimizers.bands.tangents` and `springs`. The improved tangent is the default. A number
        is a `ConstantSpring` of that stiffness, and None is no spring.
    climb: number of images that may climb, at the highest local maxima among the images of each path. A climbing image
        feels no spring, and its force along the path is reversed (Henkelman, Uberuaga & Jónsson, J. Chem. Phys. 113,
        9901 (2000), eq. 5).
    nudge: "single", "double" or "switched". "double" adds the part of the spring force across the path that is also
        perpendicular to the force there (Trygubenko & Wales, J. Chem. Phys. 120, 2082 (2004), eqs. 12-13). "switched"
        lets that part fade by ``2/pi atan(|F_perp|^2 / |F_spring_perp|^2)``, so that the band converges tightly
        (Sheppard, Terrell & Henkelman, J. Chem. Phys. 128, 134106 (2008)).

    Settings of tangent and spring may be tensors, also with one number a problem. With `unroll` a relaxation can be
    differentiated with respect to them. The ends are evaluated once, when the band is made. These are 2 calls a problem
    more than the driver counts.

    Raises:
        InputError: the ends are equal, not finite, off the manifold or of the wrong shape. Fixed rows differ, or there
            are fewer than 3 images in total.
    """

    conservative: ClassVar[bool] = False

    def __init__(
        self,
        landscape: Landscape,
        start: torch.Tensor,
        end: torch.Tensor,
        images: int | Sequence[int] | torch.Tensor = 5,
        *,
        tangent: Tangent | None = None,
        spring: Spring | float | None = 1.0,
        climb: int = 0,
        nudge: Literal["single", "double", "switched"] = "single",
    ) -> None:
        if climb < 0:
            raise InputError(f"`climb` is the number of climbing images, 0 or more; got {climb}")
        if nudge not in ("single", "double", "switched"):
            raise InputError(f"`nudge` must be single, double or switched; got {quoted(nudge)}")
        counts = images if isinstance(images, int | torch.Tensor) else list(images)
        self.layout = Layout(landscape.segments, counts)
        check_ends(landscape, start, end)
        self.landscape = landscape
        self.inner = landscape.select(self.layout.chain.batch)
        self.start, self.end = start, end
        self.at_start, self.at_end = landscape.evaluate(start), landscape.evaluate(end)
        for name, found in (("start", self.at_start), ("end", self.at_end)):
            bad = torch.nonzero(~torch.isfinite(found.energy)).flatten().tolist()
            if bad:
                raise InputError(
                    f"the {name}{landscape.problem_word(bad[0])} has no finite energy; check its coordinates"
                )
        self.tangent: Tangent = ImprovedTangent() if tangent is None else tangent
        if isinstance(spring, int | float):
            spring = ConstantSpring(k=float(spring))
        self.spring: Spring | None = spring
        self.climb: int = climb
        self.nudge: str = nudge
        self._derive()

    @classmethod
    def over(
        cls,
        band: Band,
        inner: Landscape,
        start: torch.Tensor,
        end: torch.Tensor,
        at_start: Evaluation,
        at_end: Evaluation,
    ) -> Self:
        """Return a band laid out like ``band``, without springs, over another landscape and between other ends."""
        other = object.__new__(cls)
        other.layout, other.landscape, other.inner = band.layout, band.landscape, inner
        other.start, other.end, other.at_start, other.at_end = start, end, at_start, at_end
        other.tangent, other.spring, other.climb, other.nudge = ImprovedTangent(), None, 0, "single"
        other._derive()
        return other

    def _derive(self) -> None:
        self.segments = self.layout.band
        self.fixed = self.inner.fixed

    @property
    def manifold(self) -> Manifold:  # type: ignore[override]
        """The manifold of the landscape, for each image."""
        return self.inner.manifold

    @property
    def calls_per_evaluation(self) -> torch.Tensor:
        """The moving images of each band, (n_problems,) int64, which one evaluation calls."""
        return self.layout.chain.sum(self.inner.calls_per_evaluation)

    def replace(self, **changes: object) -> Self:
        """Return the band with another ``tangent``, ``spring``, ``climb`` or ``nudge``; ends are not evaluated anew."""
        unknown = set(changes) - {"tangent", "spring", "climb", "nudge"}
        if unknown:
            raise InputError(
                f"Band.replace takes tangent, spring, climb and nudge, not {quoted(sorted(unknown)[0])}"
            )
        changed = copy.copy(self)
        changed.__dict__.update(changes)
        return changed

    def select(self, problems: torch.Tensor) -> Self:
        """Return the bands of some of the problems."""
        part = copy.copy(self)
        part.layout, images, _, ends = self.layout.select(problems)
        part.landscape, part.inner = self.landscape.select(problems), self.inner.select(images)
        part.start, part.end = self.start[ends], self.end[ends]
        part.at_start, part.at_end = self.at_start.select(problems, ends), self.at_end.select(problems, ends)
        part.tangent = self.tangent.select(problems)
        part.spring = None if self.spring is None else self.spring.select(problems)
        part._derive()
        return part

    # -- forces ----------------------------------------------------------------------------------------------------

    def look(self, x: torch.Tensor) -> Images:
        """Evaluate every moving image at ``x (n_rows, d)``, and return all data about each."""
        layout, frames = self.layout, self.layout.frames
        found = self.inner.evaluate(x)
        behind, ahead = self.steps(x)
        before, after = layout.neighbours
        energies = torch.cat([found.energy, self.at_start.energy, self.at_end.energy])
        surroundings = Surroundings(
            chain=layout.chain,
            energy=found.energy,
            before=energies[before],
            after=energies[after],
            rise=-frames.dot(found.force, behind + ahead),
            start=self.at_start.energy,
            end=self.at_end.energy,
        )
        minus, plus = self.tangent.weights(surroundings)
        mixed = frames.scale(plus, ahead, frames.scale(minus, behind))
        tangent = frames.scale(1.0 / _length(frames, mixed), mixed)
        return Images(
            energy=found.energy,
            force=found.force,
            tangent=tangent,
            slope=-frames.dot(found.force, tangent),
            behind=behind,
            ahead=ahead,
            gap_behind=_length(frames, behind),
            gap_ahead=_length(frames, ahead),
            climbing=self._climbing(surroundings),
            surroundings=surroundings,
        )

    def steps(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tau- and tau+ (n_rows, d): the steps from the node before and to the node after, 0 for fixed rows."""
        pool = torch.cat([x, self.start, self.end])
        before, after = self.layout.neighbour_rows
        behind = -self.manifold.difference(x, pool[before])
        ahead = self.manifold.difference(x, pool[after])
        if self.fixed is None:
            return behind, ahead
        still = self.fixed[:, None]
        return behind.masked_fill(still, 0.0), ahead.masked_fill(still, 0.0)

    def arc_length(self, x: torch.Tensor) -> torch.Tensor:
        """Return the distance (n_nodes,) of each node along its path, in geodesic distances of whole images."""
        layout, (behind, ahead) = self.layout, self.steps(x)
        gap, final = _length(layout.frames, behind), _length(layout.frames, ahead)[layout.chain.ptr[1:] - 1]
        return layout.cumulative(layout.on_nodes(gap, torch.zeros_like(final), final))

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Return the highest image energy (n_problems,) and the nudged force (n_rows, d)."""
        frames, images = self.layout.frames, self.look(x)
        across = frames.scale(images.slope, images.tangent, images.force)
        force = across
        if self.spring is not None:
            minus, plus = self.spring.stiffness(images.surroundings)
            pull = plus * images.gap_ahead - minus * images.gap_behind
            force = frames.scale(pull, images.tangent, across)
            if self.nudge != "single":
                force = force + self._second_nudge(images, across, minus, plus)
        if self.climb:
            turned = frames.scale(2.0 * images.slope, images.tangent, images.force)
            force = torch.where(frames.rows_of(images.climbing)[:, None], turned, force)
        return Evaluation(self.layout.chain.max(images.energy), force)

    def _second_nudge(
        self,
        images: Images,
        across: torch.Tensor,
        minus: torch.Tensor | float,
        plus: torch.Tensor | float,
    ) -> torch.Tensor:
        """Return the spring force (n_rows, d) across the path, without the part along the force there."""
        frames = self.layout.frames
        ones = torch.ones_like(images.energy)
        whole = frames.scale(plus * ones, images.ahead) - frames.scale(minus * ones, images.behind)
        pull = frames.scale(-frames.dot(whole, images.tangent), images.tangent, whole)
        across2, pull2 = _positive(frames.dot(across, across)), _positive(frames.dot(pull, pull))
        nudge = frames.scale(-frames.dot(pull, across) / across2, across, pull)
        if self.nudge == "double":
            return nudge
        return frames.scale(2.0 / torch.pi * torch.atan(across2 / pull2), nudge)

    def _climbing(self, images: Surroundings) -> torch.Tensor:
        """Return the ``climb`` highest local maxima of each path, (n_images,) bool, of equal ones the first."""
        chain, energy = images.chain, images.energy
        climbing = torch.zeros_like(energy, dtype=torch.bool)
        summit = (energy > images.before) & (energy >= images.after)
        height = torch.where(summit, energy, -torch.inf).detach()
        for _ in range(self.climb):
            top = chain.argmax(height)
            climbing[top] = climbing[top] | (height[top] > -torch.inf)
            height[top] = -torch.inf
        return climbing

    # -- images ----------------------------------------------------------------------------------------------------

    def pack(self, paths: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the point ``x (n_rows, d)`` of the band from each problem's images, (M, n, d) or (M + 2, n, d).

        Ends among the images are left out, because the band has its own.

        Raises:
            InputError: shapes do not fit, or `check` refuses the path.
        """
        rows = []
        if len(paths) != self.layout.n_problems:
            raise InputError(f"`paths` must have one path for each of the {self.layout.n_problems} problems")
        for problem, path in enumerate(paths):
            count, size = int(self.layout.images[problem]), int(self.layout.segments.counts[problem])
            if path.shape not in {(count + more, size, self.start.shape[1]) for more in (0, 2)}:
                raise InputError(
                    f"the path of problem {problem} must have shape ({count}, {size}, {self.start.shape[1]}), or "
                    f"{count + 2} images with its ends, got {tuple(path.shape)}"
                )
            moving = path if len(path) == count else path[1:-1]
            rows.append(moving.reshape(-1, path.shape[-1]))
        x = torch.cat(rows).to(self.start)
        self.check(x)
        return x

    def unpack(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return each problem's path with its ends, a list of tensors (M + 2, n, d)."""
        pool = torch.cat([x, self.start, self.end])
        paths = []
        for problem, size in enumerate(self.layout.segments.counts.tolist()):
            ptr = self.layout.nodes.ptr
            first = self.layout.node_rows[int(ptr[problem]) : int(ptr[problem + 1])]
            paths.append(pool[first[:, None] + torch.arange(size, device=x.device)])
        return paths

    def check(self, x: torch.Tensor) -> None:
        """Refuse a path ``x (n_rows, d)`` from which no optimizer should start.

        Raises:
            InputError: it has a wrong shape, numbers that are not finite, rows off the manifold, or neighbouring images
                at the same point.
        """
        check_path(self.landscape, self.layout, self.inner.manifold, x, torch.cat([x, self.start, self.end]))


def _positive(square: torch.Tensor) -> torch.Tensor:
    """Return squares that are kept off zero, where a root has no derivative and a ratio no value."""
    return square.clamp(min=torch.finfo(square.dtype).tiny)


def _length(frames: Segments, vector: torch.Tensor) -> torch.Tensor:
    """Return lengths (n_images,) over whole images. The length of a zero vector is tiny, not 0."""
    return _positive(frames.dot(vector, vector)).sqrt()
