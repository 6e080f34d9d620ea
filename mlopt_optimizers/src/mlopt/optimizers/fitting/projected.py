"""Nonlinear parameters of a linear potential: its least-squares problem is solved inside, an optimizer works outside.

This is variable projection (Golub & Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)). For a moment tensor potential the
nonlinear parameters are the coefficients of its radial functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.landscapes.manifold import Flat
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential, Predictions
from mlopt.optimizers.fitting.least_squares import Solution, Weights, prior_factors, solve_bound, triangle
from mlopt.optimizers.fitting.loss import Loss, residuals
from mlopt.optimizers.fitting.training import Stage

P = TypeVar("P", bound=FittablePotential)

#: deviation of the nonlinear parameters from zero: shares of a radial function whose own degree has 1
SPREAD = 0.03
#: atoms whose predictions are differentiated at a time
_ATOMS = 256


class ProjectedLandscape(Landscape):
    """The loss of k sets of nonlinear parameters, each at its best theta: k problems of q rows, one number wide.

    The energy is the mean of the squares of a linear fit at its solution, including the shares of both priors. At the
    solution the derivative of the squares in theta is zero. The gradient is therefore the derivative of the squares at
    fixed theta (envelope theorem).

    potential: the potential that is fitted, linear in theta, with `FittablePotential.nonlinear` parameters.
    factors (p,): factors of the prior, see `prior_factors`. They do not change with the nonlinear parameters.
    penalty: factor on the sum of squares of the nonlinear parameters, which is the share of their prior.
    weights, memory: as in `triangle`.
    """

    def __init__(
        self,
        potential: FittablePotential,
        data: Dataset,
        weights: Weights,
        factors: NDArray[np.float64],
        memory: float = 1.0,
        problems: int = 1,
        penalty: float = 0.0,
    ) -> None:
        start = _free(potential)
        self.segments = Segments.uniform(problems, len(start))
        self.manifold = Flat()
        self._potential, self._data, self._weights = potential, data, weights
        self._factors, self._memory, self._penalty = factors, memory, penalty
        loss = Loss(kind="weighted", weights=weights)
        blocks = [data.select(list(range(*one))) for one in data.systems.segments.blocks(_ATOMS)]
        self._blocks = [(one, loss.factors(one)) for one in blocks]

    def select(self, problems: torch.Tensor) -> ProjectedLandscape:
        """See `Landscape.select`."""
        told = (self._potential, self._data, self._weights, self._factors, self._memory)
        return ProjectedLandscape(*told, problems=len(problems), penalty=self._penalty)

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Return the loss and minus its gradient at ``x (k q, 1)``; NaN where rows are not finite."""
        values = x.detach().to("cpu", torch.float64).reshape(self.segments.n_problems, -1)
        found = [self._at(one) for one in values]
        energy = torch.stack([one for one, _ in found])
        return Evaluation(energy.to(x), torch.cat([-slope for _, slope in found])[:, None].to(x))

    def _at(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss and its gradient (q,) at ``values (q,)``."""
        point = values.clone().requires_grad_(True)
        with torch.enable_grad():
            potential = self._potential.with_nonlinear(point)
        rows = triangle(potential, self._data, self._weights, self._memory)
        if not np.isfinite(rows.upper).all():
            return values.new_tensor(torch.nan), torch.full_like(values, torch.nan)
        theta, squares = solve_bound(rows, self._factors)
        squares += self._penalty * float(values @ values)
        slope = 2.0 * self._penalty * values
        for data, factors in self._blocks:
            with torch.enable_grad():
                solved = potential.with_theta(torch.from_numpy(theta))
                found = solved.evaluate(data.systems, stress=bool((factors[2] > 0).any()))
                stress = None if found.stress is None else found.stress[None]
                told = Predictions(found.energy[None], found.force[None], stress)
                off = residuals(told, data, factors)
                # the way from `point` to the radial functions is one for all blocks
                (part,) = torch.autograd.grad((off * off).sum(), point, retain_graph=True)
            slope = slope + part
        return values.new_tensor(squares / rows.rows), slope / rows.rows


def _free(potential: FittablePotential) -> torch.Tensor:
    """Return the nonlinear parameters of a potential (q,).

    Raises:
        InputError: it has none.
    """
    found = potential.nonlinear if potential.linear else None
    if found is None:
        raise InputError(
            f"`radial`: {type(potential).__name__} has no radial coefficients that a fit could choose; leave it out"
        )
    if not found.numel():
        raise InputError(
            f"`radial`: the only radial function of this {type(potential).__name__} is of one degree; raise `chebyshev`"
        )
    return found


class RadialFit(Generic[P]):
    """A fit of nonlinear parameters in flight, which can be saved between two steps and goes on bit for bit.

    potential: the potential, prepared for the data; the fit starts from its parameters.
    solution: the linear fit at the start, under the same weights. It gives the strength of the prior and the deviation
        of a row.
    stage: the optimizer, and the number of evaluations that it may take.
    seed: seed of an optimizer that draws random numbers.
    spread: standard deviation of the nonlinear parameters' normal prior around zero. Without this prior two functions
        might become alike, and shares might grow without end at no cost.

    Raises:
        InputError: the potential has no nonlinear parameters. ``stage`` takes a part of the structures at a time, or
            has an optimizer of sums of squares alone.
    """

    def __init__(
        self,
        potential: P,
        data: Dataset,
        stage: Stage,
        *,
        solution: Solution,
        weights: Weights,
        smooth: float = 1.0,
        spread: float = SPREAD,
        memory: float = 1.0,
        seed: int = 0,
    ) -> None:
        check_radial(potential, stage)
        start = _free(potential)
        rows = triangle(potential, data, weights, memory)
        factors = prior_factors(rows, potential.roughness(), strength=solution.strength, smooth=smooth)
        self.potential = potential
        penalty = (solution.deviation / spread) ** 2
        landscape = ProjectedLandscape(potential, data, weights, factors, memory, penalty=penalty)
        optimizer, stop = stage.minimiser(len(start)), Stop(stage.evaluations)
        self.driver = Driver(landscape, optimizer, stop, keep=0, lowest=True)
        self.progress = self.driver.begin(
            start[:, None], problem_keys(seed, torch.zeros(1, dtype=torch.int64))
        )

    @property
    def done(self) -> bool:
        """Whether all evaluations have been taken."""
        return self.progress.done

    @property
    def evaluations(self) -> int:
        """Evaluations so far."""
        return self.progress.total_calls

    @property
    def loss(self) -> float:
        """The lowest loss so far; infinity before the first."""
        return float(self.progress.snapshot().tally.energy)

    def advance(self, pause: Callable[[], bool] | None = None, until: int | None = None) -> None:
        """Go on, up to so many evaluations or a pause between two."""
        self.progress = self.driver.advance(self.progress, pause, until)

    def result(self) -> P:
        """Return the potential with the nonlinear parameters of the lowest loss; theta is still to be solved for."""
        return self.potential.with_nonlinear(self.progress.snapshot().tally.x[:, 0])

    def to_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return tensors and plain data that `load_checkpoint` takes back."""
        return self.progress.to_checkpoint()

    def load_checkpoint(self, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        """Go on from what `to_checkpoint` returned.

        Raises:
            CheckpointError: it is of another fit.
        """
        self.progress.load_checkpoint(tensors, meta)


def check_radial(potential: FittablePotential, stage: Stage) -> None:
    """Refuse a fit of radial coefficients that makes no sense.

    Raises:
        InputError: as `RadialFit`.
    """
    _free(potential)
    if stage.batch is not None:
        raise InputError(
            "`radial.batch`: the least-squares problem inside takes all structures; leave it out"
        )
    if stage.optimizer is not None and stage.optimizer.squares_only:
        raise InputError(
            f"`radial.optimizer`: {type(stage.optimizer).__name__} needs the residuals of the loss, which the solved "
            f"least-squares problem does not give; take lbfgs, bfgs or adam"
        )
