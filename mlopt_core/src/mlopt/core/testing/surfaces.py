"""Small landscapes for contracts, each for another property."""

from __future__ import annotations

from collections.abc import Callable

from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import FunctionLandscape, Landscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.core.lazy import torch


def quadratic(sizes: list[int], seed: int = 0) -> tuple[FunctionLandscape, torch.Tensor]:
    """Return a bowl with curvatures 1, 4 and 9 along x, y and z about the origin, and a start (n_rows, 3)."""

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum(x * x * torch.tensor([0.5, 2.0, 4.5], dtype=x.dtype, device=x.device))

    return _made(energy, sizes, seed)


def pass_between_bowls(sizes: list[int], seed: int = 0) -> tuple[FunctionLandscape, torch.Tensor]:
    """Return two bowls with a saddle at the origin, and a start (n_rows, 3) near it.

    The curvature at the saddle is -2 along the mean of x.
    """

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        bowl = segments.sum(x * x * torch.tensor([0.5, 2.0, 4.5], dtype=x.dtype, device=x.device))
        along2 = segments.sum(x[:, :1]) ** 2 / segments.counts
        return bowl - 1.5 * along2 + 0.25 * along2**2

    landscape, x = _made(energy, sizes, seed)
    return landscape, 0.2 * x


def lennard_jones(sizes: list[int], seed: int = 0) -> tuple[FunctionLandscape, torch.Tensor]:
    """Return clusters with pair energies ``r^-12 - 2 r^-6``, and starts (n_rows, 3) without close pairs."""

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        total = x.new_zeros(segments.n_problems)
        for size, problems, rows in segments.buckets:
            pos = x[rows].reshape(-1, size, x.shape[1])
            i, j = torch.triu_indices(size, size, 1, device=x.device)
            delta = pos[:, i] - pos[:, j]
            s = (delta * delta).sum(-1).reciprocal() ** 3
            total = total.index_put((problems,), (s * (s - 2.0)).sum(-1))
        return total

    landscape, noise = _made(energy, sizes, seed)
    within = torch.arange(landscape.segments.n_rows) - landscape.segments.rows_of(landscape.segments.ptr[:-1])
    grid = torch.stack([within % 3, within // 3 % 3, within // 9], -1).to(noise)
    return landscape, 1.1 * grid + 0.1 * noise


def spins(sizes: list[int], seed: int = 0) -> tuple[FunctionLandscape, torch.Tensor]:
    """Return open chains of unit vectors (n_rows, 3) with exchange and a field along z, whose minimum is all up."""

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        total = -segments.sum(x[:, 2])
        for size, problems, rows in segments.buckets:
            chain = x[rows].reshape(-1, size, x.shape[1])
            pairs = (chain[:, 1:] * chain[:, :-1]).reshape(len(problems), -1)
            total = total.index_add(0, problems, -pairs.sum(-1))
        return total

    landscape, x = _made(energy, sizes, seed)
    landscape.manifold = UnitSphere()
    return landscape, x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def _made(
    energy: Callable[[torch.Tensor, Segments], torch.Tensor], sizes: list[int], seed: int
) -> tuple[FunctionLandscape, torch.Tensor]:
    segments = Segments(torch.tensor([0, *sizes]).cumsum(0))
    generator = torch.Generator().manual_seed(seed)
    return FunctionLandscape(energy, segments), torch.randn(
        segments.n_rows, 3, dtype=torch.float64, generator=generator
    )


class Watched(Landscape):
    """A wrapper of a landscape that counts evaluations, spoils energies or fixes rows.

    calls: force calls of all problems together, shared with every part that `select` makes.
    poison: ``(problem, first)``: from its ``first`` evaluation on, that problem's energy is NaN.
    pinned: (n_rows,) bool, rows that are declared fixed and feel no force.
    """

    def __init__(
        self,
        inner: Landscape,
        poison: tuple[int, int] | None = None,
        pinned: torch.Tensor | None = None,
        problems: torch.Tensor | None = None,
        calls: list[int] | None = None,
    ) -> None:
        self.inner, self.poison, self.fixed = inner, poison, pinned
        self.segments, self.manifold = inner.segments, inner.manifold
        self.species, self.diameter = inner.species, inner.diameter
        self.problems = torch.arange(inner.segments.n_problems) if problems is None else problems
        self.calls = [0, 0] if calls is None else calls  # of all problems; of the poisoned one

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Count, evaluate, spoil energies, and zero the forces on fixed rows."""
        self.calls[0] += len(self.problems)
        found = self.inner.evaluate(x)
        energy, force = found.energy, found.force
        if self.poison is not None:
            bad = self.problems == self.poison[0]
            self.calls[1] += int(bad.any())
            if self.calls[1] >= self.poison[1]:
                energy = energy.masked_fill(bad, torch.nan)
        if self.fixed is not None:
            force = force.masked_fill(self.fixed[:, None], 0.0)
        return Evaluation(energy, force, found.row_energy)

    def select(self, problems: torch.Tensor) -> Watched:
        """Return the wrapper of the chosen problems."""
        _, rows = self.segments.select(problems)
        pinned = None if self.fixed is None else self.fixed[rows]
        return Watched(self.inner.select(problems), self.poison, pinned, self.problems[problems], self.calls)
