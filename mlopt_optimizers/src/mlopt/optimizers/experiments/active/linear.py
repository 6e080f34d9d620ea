"""The knowledge of an active run whose potential is linear in its parameters: rows are added up, and solved for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.experiments.active.learned import Learned, Learner, counted, entering
from mlopt.optimizers.experiments.active.wishes import Wish
from mlopt.optimizers.fitting.least_squares import Solution, Triangle, Weights, solve, triangle
from mlopt.optimizers.querying.active_set import ActiveSet
from mlopt.optimizers.querying.grade import By, Grader


@dataclass(frozen=True, eq=False)
class LinearLearned(Learned):
    """What is known of a potential that is solved for.

    rows: of the fit to the labels. solution: of the fit.
    """

    of_fit: ClassVar[tuple[str, ...]] = ("prior", "weights")

    grader: Grader
    rows: Triangle
    solution: Solution

    def teaching(self, wishes: Sequence[Wish]) -> list[int]:
        """See `Learned.teaching`: those with rows that enter the active set."""
        return entering(self.grader, wishes, len(self.data))

    def told(self) -> dict[str, Any]:
        """See `Learned.told`."""
        return {
            "parameters": int(self.solution.theta.shape[-1]),
            "lambda": self.solution.strength,
            "rank": self.grader.active_set.rank,
        }

    def grounds(self) -> str:
        """See `Learned.grounds`."""
        return f"rank {self.grader.active_set.rank} of the active set"

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """See `Learned.to_tensors`."""
        rows, found = self.rows, {f"active.{k}": v for k, v in self.grader.active_set.to_tensors().items()}
        return (
            found
            | super().to_tensors()
            | {
                "rows.upper": torch.from_numpy(rows.upper),
                "rows.squares": torch.from_numpy(rows.squares),
                "rows.counts": torch.tensor([rows.n_forces, rows.rows]),
            }
        )


@dataclass(frozen=True)
class LinearLearner(Learner):
    """How labels become knowledge by least squares: the rows of new ones are added to those of the fit.

    weights, strength, smooth, memory: see `triangle` and `solve`. by: see `Grader`.
    """

    weights: Weights
    strength: float | None
    smooth: float
    memory: float
    by: By

    def _first(self, data: Dataset, core: torch.Tensor) -> Learned:
        return self._anew(self.base.prepared(data), data, core)

    def _with(self, known: Learned, new: Dataset, core: torch.Tensor) -> Learned:
        """Add the new rows to those of the fit, and to the active set.

        Where the new structures change what the potential takes from data, such as the shortest distance between atoms,
        all rows are computed anew.
        """
        assert isinstance(known, LinearLearned)
        data, together = Dataset.concatenate([known.data, new]), torch.cat([known.core, core])
        prepared = self.base.prepared(data)
        if prepared.with_theta(known.solution.theta).config() != known.potential.config():
            return self._anew(prepared, data, together)
        more = triangle(prepared, counted(new, core), self.weights, self.memory)
        grader, _, _ = known.grader.extended(new.systems, first=len(known.data), among=core)
        grader = replace(grader, potential=prepared)
        return self._solved(data, together, Triangle.merged([known.rows, more]), grader)

    def _again(self, data: Dataset, core: torch.Tensor, tensors: dict[str, torch.Tensor]) -> Learned:
        n_forces, count = tensors["rows.counts"].tolist()
        rows = Triangle(tensors["rows.upper"].numpy(), tensors["rows.squares"].numpy(), n_forces, count)
        grader = Grader(self.base.prepared(data), ActiveSet.of_tensors(of_active_set(tensors)), self.by)
        return self._solved(data, core, rows, grader)

    def _anew(self, prepared: FittablePotential, data: Dataset, core: torch.Tensor) -> Learned:
        rows = triangle(prepared, counted(data, core), self.weights, self.memory)
        return self._solved(data, core, rows, Grader.of(prepared, data.systems, self.by, among=core))

    def _solved(self, data: Dataset, core: torch.Tensor, rows: Triangle, grader: Grader) -> Learned:
        degrees = grader.potential.roughness()
        found = solve(rows, degrees, strength=self.strength, smooth=self.smooth)
        grader = replace(grader, potential=grader.potential.with_theta(found.theta))
        return LinearLearned(data, core, grader, self._ranked(data), rows, found)


def of_active_set(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of an active set among those of a checkpoint."""
    return {name.removeprefix("active."): one for name, one in tensors.items() if name.startswith("active.")}
