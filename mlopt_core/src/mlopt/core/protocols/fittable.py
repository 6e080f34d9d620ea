"""The protocol of potentials that can be fitted: parameters as one vector, and rows that are linear in them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from pydantic import field_validator

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting


@dataclass(frozen=True)
class Design:
    """Derivatives of energy, force and stress with respect to theta, for a potential that is linear in theta.

    Invariant: ``energy @ theta + fixed_energy`` is the energy, and likewise for force and stress. The fixed parts hold
    what does not depend on theta, such as a short-range repulsion.

    energy: (n_systems, p). force: (n_atoms, 3, p). stress: (n_systems, 3, 3, p). Parts that were not asked for are
        None.
    row_energy: (n_atoms, p), the share of each atom in ``energy``.
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
    """Predictions for n systems under k sets of parameters.

    energy: (k, n). force: (k, n_atoms, 3). stress: (k, n, 3, 3), or None if it was not asked for.
    """

    energy: torch.Tensor
    force: torch.Tensor
    stress: torch.Tensor | None = None


class FittablePotential(Potential):
    """A potential whose parameters are one vector, theta.

    Invariant: `evaluate` is differentiable in theta, whether or not the positions require gradients. A loss on forces
    differentiates twice.
    """

    theta: Any = setting(None, "the parameters, instead of those read from a file")

    @field_validator("theta")
    @classmethod
    def _tensor(cls, theta: Any) -> Any:
        """Make a tensor of lists, as `config` returns them."""
        if theta is None or hasattr(theta, "requires_grad"):
            return theta
        try:
            return torch.tensor(theta, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError("theta is a list of numbers, or a list of such lists of equal lengths") from None

    @property
    @abstractmethod
    def parameters(self) -> torch.Tensor:
        """The parameters, (p,) float64; or (n_systems, p), where each system of a batch has its own.

        They are ``theta`` where that setting is given, else those of a file of weights. An unfitted potential has zeros
        if it is linear in theta, else the vector that `start` returns for seed 0.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `parameters`")

    @property
    def linear(self) -> bool:
        """True if energies are linear in the parameters, that is, if the class overrides `design`."""
        return type(self).design is not FittablePotential.design

    @property
    def reach(self) -> float | None:
        """Distance beyond which no atom changes the row of another in `row_gradients`; None where it is unknown."""
        return None

    def with_theta(self, theta: torch.Tensor) -> Self:
        """Return this potential with other parameters: (p,), or (n_systems, p), one row for each system of a batch.

        For a committee of k members on n systems, take the batch ``systems.repeat(k)`` and repeat each member's row n
        times.
        """
        return self.replace(theta=theta)

    @property
    def nonlinear(self) -> torch.Tensor | None:
        """Parameters (q,) float64 beside theta, on which the rows of `design` depend; None where there are none.

        For a moment tensor potential these are the coefficients of its radial functions. A fit may choose them, see
        `mlopt.optimizers.fitting.projected`.
        """
        return None

    def with_nonlinear(self, values: torch.Tensor) -> Self:
        """Return this potential with other `nonlinear` parameters ``values (q,)``.

        `evaluate` is differentiable in ``values`` where they require gradients.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `with_nonlinear`")

    def select(self, problems: torch.Tensor) -> Self:
        """Return this potential for some systems of a batch, with their rows of theta; see `Potential.select`."""
        own = self.theta is not None and self.theta.ndim == 2
        return self.replace(theta=self.theta[problems]) if own else self

    def config(self) -> dict[str, Any]:
        """Return the configuration, with theta as a list if it is set; see `Plugin.config`."""
        found = super().config()
        if self.theta is None:
            del found["theta"]
        else:
            found["theta"] = torch.as_tensor(self.theta).tolist()
        return found

    def design(
        self, systems: Systems, *, force: bool = True, stress: bool = False, row_energy: bool = False
    ) -> Design | None:
        """Return the derivatives with respect to theta, or None where the potential is not linear in theta."""
        return None

    def energy_gradients(self, systems: Systems) -> torch.Tensor:
        """Return the derivative of each energy with respect to theta: (n_systems, p), without a graph."""
        design = self.design(systems, force=False)
        if design is not None:
            return design.energy
        own = self.parameters.detach()
        with torch.enable_grad():
            theta = own.expand(len(systems), own.shape[-1]).clone().requires_grad_(True)
            energy = self.with_theta(theta).energy(systems)
            return torch.autograd.grad(energy.sum(), theta)[0]

    def row_gradients(self, systems: Systems, *, nonlinear: bool = False) -> torch.Tensor:
        """Return the derivative of each atom's energy with respect to the parameters: (n_atoms, p), without a graph.

        nonlinear: further columns hold derivatives with respect to the `nonlinear` parameters. This version has none.

        Raises:
            InputError: the potential has no energies of atoms, or one theta for each system.
        """
        design = self.design(systems, force=False, row_energy=True)
        if design is not None and design.row_energy is not None:
            return design.row_energy
        own = self.parameters.detach()
        if own.ndim == 2:
            raise InputError(f"{self.giver} has one theta for each system; take those of one member")
        with torch.enable_grad():
            theta = own.clone().requires_grad_(True)
            energy = self.with_theta(theta).row_energy(systems)
            if energy is None:
                raise InputError(f"{self.giver} has no energies of atoms; grade by configurations")
            rows = [torch.autograd.grad(one, theta, retain_graph=True)[0] for one in energy]
        return torch.stack(rows) if rows else own.new_zeros(0, len(own))

    def evaluate_rows(self, systems: Systems, *, stress: bool = False) -> tuple[Evaluation, torch.Tensor]:
        """Return `evaluate` and `row_gradients`; a potential may compute both at once."""
        return self.evaluate(systems, stress=stress), self.row_gradients(systems)

    def of_theta(self, systems: Systems, *, stress: bool = False) -> Callable[[torch.Tensor], Predictions]:
        """Return energy, force and stress of ``systems`` as a function of ``theta (k, p)``, differentiable in it.

        A fit calls this method once, and the returned function many times. An override therefore computes here what
        does not depend on theta, such as descriptors and their derivatives. This version computes nothing in advance.
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
        """Return this potential with the settings that it takes from data before a fit.

        Examples are species, the smallest distance, reference energies and the scale of descriptors. The default
        returns the potential itself.
        """
        return self

    def doubts(self, data: Dataset) -> list[str]:
        """Return warnings about these data for this potential, of one or two sentences each."""
        return []

    def start(self, seed: int = 0) -> torch.Tensor:
        """Return the initial theta, (p,) float64, for a fit of a potential that is not linear in it."""
        return self.parameters

    def roughness(self) -> torch.Tensor | None:
        """Return the degree (p,) of each parameter's basis function, or None if all are equal.

        A prior allows smaller coefficients for higher degrees.
        """
        return None

    def save(self, path: str, training: dict[str, Any]) -> None:
        """Write the fitted potential to ``path``, to be read by the setting ``weights: path``.

        training: facts about the fit, for the card of the file.

        Raises:
            InputError: this potential has no file format.
        """
        raise InputError(f"{type(self).__name__} cannot be written to a file")
