"""A fit in one call: labelled structures and a potential in, the fitted potential out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.errors import InputError
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.core.structures.labels import labelled, read_dataset
from mlopt.optimizers.fitting.least_squares import Weights, solve, triangle
from mlopt.optimizers.fitting.projected import RadialFit
from mlopt.optimizers.fitting.training import Stage, Trainer, Training

if TYPE_CHECKING:
    from ase import Atoms

P = TypeVar("P", bound=FittablePotential)


def fit(
    data: Dataset | Sequence[Atoms] | str | Path,
    potential: P,
    *,
    weights: Weights | None = None,
    radial: Stage | None = None,
    training: Training | None = None,
    seed: int = 0,
) -> P:
    """Return ``potential`` fitted to ``data``.

    A potential that is linear in its parameters is fitted by least squares, under the prior of the largest evidence.
    Any other potential is trained. The experiment `Fit` does the same, chooses between settings, tests, and writes a
    report.

    data: a dataset, ASE ``Atoms`` that carry energies and forces, or a file of such.
    weights: weights of residuals, for a linear potential.
    radial: the optimizer of the radial coefficients of a linear potential; None leaves these as they are.
    training: the settings of the training, for any other potential.
    seed: the seed of a training.

    Raises:
        InputError: the data have no labels, or are unsound. An argument is for potentials of the other kind.

    >>> from mlopt.potentials import Mtp
    >>> potential = fit("train.xyz", Mtp(level=16))  # doctest: +SKIP
    """
    if isinstance(data, str | Path):
        data = read_dataset(data)
    elif not isinstance(data, Dataset):
        data = labelled(data)
    given = {"training": training} if potential.linear else {"weights": weights, "radial": radial}
    kind = "linear in its parameters" if potential.linear else "trained, with the weights of `training.loss`"
    for name, value in given.items():
        if value is not None:
            raise InputError(f"fit: `{name}` plays no part, for {potential.giver} is {kind}; leave it out")
    prepared = potential.prepared(data)
    if prepared.linear:
        weights = weights or Weights()
        rows = triangle(prepared, data, weights)
        if radial is not None:
            solution = solve(rows, prepared.roughness())
            search = RadialFit(prepared, data, radial, solution=solution, weights=weights, seed=seed)
            search.advance()
            prepared = search.result()
            rows = triangle(prepared, data, weights)
        return prepared.with_theta(solve(rows, prepared.roughness()).theta)
    trainer = Trainer(training or Training(), prepared, data, seed)
    while not trainer.done:
        trainer.advance()
    found = trainer.result()
    return prepared.with_theta(found.theta[found.best])
