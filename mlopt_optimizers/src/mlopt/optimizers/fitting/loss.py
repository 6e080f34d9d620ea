"""The loss of a potential that is not linear in its parameters, as a landscape over these."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.landscapes.manifold import Flat
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin, setting
from mlopt.core.protocols.fittable import FittablePotential, Predictions
from mlopt.core.runs.processes import share_out
from mlopt.optimizers.fitting.least_squares import Weights

#: step of differences in theta, relative to 1 + |theta|, and how many thetas are evaluated at once for these
_STEP, _TOGETHER = 1e-6, 32


class Loss(Plugin):
    """The loss that training minimises.

    - ``weighted``: the mean of squared residuals over all energies, components of forces and of stresses. Residuals
      have the weights of a linear fit.
    - ``amp``: the mean over structures of ``(dE / N)^2 + force_coefficient sum |dF|^2 / (3 N)`` (Khorshidi & Peterson,
      Comput. Phys. Commun. 207, 310 (2016)). Amp itself takes the sum, which has its minimum at the same place.
    """

    kind: Literal["weighted", "amp"] = setting("weighted", "which of the two")
    weights: Weights = setting(Weights(energy=6.0), "what residuals count, of the weighted loss")
    force_coefficient: float = setting(0.04, "of Amp's loss; 0: energies alone", ge=0)
    decay: float = setting(0.0, "factor on the sum of squares of all parameters, which is added", ge=0)

    def factors(self, data: Dataset) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return factors on squared residuals of ``data``: energies (n,), forces (n_atoms,), stresses (n,).

        Factors are zero where there is no label, and for forces on fixed atoms. An atom with a known force counts,
        whether or not the other atoms have one. The sum over a whole set is divided by the `size` of that set.
        """
        segments, systems = data.systems.segments, data.systems
        atoms = segments.counts.to(torch.float64)
        share = data.weight
        if self.kind == "amp":
            energy, force = share / atoms**2, self.force_coefficient * share / (3.0 * atoms)
            stress = torch.zeros_like(share)
        else:
            energy, force = self.weights.energy**2 * share / atoms, self.weights.force**2 * share
            stress = (self.weights.stress * systems.volume) ** 2 * share / atoms
        with_force = torch.isfinite(data.force).all(-1) & ~systems.fixed
        return (
            torch.where(data.with_energy, energy, 0.0),
            torch.where(with_force, segments.rows_of(force), 0.0),
            torch.where(data.with_stress, stress, 0.0),
        )

    def size(self, data: Dataset) -> float:
        """Return the divisor of the sum over ``data``: the number of structures, or of residuals that count."""
        if self.kind == "amp":
            return float(len(data))
        energy, force, stress = self.factors(data)
        return float((energy > 0).sum() + 3 * (force > 0).sum() + 9 * (stress > 0).sum())


@dataclass(frozen=True, eq=False)
class _Block:
    """Some structures, with what the potential computes of them in advance."""

    data: Dataset
    factors: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    evaluated: Callable[[torch.Tensor], Predictions]

    def residuals(self, theta: torch.Tensor) -> torch.Tensor:
        """Weighted residuals of all labels that count, under each ``theta (k, p)``: (k, n)."""
        return residuals(self.evaluated(theta), self.data, self.factors)

    def squares(self, theta: torch.Tensor) -> torch.Tensor:
        """Weighted squares, summed over the block, under each ``theta (k, p)``: (k,)."""
        return (self.residuals(theta) ** 2).sum(1)

    def curvature(self, theta: torch.Tensor) -> torch.Tensor:
        """``2 J^T J`` of the residuals, whose derivatives J are differences: (k, p, p)."""
        # exact derivatives, by forward differentiation, would cost two evaluations for each parameter in place of one,
        # and every potential would have to allow it; the gradient is exact, so only the steps feel the differences
        p, found = theta.shape[1], []
        for one in theta:
            base = self.residuals(one[None])
            step = _STEP * (1.0 + one.abs())
            parts = []
            for first in range(0, p, _TOGETHER):
                moved = one + torch.diag(step)[first : first + _TOGETHER]
                parts.append((self.residuals(moved) - base) / step[first : first + _TOGETHER, None])
            jacobian = torch.cat(parts)
            found.append(2.0 * jacobian @ jacobian.T)
        return torch.stack(found)


def residuals(
    found: Predictions, data: Dataset, factors: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Return weighted residuals of all labels whose factor is not zero, under each of k sets of parameters: (k, n).

    factors: those of `Loss.factors`.
    """
    energy, force, stress = factors
    parts = [_weighted(found.energy, data.energy, energy), _weighted(found.force, data.force, force)]
    if found.stress is not None:
        parts.append(_weighted(found.stress, data.stress, stress))
    return torch.cat(parts, 1)


def _weighted(found: torch.Tensor, label: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Residuals (k, n) of the labels whose factor is not zero."""
    chosen = torch.nonzero(factor > 0).flatten()
    off = found[:, chosen] - label[chosen]
    root = factor[chosen].sqrt()
    return (off * root.reshape(-1, *[1] * (off.ndim - 2))).flatten(1)


class LossLandscape(Landscape):
    """The loss of k sets of parameters as k problems of p rows, each one number wide.

    Blocks are evaluated one after the other, or shared out to the processes of ``torchrun``. Energies and gradients of
    blocks are added in their order, so that the loss does not depend on the number of processes.

    potential: the potential that is fitted.
    blocks: the data that it is fitted to, in parts.
    loss: the kind of loss.
    problems: the number k of sets of parameters.
    """

    def __init__(
        self, potential: FittablePotential, blocks: list[Dataset], loss: Loss, problems: int
    ) -> None:
        p = potential.parameters.shape[-1]
        self.segments = Segments.uniform(problems, p)
        self.manifold = Flat()
        self._potential, self._data, self._loss = potential, blocks, loss
        self._size = max(sum(loss.size(one) for one in blocks), 1.0)
        self._blocks: dict[int, _Block] = {}

    def part(self, block: int) -> LossLandscape:
        """Return the landscape of one block alone, for steps on a part of the data; it shares what is prepared."""
        made = LossLandscape(self._potential, [self._data[block]], self._loss, self.segments.n_problems)
        made._blocks[0] = self._block(block)
        return made

    def select(self, problems: torch.Tensor) -> LossLandscape:
        """See `Landscape.select`."""
        made = LossLandscape(self._potential, self._data, self._loss, len(problems))
        made._blocks = self._blocks
        return made

    def _block(self, index: int) -> _Block:
        """Return the data of a block, made at the first request: a process prepares its own share only."""
        found = self._blocks.get(index)
        if found is None:
            data = self._data[index]
            factors = self._loss.factors(data)
            stress = bool((factors[2] > 0).any())
            found = _Block(data, factors, self._potential.of_theta(data.systems, stress=stress))
            self._blocks[index] = found
        return found

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Return the loss and minus its gradient at ``x (n_rows, 1)``, n_rows = k p."""
        k, p = self.segments.n_problems, self.segments.size or 0
        theta = x.detach().reshape(k, p)
        told = share_out(len(self._data), functools.partial(self._table, theta), batch=1, columns=k * (1 + p))
        total = told.sum(0) / self._size
        energy = total[:k] + self._loss.decay * (theta * theta).sum(1)
        gradient = total[k:].reshape(k, p) + 2.0 * self._loss.decay * theta
        return Evaluation(energy.to(x), -gradient.reshape(-1, 1).to(x))

    def _table(self, theta: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Sums of squares and their gradients of one block: (1, k (1 + p))."""
        with torch.enable_grad():
            point = theta.clone().requires_grad_(True)
            squares = self._block(int(index)).squares(point)
            (gradient,) = torch.autograd.grad(squares.sum(), point)
        return torch.cat([squares.detach(), gradient.flatten()])[None]

    def curvature(self, x: torch.Tensor) -> torch.Tensor:
        """Return the matrix of Gauss and Newton at ``x (k p, 1)``, decay included: (k, p, p)."""
        k, p = self.segments.n_problems, self.segments.size or 0
        theta = x.detach().reshape(k, p)
        with torch.no_grad():
            told = share_out(
                len(self._data),
                lambda index: self._block(int(index)).curvature(theta).reshape(1, -1),
                batch=1,
                columns=k * p * p,
            )
        unit = torch.eye(p, dtype=torch.float64)
        return (told.sum(0).reshape(k, p, p) / self._size + 2.0 * self._loss.decay * unit).to(x)

    def losses(self, theta: torch.Tensor) -> torch.Tensor:
        """Return the loss of each ``theta (k, p)`` without gradients and without decay: (k,)."""
        with torch.no_grad():
            told = share_out(
                len(self._data),
                lambda index: self._block(int(index)).squares(theta)[None],
                batch=1,
                columns=len(theta),
            )
        return told.sum(0) / self._size
