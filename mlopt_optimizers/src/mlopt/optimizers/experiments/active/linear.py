"""The knowledge of an active run whose potential is linear in its parameters, by least squares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.experiments.active.learned import Learned, Learner, counted, entering
from mlopt.optimizers.experiments.active.wishes import Wish
from mlopt.optimizers.fitting.least_squares import Solution, Triangle, Weights, solve, triangle
from mlopt.optimizers.fitting.projected import RadialFit
from mlopt.optimizers.fitting.training import Look, Stage
from mlopt.optimizers.querying.active_set import ActiveSet
from mlopt.optimizers.querying.grade import By, Grader

#: evaluations of radial functions between two looks
_EVERY = 10


@dataclass(frozen=True, eq=False)
class LinearLearned(Learned):
    """The knowledge of a potential that is linear in its parameters.

    rows: the rows of the fit to the labels.
    solution: the coefficients of the fit.
    shaped: number of labels in the last fit of the `nonlinear` parameters, the radial functions; 0 without such a fit.
    """

    of_fit: ClassVar[tuple[str, ...]] = ("prior", "weights", "radial")

    grader: Grader
    rows: Triangle
    solution: Solution
    shaped: int = 0

    def teaching(self, wishes: Sequence[Wish]) -> list[int]:
        """See `Learned.teaching`: those with rows that enter the active set."""
        return entering(self.grader, wishes, len(self.data))

    def told(self) -> dict[str, Any]:
        """See `Learned.told`."""
        return {
            "parameters": int(self.solution.theta.shape[-1]),
            "lambda": self.solution.strength,
            "rank": self.grader.active_set.rank,
            **({"radial_labels": self.shaped} if self.shaped else {}),
        }

    def grounds(self) -> str:
        """See `Learned.grounds`."""
        return f"rank {self.grader.active_set.rank} of the active set"

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """See `Learned.to_tensors`."""
        rows, found = self.rows, {f"active.{k}": v for k, v in self.grader.active_set.to_tensors().items()}
        if self.shaped and self.potential.nonlinear is not None:
            found |= {"radial.values": self.potential.nonlinear, "radial.labels": torch.tensor(self.shaped)}
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
    """A learner by least squares, which adds the rows of new labels to those of the fit.

    weights, strength, smooth, memory: see `triangle` and `solve`.
    by: see `Grader`.
    radial: the stage that fits the `nonlinear` parameters of the potential, see `RadialFit`; None leaves them as they
        are. They are fitted to the first labels. The fit goes on when labels are ``growth`` times as many as before.
    spread, seed: as in `RadialFit`.
    looked: a function that is called at every few evaluations; an exception that it raises ends the fit.
    """

    weights: Weights
    strength: float | None
    smooth: float
    memory: float
    by: By
    radial: Stage | None
    growth: float
    spread: float
    seed: int
    looked: Callable[[Look], None]

    def _first(self, data: Dataset, core: torch.Tensor) -> Learned:
        return self._shaped(self.base.prepared(data), data, core)

    def _with(self, known: Learned, new: Dataset, core: torch.Tensor) -> Learned:
        """Add the new rows to those of the fit, and to the active set.

        Where the new structures change what the potential takes from data, such as the shortest distance between atoms,
        all rows are computed anew.
        """
        assert isinstance(known, LinearLearned)
        data, together = Dataset.concatenate([known.data, new]), torch.cat([known.core, core])
        prepared, shaped = self.base.prepared(data), known.shaped
        if shaped and known.potential.nonlinear is not None:
            prepared = prepared.with_nonlinear(known.potential.nonlinear)
        if shaped and len(data) >= self.growth * shaped:
            return self._shaped(prepared, data, together)
        if prepared.with_theta(known.solution.theta).config() != known.potential.config():
            return self._anew(prepared, data, together, shaped)
        more = triangle(prepared, counted(new, core), self.weights, self.memory)
        grader, _, _ = known.grader.extended(new.systems, first=len(known.data), among=core)
        grader = replace(grader, potential=prepared)
        return self._solved(data, together, Triangle.merged([known.rows, more]), grader, shaped)

    def _again(self, data: Dataset, core: torch.Tensor, tensors: dict[str, torch.Tensor]) -> Learned:
        n_forces, count = tensors["rows.counts"].tolist()
        rows = Triangle(tensors["rows.upper"].numpy(), tensors["rows.squares"].numpy(), n_forces, count)
        prepared, shaped = self.base.prepared(data), 0
        if "radial.values" in tensors:
            prepared, shaped = (
                prepared.with_nonlinear(tensors["radial.values"]),
                int(tensors["radial.labels"]),
            )
        grader = Grader(prepared, ActiveSet.of_tensors(of_active_set(tensors)), self.by)
        return self._solved(data, core, rows, grader, shaped)

    def _shaped(self, prepared: FittablePotential, data: Dataset, core: torch.Tensor) -> LinearLearned:
        """Fit radial functions as well, from those that the potential has, where that is asked for."""
        if self.radial is None:
            return self._anew(prepared, data, core)
        labels = counted(data, core)
        rows = triangle(prepared, labels, self.weights, self.memory)
        found = solve(rows, prepared.roughness(), strength=self.strength, smooth=self.smooth)
        search = RadialFit(
            prepared,
            labels,
            self.radial,
            solution=found,
            weights=self.weights,
            smooth=self.smooth,
            spread=self.spread,
            memory=self.memory,
            seed=self.seed,
        )
        while not search.done:
            search.advance(until=search.evaluations + _EVERY)
            self.looked(Look(0, search.evaluations, [search.loss], [search.loss]))
        return self._anew(search.result(), data, core, len(data))

    def _anew(
        self, prepared: FittablePotential, data: Dataset, core: torch.Tensor, shaped: int = 0
    ) -> LinearLearned:
        rows = triangle(prepared, counted(data, core), self.weights, self.memory)
        return self._solved(data, core, rows, Grader.of(prepared, data.systems, self.by, among=core), shaped)

    def _solved(
        self, data: Dataset, core: torch.Tensor, rows: Triangle, grader: Grader, shaped: int
    ) -> LinearLearned:
        degrees = grader.potential.roughness()
        found = solve(rows, degrees, strength=self.strength, smooth=self.smooth)
        grader = replace(grader, potential=grader.potential.with_theta(found.theta))
        return LinearLearned(data, core, grader, self._ranked(data), rows, found, shaped)


def of_active_set(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of an active set among those of a checkpoint."""
    return {name.removeprefix("active."): one for name, one in tensors.items() if name.startswith("active.")}
