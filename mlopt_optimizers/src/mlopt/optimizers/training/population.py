"""Tools of meta-trainers that perturb theta: perturbations, tables of losses, and weighted means.

All sums over a population run in a fixed order, one addition after the other. So a result depends neither on the number
of threads nor on the number of ranks.
"""

from __future__ import annotations

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from mlopt.core.batch.random import Stream, derive, normal
from mlopt.core.errors import InputError, MloptError
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.learning import MetaTrainer, Task
from mlopt.core.runs.processes import share_out
from mlopt.optimizers.training.outer_adam import OuterAdam

NOTHING_FINITE = "no loss of this epoch is finite: theta has left the region where the task can be computed"


class Pairs(MetaTrainer):
    """Base of the estimators with antithetic pairs, ``theta + e`` and ``theta - e`` on the same problems."""

    population: int = setting(160, "number of perturbed theta in an epoch, even, two for each pair", ge=2)
    sigma: float = setting(0.1, "standard deviation of the perturbation of each component", gt=0)
    outer: OuterAdam = setting(OuterAdam(), "method that updates theta by the gradient")

    @field_validator("population")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise PydanticCustomError(
                "even",
                "must be even, because perturbations come in pairs of opposite sign; take {one} or {other}",
                {"one": value - 1, "other": value + 1},
            )
        return value

    @property
    def pairs(self) -> int:
        """The number of pairs, half the population."""
        return self.population // 2


def checked(theta: torch.Tensor) -> torch.Tensor:
    """Return a copy of ``theta (p,)`` in float64.

    Raises:
        InputError: an entry is NaN or infinite.
    """
    bad = torch.nonzero(~torch.isfinite(theta)).flatten()
    if theta.ndim != 1 or bad.numel():
        where = (
            f"entry {int(bad[0])} of {theta.numel()} is {float(theta.flatten()[bad[0]])}"
            if bad.numel()
            else ""
        )
        fault = where or f"its shape is {tuple(theta.shape)}, not (p,)"
        raise InputError(
            f"theta cannot be trained: {fault}. Start from other parameters, or from an older checkpoint"
        )
    return theta.detach().to("cpu", torch.float64).clone()


def noise(seed: int, epoch: int, members: torch.Tensor, size: int, sigma: float) -> torch.Tensor:
    """Return the perturbations (n, size) of ``members (n,)`` int64 in an epoch, a function of these numbers alone."""
    key = derive(seed, Stream.NOISE, epoch, members)
    return sigma * normal(key, torch.zeros_like(members), size)


def losses_of(task: Task, theta: torch.Tensor, problem: torch.Tensor, epoch: int, seed: int) -> torch.Tensor:
    """Return the losses (b, k) of ``theta (b, p)`` on ``problem (b, k)`` int64, computed by all ranks together."""
    task.prepare()
    k = problem.shape[1]
    flat = problem.flatten()

    def share(index: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return task.pair_losses(theta[index // k], flat[index], epoch, seed)

    return share_out(flat.numel(), share, batch=task.batch_size).reshape(problem.shape)


def finite(table: torch.Tensor) -> torch.Tensor:
    """Return ``table`` with the highest finite loss in place of losses that are not finite.

    A failure is bad, but not infinitely bad.

    Raises:
        MloptError: nothing is finite.
    """
    sound = torch.isfinite(table)
    if bool(sound.all()):
        return table
    if not bool(sound.any()):
        raise MloptError(NOTHING_FINITE)
    return torch.where(sound, table, table[sound].max())


def weighed(weight: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Return the mean (p,) of ``direction (n, p)`` times ``weight (n,)``, added up in order."""
    total = torch.zeros_like(direction[0])
    for one, along in zip(weight.tolist(), direction, strict=True):
        total = total + one * along
    return total / len(direction)


def centred_ranks(loss: torch.Tensor) -> torch.Tensor:
    """Return the rank (b,) of each of ``loss (b,)``, from -0.5 (lowest) to 0.5. Equal losses share their ranks."""
    less = (loss[None, :] < loss[:, None]).sum(1)
    equal = (loss[None, :] == loss[:, None]).sum(1)
    place = less.to(torch.float64) + 0.5 * (equal - 1).to(torch.float64)
    return place / max(1, len(loss) - 1) - 0.5
