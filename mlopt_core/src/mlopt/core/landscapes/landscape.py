"""Landscapes: points with a geometry and an evaluation, which is all that an optimizer sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import Units
from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.evaluation import Evaluation, check_evaluation, version
from mlopt.core.landscapes.hessian import difference_product, differentiated_product, rigid_motions
from mlopt.core.landscapes.manifold import Flat, Manifold
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch


class Landscape(ABC):
    """A batch of problems over points ``x (n_rows, d)``.

    Invariant: a landscape has no state; `evaluate` is a pure function of ``x``.
    """

    segments: Segments
    manifold: Manifold
    #: whether force is minus the gradient of energy. It is False for a band with springs and projections; an
    #: optimizer then must not judge a step by its energy
    conservative: ClassVar[bool] = True
    #: (n_rows,) int64 kind of each row, for moves that exchange unlike rows; None where rows have no kind
    species: torch.Tensor | None = None
    #: (n_rows,) typical distance between neighbouring rows, for moves; None where there is none
    diameter: torch.Tensor | None = None
    #: (n_rows,) bool, rows that must not move; None where all are free
    fixed: torch.Tensor | None = None
    #: (n_rows,) float64 masses, atomic mass units, for dynamics and rates; None where rows have none
    masses: torch.Tensor | None = None
    #: one unit of temperature in units of energy: 1, unless the landscape has units
    boltzmann: float = 1.0

    @property
    def inertia(self) -> torch.Tensor:
        """(n_rows,) float64 masses for dynamics, energy time^2 / length^2: `masses`, or 1 where there are none."""
        if self.masses is not None:
            return self.masses
        return torch.ones(self.segments.n_rows, dtype=torch.float64, device=self.segments.ptr.device)

    @abstractmethod
    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Return energy (n_problems,) and force (n_rows, d) at ``x (n_rows, d)``; one force call for each problem."""

    @property
    def calls_per_evaluation(self) -> torch.Tensor:
        """(n_problems,) int64, gradients of the underlying energy in one evaluation; for a band, its moving images.

        Reports show it. Budgets and `Result.calls` count evaluations of the landscape.
        """
        return torch.ones(self.segments.n_problems, dtype=torch.int64, device=self.segments.ptr.device)

    @abstractmethod
    def select(self, problems: torch.Tensor) -> Landscape:
        """Return the landscape of the given problems (int64 indices, in that order, repeats allowed)."""

    @property
    def giver(self) -> str:
        """The name of this landscape in error messages."""
        return f"the landscape {type(self).__name__}"

    def row_word(self, row: int) -> str:
        """Return the name of a row in messages, without its problem: its index within the problem."""
        return f"row {self._place(row)}"

    def problem_word(self, problem: int) -> str:
        """Return `` of problem 2``, with a leading blank, for a batch of several problems; an empty string for one."""
        return f" of problem {problem}" if self.segments.n_problems > 1 else ""

    def row_name(self, row: int) -> str:
        """Return the name of a row in messages, with its problem if there are several."""
        return self.row_word(row) + self.problem_word(int(self.segments.batch[row]))

    def _place(self, row: int) -> int:
        return row - int(self.segments.ptr[self.segments.batch[row]])

    @property
    def hessian_calls(self) -> int:
        """Force calls of each problem that one `hessian_product` costs."""
        return 2

    def hessian_product(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the Riemannian Hessian at ``x`` times the tangent vectors ``v``, all (n_rows, d).

        Fixed rows get zeros. In flat space the Hessian is the matrix of second derivatives. On a curved manifold it is
        the covariant derivative of the gradient, whose eigenvalues do not depend on coordinates. This default takes
        differences of forces, see `mlopt.core.landscapes.hessian`. A landscape with a better way overrides it together
        with `hessian_calls`.
        """
        return difference_product(self, x, v)

    def free_motions(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return the motions that cannot change the energy: (m, n_rows, d), orthonormal in each problem, or None.

        For free atoms these are the rigid motions. A problem that has fewer than m of them has zeros instead.
        """
        return None


class AtomsLandscape(Landscape):
    """The potential energy of atomic systems as a function of their positions, at constant cell."""

    def __init__(self, systems: Systems, potential: Potential) -> None:
        self.systems = systems
        self.potential = potential
        self.segments = systems.segments
        self.species = systems.z
        self.fixed = systems.fixed if bool(systems.fixed.any()) else None

    @cached_property
    def manifold(self) -> Manifold:  # type: ignore[override]
        """Flat space, periodic where the systems are."""
        if not self.systems.periodic:
            return Flat()
        rows = self.segments.rows_of
        return Flat(rows(self.systems.cell), rows(self.systems.pbc))

    @cached_property
    def diameter(self) -> torch.Tensor:  # type: ignore[override]
        """(n_rows,) the potential's typical nearest-neighbour distance of each atom."""
        return self.potential.diameter(self.systems.z)

    @property
    def masses(self) -> torch.Tensor:  # type: ignore[override]
        """(n_rows,) masses of the atoms, atomic mass units."""
        return self.systems.masses

    @property
    def units(self) -> Units:
        """The potential's units of energy and length."""
        return Units.of(self.potential.units)

    @property
    def boltzmann(self) -> float:  # type: ignore[override]
        """One kelvin in the potential's unit of energy; 1 where its units are reduced."""
        return self.units.boltzmann

    @cached_property
    def inertia(self) -> torch.Tensor:
        """(n_rows,) float64 masses in the potential's energy fs^2 / length^2.

        Where its units are reduced, an element is a label alone. Masses are then 1, unless the structures give others.
        """
        given = self.systems.given_masses
        if not self.units.reduced:
            return self.systems.masses * self.units.dalton
        if given is None:
            return torch.ones(len(self.systems.z), dtype=torch.float64, device=self.systems.z.device)
        return torch.where(given.isnan(), 1.0, given)

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Return the potential's energy (n_problems,) and force (n_rows, 3), with zero force on fixed atoms.

        Raises:
            PluginError: the potential changed ``x`` in place, or returned a field of the wrong shape, dtype or device.
        """
        before = version(x)
        found = self.potential.evaluate(self.systems.with_pos(x))
        check_evaluation(found, x, self.segments.n_problems, before, self.giver)
        if self.fixed is None:
            return found
        return replace(found, force=found.force.masked_fill(self.fixed[:, None], 0.0))

    def row_word(self, row: int) -> str:
        return f"atom {self._place(row)} ({SYMBOLS[int(self.systems.z[row])]})"

    @property
    def giver(self) -> str:
        """The potential, by its name for messages."""
        return self.potential.giver

    @property
    def hessian_calls(self) -> int:
        """Force calls of one product: 1 where the potential can be differentiated twice, else 2."""
        return 1 if self.potential.differentiable else 2

    def hessian_product(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the Hessian times ``v``, (n_rows, 3), exactly where the potential can be differentiated twice.

        Other potentials get a difference of forces.
        """
        return (differentiated_product if self.potential.differentiable else difference_product)(self, x, v)

    def free_motions(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return translations, and rotations of free systems, that move no fixed atom: (6, n_rows, 3)."""
        return rigid_motions(x, self.segments, self.systems.pbc, self.fixed)

    def select(self, problems: torch.Tensor) -> AtomsLandscape:
        """Return the chosen systems (k,) int64 under the same potential."""
        part = object.__new__(AtomsLandscape)  # values that were derived for the whole hold for a part
        part.systems, part.potential = self.systems.select(problems), self.potential.select(problems)
        if "manifold" in self.__dict__:
            part.__dict__["manifold"] = self.manifold.select(problems, self.segments.select(problems)[1])
        part.segments, part.species = part.systems.segments, part.systems.z
        part.fixed = None if self.fixed is None else part.systems.fixed
        return part


class FunctionLandscape(Landscape):
    """A differentiable function as a landscape: ``energy(x (n_rows, d), segments) -> (n_problems,)``.

    It serves model surfaces, tests and fits. Forces come from autograd.
    """

    def __init__(
        self,
        energy: Callable[[torch.Tensor, Segments], torch.Tensor],
        segments: Segments,
        manifold: Manifold | None = None,
    ) -> None:
        self.energy = energy
        self.segments = segments
        self.manifold = manifold or Flat()

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Return the function as energy (n_problems,), and its tangential force (n_rows, d) by autograd."""
        keep = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            point = x if keep else x.detach().requires_grad_(True)
            energy = self.energy(point, self.segments)
            (gradient,) = torch.autograd.grad(energy.sum(), point, create_graph=keep)
        force = self.manifold.project(x, -gradient)
        return Evaluation(energy, force) if keep else Evaluation(energy.detach(), force.detach())

    @property
    def hessian_calls(self) -> int:
        """Force calls of one product: 1."""
        return 1

    def hessian_product(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the exact Hessian times ``v``, (n_rows, d), by a second backward pass."""
        return differentiated_product(self, x, v)

    def select(self, problems: torch.Tensor) -> FunctionLandscape:
        """Return the same function on the given problems (k,) int64."""
        segments, rows = self.segments.select(problems)
        return FunctionLandscape(self.energy, segments, self.manifold.select(problems, rows))
