"""The protocol of potentials: atomic systems in, one energy per system out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypeAlias

from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import Units
from mlopt.core.errors import InputError
from mlopt.core.kernels.kernel import NoKernelError, PotentialKernel
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin


@dataclass(frozen=True)
class Trial:
    """The cost of `Potential.check` on a batch of systems, and its warnings, one sentence each."""

    calls: int = 0
    warnings: tuple[str, ...] = ()


class Potential(Plugin):
    """A potential energy surface.

    Write `energy` or `row_energy`; forces and stress then come from autograd. Override `evaluate` where a closed form
    is faster.
    """

    #: units of energy and length; a text such as "kcal/mol, angstrom" is read when the class is made
    units: ClassVar[Units] = Units()
    #: whether `energy` and `evaluate` can be differentiated with respect to ``pos`` (twice, for learned optimizers)
    differentiable: ClassVar[bool] = True
    #: whether `check` computes energies, which may cost as much as the work that it precedes
    tries: ClassVar[bool] = False
    #: prefix of the names of its clusters, such as LJ in LJ38; empty for none
    abbreviation: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        if isinstance(cls.__dict__.get("units"), str):
            cls.units = Units.of(cls.__dict__["units"])

    def energy(self, systems: Systems) -> torch.Tensor:
        """Return the energy of each system, (n_systems,), differentiable in ``systems.pos`` and ``systems.cell``."""
        rows = self.row_energy(systems)
        if rows is None:
            raise NotImplementedError(f"{type(self).__name__} must define `energy` or `row_energy`")
        return systems.segments.sum(rows[:, None])

    def row_energy(self, systems: Systems) -> torch.Tensor | None:
        """Return the energy of each atom, (n_atoms,), differentiable as `energy`; None without such a partition."""
        return None

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        """Return energy (n_systems,), force (n_atoms, 3), and stress (n_systems, 3, 3) where asked for.

        This default differentiates `energy`. Its result can be differentiated again where gradients are enabled and the
        positions, or a parameter of the potential, require them.
        """
        keep = torch.is_grad_enabled() and (systems.pos.requires_grad or _asks_for_gradients(self))
        return differentiated(self._energies, systems, stress=stress, keep=keep)

    def _energies(self, systems: Systems) -> Energies:
        """Return the energies to differentiate: those of atoms where there are such, else of systems."""
        rows = self.row_energy(systems)
        return (self.energy(systems), None) if rows is None else (systems.segments.sum(rows[:, None]), rows)

    def select(self, problems: torch.Tensor) -> Self:
        """Return this potential for some systems of a batch: (k,) int64 indices.

        The default returns the potential itself; one with parameters for each system returns a part of them.
        """
        return self

    def species(self) -> set[int] | None:
        """Return the atomic numbers that the potential knows, or None if it takes any."""
        return None

    def diameter(self, z: torch.Tensor) -> torch.Tensor:
        """Return the typical nearest-neighbour distance of each atom ``z (n_atoms,)``: (n_atoms,).

        It is in the potential's length. Starts and moves take it as their unit. The default is twice the covalent
        radius, for potentials in angstrom.
        """
        from ase.data import covalent_radii

        return 2.0 * torch.as_tensor(covalent_radii, dtype=torch.float64, device=z.device)[z]

    def kernel(self, species: tuple[int, ...]) -> PotentialKernel:
        """Return this potential for the fused engine, for systems of these atomic numbers.

        Raises:
            NoKernelError: the potential has no kernel, or none for these settings.
        """
        raise NoKernelError(f"the potential {type(self).__name__} offers no kernel")

    def present(self) -> None:
        """Check that whatever the potential needs besides Python code is there, such as a program. Computes nothing.

        Raises:
            InputError: something is missing; the message says what to do.
        """

    def check(self, systems: Systems) -> None:
        """Refuse systems that the potential cannot treat, before any work starts.

        Raises:
            InputError: a species that the potential does not know. Subclasses add their own conditions, such as a cell
                that is large enough.
        """
        known = self.species()
        if known is None:
            return
        strange = sorted(set(torch.unique(systems.z).tolist()) - known)
        if strange:
            names = ", ".join(SYMBOLS[number] for number in strange)
            listed = ", ".join(SYMBOLS[number] for number in sorted(known))
            raise InputError(
                f"{type(self).__name__} has no parameters for {names}; it knows {listed}. "
                f"Change the system, or give the parameters."
            )

    def trial(self, systems: Systems) -> Trial:
        """Return the cost and the warnings of `check` on these systems; the same at every call."""
        return Trial()

    @property
    def giver(self) -> str:
        """The name of this potential in messages; a bridge names the program behind it."""
        return f"the potential {type(self).__name__}"

    def failure(self) -> str:
        """Return why the last evaluation gave a system NaN, in one line; an empty text if that is unknown."""
        return ""

    def remarks(self) -> list[str]:
        """Return lines for the log at the end of a run, such as how often a calculator has failed."""
        return []


#: energies of systems (n_systems,), and of atoms (n_atoms,) or None
Energies: TypeAlias = "tuple[torch.Tensor, torch.Tensor | None]"


def differentiated(
    energies: Callable[[Systems], Energies], systems: Systems, *, stress: bool, keep: bool
) -> Evaluation:
    """Return energy, force and, where asked for, stress of a function of positions and cells, by autograd.

    keep: whether the result can be differentiated again; it is detached otherwise.
    """
    with torch.enable_grad():
        pos = systems.pos if systems.pos.requires_grad and keep else systems.pos.detach().requires_grad_(True)
        strain = torch.zeros_like(systems.cell)
        moved = systems.with_pos(pos)
        if stress:
            strain.requires_grad_(True)
            symmetric = 0.5 * (strain + strain.mT)
            deformed = pos + (pos[:, None, :] @ symmetric[systems.batch])[:, 0]
            cell = systems.cell + systems.cell @ symmetric
            moved = replace(systems, pos=deformed, cell=cell)
        energy, rows = energies(moved)
        wanted = [pos, strain] if stress else [pos]
        grads: tuple[torch.Tensor | None, ...]
        total = energy.sum()
        if total.requires_grad:
            grads = torch.autograd.grad(total, wanted, create_graph=keep, allow_unused=True)
        else:  # a constant energy, such as that of a single atom
            grads = (None,) * len(wanted)
    force = torch.zeros_like(pos) if grads[0] is None else -grads[0]
    tensor = None
    if stress:
        virial = torch.zeros_like(systems.cell) if grads[1] is None else grads[1]
        tensor = per_volume(virial, systems)
    if not keep:
        energy, force = energy.detach(), force.detach()
        rows = None if rows is None else rows.detach()
        tensor = None if tensor is None else tensor.detach()
    return Evaluation(energy, force, rows, tensor)


def per_volume(virial: torch.Tensor, systems: Systems) -> torch.Tensor:
    """Return the stress of dE/dstrain (n_systems, 3, 3); NaN for systems without three lattice vectors."""
    volume = systems.volume
    return virial / torch.where(volume > 0, volume, torch.nan)[:, None, None]


def _asks_for_gradients(plugin: Plugin) -> bool:
    """Return whether a tensor in the settings of a potential, or of a potential inside it, requires a gradient."""
    for value in vars(plugin).values():
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, Plugin):
                if _asks_for_gradients(one):
                    return True
            elif getattr(one, "requires_grad", False) is True:
                return True
    return False
