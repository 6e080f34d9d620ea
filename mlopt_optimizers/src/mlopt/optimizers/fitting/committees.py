"""Several fits of one potential, for a committee."""

from __future__ import annotations

from typing import Literal, TypeVar

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.batch.random import normal, problem_keys, uniform
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.fitting.least_squares import Weights, covariance_root, solve, triangle
from mlopt.optimizers.fitting.training import Trainer, Training

P = TypeVar("P", bound=FittablePotential)


def fit_members(
    data: Dataset,
    potential: P,
    count: int = 8,
    *,
    by: Literal["bootstrap", "covariance", "seeds"] | None = None,
    weights: Weights | None = None,
    training: Training | None = None,
    seed: int = 0,
) -> tuple[P, torch.Tensor]:
    """Return ``potential`` prepared for ``data``, and the parameters of ``count`` fits: (count, p).

    by: the source of the differences between fits.

    - ``bootstrap``, for potentials that are linear in their parameters and their default: each fit has as many
      structures as ``data``, drawn with replacement.
    - ``covariance``, for these potentials too: parameters are drawn from the posterior of one fit.
    - ``seeds``, for all other potentials: ``count`` trainings from different starts. ``training.seeds`` is not used.

    Raises:
        InputError: ``count`` is less than 2, or ``by``, ``weights`` or ``training`` does not go with the potential.

    >>> from mlopt.potentials import Committee, Mtp
    >>> committee = Committee.of(*fit_members(data, Mtp(level=8)))  # doctest: +SKIP
    """
    if count < 2:
        raise InputError(f"fit_members: `count` must be at least 2, got {count}")
    prepared = potential.prepared(data)
    by = by or ("bootstrap" if prepared.linear else "seeds")
    if (by == "seeds") == prepared.linear:
        other = "bootstrap or covariance" if prepared.linear else "seeds"
        raise InputError(f"fit_members: `by: {by}` does not go with {potential.giver}; take {other}")
    name, unused = ("training", training) if prepared.linear else ("weights", weights)
    if unused is not None:
        raise InputError(f"fit_members: `{name}` plays no part in fits by {by}; leave it out")
    if by == "seeds":
        trainer = Trainer((training or Training()).replace(seeds=count), prepared, data, seed)
        while not trainer.done:
            trainer.advance()
        return prepared, trainer.result().theta
    chosen, degrees = weights or Weights(), prepared.roughness()
    rows = triangle(prepared, data, chosen)
    solution = solve(rows, degrees)
    keys = problem_keys(seed, torch.arange(count))
    if by == "covariance":
        drawn = normal(keys, torch.zeros_like(keys), len(solution.theta))
        return prepared, solution.theta + drawn @ covariance_root(rows, solution, degrees).T
    places = (uniform(keys, torch.zeros_like(keys), len(data)) * len(data)).long()
    found = [
        solve(triangle(prepared, data.select(one), chosen), degrees, strength=solution.strength).theta
        for one in places
    ]
    return prepared, torch.stack(found)
