"""The protocol of potentials that can be fitted: parameters as one vector, and rows that are linear in them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting


@dataclass(frozen=True)
class Design:
    """Derivatives of energy, force and stress with respect to theta, for a potential that is linear in it.

    Invariant: ``energy @ theta`` is the energy, and likewise for the others; what does not depend on theta, such as a
    repulsion at short range, is in ``fixed_energy``, ``fixed_force`` and ``fixed_stress``.

    energy: (n_systems, p). force: (n_atoms, 3, p). stress: (n_systems, 3, 3, p). row_energy: (n_atoms, p), the share of
    each atom in ``energy``. Parts that were not asked for are None.
    fixed_energy (n_systems,), fixed_force (n_atoms, 3), fixed_stress (n_systems, 3, 3): None for zero.
    """

    energy: torch.Tensor
    force: torch.Tensor | None = None
    stress: torch.Tensor | None = None
    row_energy: torch.Tensor | None = None
    fixed_energy: torch.Tensor | None = None
    fixed_force: torch.Tensor | None = None
    fixed_stress: torch.Tensor | None = None


@dataclass(frozen=True)
class Predictions:
    """What a potential says of n systems under k sets of parameters.

    energy (k, n). force (k, n_atoms, 3). stress (k, n, 3, 3), or None where it was not asked for.
    """

    energy: torch.Tensor
    force: torch.Tensor
    stress: torch.Tensor | None = None


class FittablePotential(Potential):
    """A potential whose parameters are one vector, theta.

    Invariant: `evaluate` is differentiable in theta, twice where the loss has forces, whether or not the positions
    ask for gradients.
    """

    theta: Any = setting(None, "the parameters themselves, from Python instead of from a file")

    @property
    @abstractmethod
    def parameters(self) -> torch.Tensor:
        """The parameters, (p,) float64; or (n_systems, p), where each system of a batch has its own.

        They are ``theta`` where that is given, else those of a file of weights. A potential that was never fitted gives
        zeros where it is linear, else what `start` gives for seed 0.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `parameters`")

    @property
    def linear(self) -> bool:
        """Whether energies are linear in the parameters: whether the class has a `design` of its own."""
        return type(self).design is not FittablePotential.design

    def with_theta(self, theta: torch.Tensor) -> Self:
        """Return this potential with other parameters: (p,), or (n_systems, p), one row for each system of a batch.

        A committee of k members on n systems is a batch of ``systems.repeat(k)`` with each member's row n times.
        """
        return self.replace(theta=theta)

    def select(self, problems: torch.Tensor) -> Self:
        """See `Potential.select`."""
        own = self.theta is not None and self.theta.ndim == 2
        return self.replace(theta=self.theta[problems]) if own else self

    def config(self) -> dict[str, Any]:
        """See `Plugin.config`; theta as a list, if there is one."""
        found = super().config()
        if self.theta is None:
            del found["theta"]
        else:
            found["theta"] = torch.as_tensor(self.theta).tolist()
        return found

    def design(
        self, systems: Systems, *, force: bool = True, stress: bool = False, row_energy: bool = False
    ) -> Design | None:
        """Return the rows that are linear in theta, or None where the potential is not linear in it."""
        return None

    def of_theta(self, systems: Systems, *, stress: bool = False) -> Callable[[torch.Tensor], Predictions]:
        """Return energy, force and stress of ``systems`` as a function of ``theta (k, p)``, differentiable in it.

        A fit calls this once, and what it returns many times: what does not depend on theta, such as descriptors and
        their derivatives, is computed here. This version computes nothing in advance.
        """

        def evaluated(theta: torch.Tensor) -> Predictions:
            found = [self.with_theta(one).evaluate(systems, stress=stress) for one in theta]
            tensors = [one.stress for one in found if one.stress is not None]
            return Predictions(
                torch.stack([one.energy for one in found]),
                torch.stack([one.force for one in found]),
                torch.stack(tensors) if stress else None,
            )

        return evaluated

    def prepared(self, data: Dataset) -> Self:
        """Return this potential with what it takes from data before a fit.

        Examples are species, the smallest distance, reference energies and the scale of descriptors. A potential that
        takes nothing returns itself.
        """
        return self

    def doubts(self, data: Dataset) -> list[str]:
        """Return what a user should know about these data for this potential, one sentence or two each."""
        return []

    def start(self, seed: int = 0) -> torch.Tensor:
        """Return where a fit of a potential that is not linear begins: (p,) float64."""
        return self.parameters

    def roughness(self) -> torch.Tensor | None:
        """Return (p,) degrees, such as of polynomials: a prior tolerates the higher ones less; None for all equal."""
        return None

    def save(self, path: str, training: dict[str, Any]) -> None:
        """Write the fitted potential to ``path`` so that ``weights: path`` gives it back.

        training: what its card tells of the fit.

        Raises:
            InputError: this potential has no file format.
        """
        raise InputError(f"{type(self).__name__} cannot be written to a file")
