"""Where the rows of a batch of paths lie: images one after another, problem by problem, between constant ends.

A path of a problem with n rows and M moving images has M + 2 nodes: the start, the images, the end. Only the images
are rows of the band, ``M n`` of them; the two ends stand behind all rows, in a pool ``cat(x, start, end)``, so that a
neighbour is a matter of gathering. Every function here works for bands of unlike sizes and numbers of images, and
gives the same numbers in any batch.
"""

from __future__ import annotations

from functools import cached_property

from mlopt.core.batch.segments import Segments
from mlopt.core.errors import InputError
from mlopt.core.landscapes.manifold import Manifold
from mlopt.core.lazy import torch


class Layout:
    """The bookkeeping of a batch of paths.

    segments: rows of each problem of the landscape that the paths lie on.
    images: moving images, one number for all problems or one for each (a sequence or an int64 tensor).

    chain: Segments whose rows are the images of each problem. frames: Segments of the rows of each image.
    band: Segments of the rows of each problem's whole band. nodes: Segments of the nodes of each problem.
    source: (n_rows,) the row of the landscape that each row of the band is an image of.

    Raises:
        InputError: fewer than one moving image, which is fewer than 3 in total, or as many numbers as there are no
            problems.
    """

    def __init__(self, segments: Segments, images: int | list[int] | tuple[int, ...] | torch.Tensor) -> None:
        device, n = segments.ptr.device, segments.n_problems
        counts = torch.as_tensor(images, dtype=torch.int64, device=device)
        counts = counts.expand(n).contiguous() if counts.ndim == 0 else counts
        if counts.shape != (n,):
            raise InputError(
                f"`images` must be one number, or one for each of the {n} problems; got {counts.tolist()}"
            )
        if bool((counts < 1).any()):
            short = int(torch.nonzero(counts < 1)[0])
            raise InputError(
                f"a path needs at least 3 images, the two ends included, but problem {short} has "
                f"{int(counts[short])} between its ends; set `images` to 1 or more"
            )
        self.segments = segments
        self.images = counts
        self.chain = Segments(_pointer(counts))
        self.frames, self.source = segments.select(self.chain.batch)
        self.band = Segments(self.frames.ptr[self.chain.ptr])
        self.nodes = Segments(_pointer(counts + 2))
        self.n_images = self.chain.n_rows

    @property
    def n_problems(self) -> int:
        """Number of paths."""
        return self.segments.n_problems

    def select(self, problems: torch.Tensor) -> tuple[Layout, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The layout of some of the paths, their images (int64), rows of the band, and rows of an end."""
        segments, ends = self.segments.select(problems)
        _, images = self.chain.select(problems)
        _, rows = self.band.select(problems)
        return Layout(segments, self.images[problems]), images, rows, ends

    # -- neighbours ------------------------------------------------------------------------------------------------

    @cached_property
    def position(self) -> torch.Tensor:
        """(n_images,) the place of each image in its path, 1 for the first after the start."""
        index = torch.arange(self.n_images, device=self.chain.ptr.device)
        return index - self.chain.rows_of(self.chain.ptr[:-1]) + 1

    @cached_property
    def first(self) -> torch.Tensor:
        """(n_images,) bool, images next to the start."""
        return self.position == 1

    @cached_property
    def last(self) -> torch.Tensor:
        """(n_images,) bool, images next to the end."""
        return self.position == self.chain.rows_of(self.images)

    @cached_property
    def neighbours(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices (n_images,) into ``cat(images, starts, ends)`` of what stands before and after each image."""
        index = torch.arange(self.n_images, device=self.chain.ptr.device)
        problem = self.chain.batch
        before = torch.where(self.first, self.n_images + problem, index - 1)
        after = torch.where(self.last, self.n_images + self.n_problems + problem, index + 1)
        return before, after

    @cached_property
    def neighbour_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows (n_rows,) in the pool ``cat(x, start, end)`` of what stands before and after each row."""
        row = torch.arange(self.frames.n_rows, device=self.chain.ptr.device)
        step = self.frames.rows_of(self.frames.counts)
        start = self.frames.n_rows + self.source
        before = torch.where(self.frames.rows_of(self.first), start, row - step)
        after = torch.where(self.frames.rows_of(self.last), start + self.segments.n_rows, row + step)
        return before, after

    # -- nodes -----------------------------------------------------------------------------------------------------

    @cached_property
    def node_source(self) -> torch.Tensor:
        """(n_nodes,) index into ``cat(images, starts, ends)`` of each node."""
        device = self.chain.ptr.device
        problem = self.nodes.batch
        place = torch.arange(self.nodes.n_rows, device=device) - self.nodes.rows_of(self.nodes.ptr[:-1])
        image = self.chain.ptr[problem] + place - 1
        start = self.n_images + problem
        found = torch.where(place == 0, start, image)
        return torch.where(place == self.images[problem] + 1, start + self.n_problems, found)

    @cached_property
    def node_rows(self) -> torch.Tensor:
        """(n_nodes,) first row of each node in the pool."""
        ends = self.frames.n_rows + self.segments.ptr[:-1]
        return torch.cat([self.frames.ptr[:-1], ends, ends + self.segments.n_rows])[self.node_source]

    def on_nodes(self, images: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        """One array (n_nodes,) out of values of images (n_images,) and of ends (n_problems,)."""
        return torch.cat([images, start, end])[self.node_source]

    def cumulative(self, values: torch.Tensor) -> torch.Tensor:
        """Running sums of ``values (n_nodes,)`` along each path."""
        if self.nodes.size is not None:
            return values.reshape(self.n_problems, -1).cumsum(-1).flatten()
        out = torch.zeros_like(values)
        for size, _, rows in self.nodes.buckets:
            out = out.index_put((rows,), values[rows].reshape(-1, size).cumsum(-1).flatten())
        return out

    def locate(
        self, along: torch.Tensor, wanted: torch.Tensor, of: Segments
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The places where paths have come as far as ``wanted``.

        along: (n_nodes,) rising along each path. wanted: (of.n_rows,) how far along its path each point is.
        of: the points of each path: `chain`, or as many for every path as one likes.

        Returns the node (int64) before each place, and the share in [0, 1] of the way to the next node, which is
        differentiable where ``along`` and ``wanted`` are.
        """
        node = torch.zeros(wanted.numel(), dtype=torch.int64, device=wanted.device)
        for size, problems, rows in self.nodes.buckets:
            _, own = of.select(problems)
            marks = along[rows].reshape(-1, size).contiguous()
            due = (
                wanted[own].reshape(len(problems), -1).contiguous()
            )  # problems of a size have as many points
            found = torch.searchsorted(marks.detach(), due.detach(), right=True) - 1
            found = found.clamp(0, size - 2) + self.nodes.ptr[problems][:, None]
            node = node.index_put((own,), found.flatten())
        gap = along[node + 1] - along[node]
        share = (wanted - along[node]) / gap.clamp(min=torch.finfo(gap.dtype).tiny)
        return node, share.clamp(0.0, 1.0)

    def between(
        self,
        manifold: Manifold,
        pool: torch.Tensor,
        of: Segments,
        node: torch.Tensor,
        share: torch.Tensor,
    ) -> torch.Tensor:
        """Points on the geodesics from nodes to the next ones: (of.n_rows, d).

        of: the rows of each point that is wanted; manifold: of these rows. node (int64), share: of each point, as from
            `locate`. pool: (n_rows + 2 rows of an end, d), ``cat(x, start, end)``.
        """
        within = torch.arange(of.n_rows, device=of.ptr.device) - of.rows_of(of.ptr[:-1])
        a = pool[of.rows_of(self.node_rows[node]) + within]
        b = pool[of.rows_of(self.node_rows[node + 1]) + within]
        return manifold.retract(a, of.scale(share, manifold.difference(a, b)))


def _pointer(counts: torch.Tensor) -> torch.Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
