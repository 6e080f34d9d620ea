"""The layout of the rows of a batch of paths: images one after another, problem by problem, between constant ends.

A path of a problem with n rows and M moving images has M + 2 nodes: the start, the images, the end. Only the images
are rows of the band, ``M n`` of them. The two ends stand behind all rows, in a pool ``cat(x, start, end)``, so that
neighbours can be gathered by index. Every function here works for bands of unlike sizes and numbers of images, and
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
    images: number of moving images, one for all problems or one for each (a sequence or an int64 tensor).

    chain: Segments whose rows are the images of each problem.
    frames: Segments of the rows of each image.
    band: Segments of the rows of each problem's whole band.
    nodes: Segments of the nodes of each problem.
    source (n_rows,) int64: the row of the landscape of which each row of the band is an image.

    Raises:
        InputError: an image count is below 1, or a list of counts has not one for each problem.
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
        """The number of paths."""
        return self.segments.n_problems

    def select(self, problems: torch.Tensor) -> tuple[Layout, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the layout of some of the paths, and indices of their images, rows of the band, and rows of an end."""
        segments, ends = self.segments.select(problems)
        _, images = self.chain.select(problems)
        _, rows = self.band.select(problems)
        return Layout(segments, self.images[problems]), images, rows, ends

    # -- neighbours ------------------------------------------------------------------------------------------------

    @cached_property
    def position(self) -> torch.Tensor:
        """The place of each image in its path, (n_images,) int64, 1 for the first after the start."""
        index = torch.arange(self.n_images, device=self.chain.ptr.device)
        return index - self.chain.rows_of(self.chain.ptr[:-1]) + 1

    @cached_property
    def first(self) -> torch.Tensor:
        """The images next to the start, (n_images,) bool."""
        return self.position == 1

    @cached_property
    def last(self) -> torch.Tensor:
        """The images next to the end, (n_images,) bool."""
        return self.position == self.chain.rows_of(self.images)

    @cached_property
    def neighbours(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The nodes before and after each image, (n_images,) indices into ``cat(images, starts, ends)``."""
        index = torch.arange(self.n_images, device=self.chain.ptr.device)
        problem = self.chain.batch
        before = torch.where(self.first, self.n_images + problem, index - 1)
        after = torch.where(self.last, self.n_images + self.n_problems + problem, index + 1)
        return before, after

    @cached_property
    def neighbour_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows before and after each row, (n_rows,) indices into the pool ``cat(x, start, end)``."""
        row = torch.arange(self.frames.n_rows, device=self.chain.ptr.device)
        step = self.frames.rows_of(self.frames.counts)
        start = self.frames.n_rows + self.source
        before = torch.where(self.frames.rows_of(self.first), start, row - step)
        after = torch.where(self.frames.rows_of(self.last), start + self.segments.n_rows, row + step)
        return before, after

    # -- nodes -----------------------------------------------------------------------------------------------------

    @cached_property
    def node_source(self) -> torch.Tensor:
        """The index (n_nodes,) of each node in ``cat(images, starts, ends)``."""
        device = self.chain.ptr.device
        problem = self.nodes.batch
        place = torch.arange(self.nodes.n_rows, device=device) - self.nodes.rows_of(self.nodes.ptr[:-1])
        image = self.chain.ptr[problem] + place - 1
        start = self.n_images + problem
        found = torch.where(place == 0, start, image)
        return torch.where(place == self.images[problem] + 1, start + self.n_problems, found)

    @cached_property
    def node_rows(self) -> torch.Tensor:
        """The first row (n_nodes,) of each node in the pool."""
        ends = self.frames.n_rows + self.segments.ptr[:-1]
        return torch.cat([self.frames.ptr[:-1], ends, ends + self.segments.n_rows])[self.node_source]

    def on_nodes(self, images: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        """Return values (n_nodes,) of nodes from those of images (n_images,) and of both ends (n_problems,)."""
        return torch.cat([images, start, end])[self.node_source]

    def cumulative(self, values: torch.Tensor) -> torch.Tensor:
        """Return running sums (n_nodes,) of ``values (n_nodes,)`` along each path."""
        if self.nodes.size is not None:
            return values.reshape(self.n_problems, -1).cumsum(-1).flatten()
        out = torch.zeros_like(values)
        for size, _, rows in self.nodes.buckets:
            out = out.index_put((rows,), values[rows].reshape(-1, size).cumsum(-1).flatten())
        return out

    def locate(
        self, along: torch.Tensor, wanted: torch.Tensor, of: Segments
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the places where paths have come as far as ``wanted``.

        Return the node (of.n_rows,) int64 before each place, and the share (of.n_rows,) of the way to the next node.
        The share is in [0, 1], and differentiable where ``along`` and ``wanted`` are.

        along: (n_nodes,) rising along each path.
        wanted: (of.n_rows,) distance of each place along its path.
        of: Segments of the places of each path, such as `chain`.
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
        """Return points (of.n_rows, d) on the geodesics from nodes to the next ones.

        of: Segments of the rows of each point.
        manifold: the manifold of these rows.
        node (int64), share: place of each point, as from `locate`.
        pool: ``cat(x, start, end)``, (n_rows + 2 rows of an end, d).
        """
        within = torch.arange(of.n_rows, device=of.ptr.device) - of.rows_of(of.ptr[:-1])
        a = pool[of.rows_of(self.node_rows[node]) + within]
        b = pool[of.rows_of(self.node_rows[node + 1]) + within]
        return manifold.retract(a, of.scale(share, manifold.difference(a, b)))


def _pointer(counts: torch.Tensor) -> torch.Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
