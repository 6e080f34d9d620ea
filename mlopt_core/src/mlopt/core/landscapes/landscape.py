"""What an optimizer sees: points, a geometry, and an evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.atoms.systems import Systems
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
    #: whether force is minus the gradient of energy; a band with springs and projections says False, and an
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

    @abstractmethod
    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Energy (n_problems,) and force (n_rows, d) at ``x``: one force call for each problem."""

    @property
    def calls_per_evaluation(self) -> torch.Tensor:
        """(n_problems,) int64, gradients of the underlying energy that one evaluation takes; a band says its images.

        For reports: budgets and `Result.calls` count evaluations of the landscape.
        """
        return torch.ones(self.segments.n_problems, dtype=torch.int64, device=self.segments.ptr.device)

    @abstractmethod
    def select(self, problems: torch.Tensor) -> Landscape:
        """The landscape of a part of the problems (int64 indices, in that order; one may come several times)."""

    @property
    def giver(self) -> str:
        """Who evaluates, for messages."""
        return f"the landscape {type(self).__name__}"

    def row_word(self, row: int) -> str:
        """What a row is called in messages, apart from its problem: its place in that."""
        return f"row {self._place(row)}"

    def problem_word(self, problem: int) -> str:
        """`` of problem 2``, with a blank before it, where there are several; else nothing."""
        return f" of problem {problem}" if self.segments.n_problems > 1 else ""

    def row_name(self, row: int) -> str:
        """What a row is called in messages."""
        return self.row_word(row) + self.problem_word(int(self.segments.batch[row]))

    def _place(self, row: int) -> int:
        return row - int(self.segments.ptr[self.segments.batch[row]])

    @property
    def hessian_calls(self) -> int:
        """Force calls of each problem that one `hessian_product` costs."""
        return 2

    def hessian_product(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """The Riemannian Hessian at ``x`` times the tangent vectors ``v``, both (n_rows, d): (n_rows, d).

        Zero on fixed rows. In flat space this is the matrix of second derivatives; on a curved manifold the covariant
        derivative of the gradient, whose eigenvalues do not depend on coordinates. This version takes differences of
        forces, see `mlopt.core.landscapes.hessian`; a landscape that knows better overrides it and `hessian_calls`.
        """
        return difference_product(self, x, v)

    def free_motions(self, x: torch.Tensor) -> torch.Tensor | None:
        """Motions that leave the energy as it is whatever it is: (m, n_rows, d), orthonormal in each problem, or None.

        The rigid motions of free atoms. A problem that has fewer than m of them has zeros instead.
        """
        return None


class AtomsLandscape(Landscape):
    """The potential energy of atomic systems as a function of their positions; cells stay as they are."""

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

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """The potential's energy and forces; fixed atoms feel none.

        Raises:
            PluginError: the potential changed ``x``, or what it returns does not fit.
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
        """One evaluation, differentiated, where the potential can be; else two, for a difference."""
        return 1 if self.potential.differentiable else 2

    def hessian_product(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Exact by a second backward pass where the potential can be differentiated twice, else by differences."""
        return (differentiated_product if self.potential.differentiable else difference_product)(self, x, v)

    def free_motions(self, x: torch.Tensor) -> torch.Tensor | None:
        """Translations, and rotations of systems without periodic directions, that move no fixed atom."""
        return rigid_motions(x, self.segments, self.systems.pbc, self.fixed)

    def select(self, problems: torch.Tensor) -> AtomsLandscape:
        """The chosen systems under the same potential."""
        part = object.__new__(AtomsLandscape)  # what was looked up for the whole holds for a part
        part.systems, part.potential = self.systems.select(problems), self.potential.select(problems)
        if "manifold" in self.__dict__:
            part.__dict__["manifold"] = self.manifold.select(problems, self.segments.select(problems)[1])
        part.segments, part.species = part.systems.segments, part.systems.z
        part.fixed = None if self.fixed is None else part.systems.fixed
        return part


class FunctionLandscape(Landscape):
    """A differentiable function as a landscape: ``energy(x (n_rows, d), segments) -> (n_problems,)``.

    For model surfaces, tests and fits; forces by autograd.
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
        """Energy by the function, force by autograd, projected on the tangent space."""
        keep = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            point = x if keep else x.detach().requires_grad_(True)
            energy = self.energy(point, self.segments)
            (gradient,) = torch.autograd.grad(energy.sum(), point, create_graph=keep)
        force = self.manifold.project(x, -gradient)
        return Evaluation(energy, force) if keep else Evaluation(energy.detach(), force.detach())

    @property
    def hessian_calls(self) -> int:
        """One evaluation, differentiated."""
        return 1

    def hessian_product(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Exact, by a second backward pass."""
        return differentiated_product(self, x, v)

    def select(self, problems: torch.Tensor) -> FunctionLandscape:
        """The same function on a part of the problems."""
        segments, rows = self.segments.select(problems)
        return FunctionLandscape(self.energy, segments, self.manifold.select(problems, rows))
