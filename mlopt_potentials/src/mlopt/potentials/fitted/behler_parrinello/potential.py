"""The Behler-Parrinello potential: symmetry functions and a network for each element."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import field_validator, model_validator

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.potential import per_volume
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.fittable import Predictions
from mlopt.potentials.fitted.behler_parrinello import network
from mlopt.potentials.fitted.behler_parrinello.compiled import compiled
from mlopt.potentials.fitted.behler_parrinello.descriptors import CHUNK, Descriptors, compiled_values
from mlopt.potentials.fitted.behler_parrinello.functions import SymmetryFunctions
from mlopt.potentials.fitted.neighbourhoods import arrays, gather
from mlopt.potentials.fitted.species import elements_of
from mlopt.potentials.fitted.stored import StoredPotential
from mlopt.potentials.fitted.threads import chunks, in_threads

#: eta (of a cutoff of 1) and shifts (in cutoffs) of the radial functions that are taken where none are given
_BELL, _SHIFTS = 60.0, (0.3, 0.375, 0.45, 0.525, 0.6, 0.675, 0.75, 0.825, 0.9, 0.975)
#: etas (of a cutoff of 1), zetas and lambdas of the angular ones
_ETAS, _ZETAS, _LAMBDAS = (0.1, 1.5, 4.0), (1.0, 2.0, 4.0, 16.0), (1.0, -1.0)
#: Amp's own, `make_default_symmetry_functions`: etas of the radial functions, then of the angular ones
_AMP_RADIAL, _AMP_ANGULAR = (0.05, 0.2320794416806389, 1.0772173450159417, 5.0), 0.005
#: of Amp's polynomial cutoff function
_GAMMA = 4.0


class BehlerParrinello(StoredPotential):
    """A neural-network potential after Behler & Parrinello (Phys. Rev. Lett. 98, 146401 (2007)).

    The energy is a sum over atoms. The energy of an atom is the output of its element's network, whose inputs are
    symmetry functions (Behler, J. Chem. Phys. 134, 074106 (2011)):
    ``G2 = sum_j exp(-eta (r_ij - shift)^2) fc(r_ij)`` and
    ``G4 = 2^(1 - zeta) sum_(j<k) (1 + lambda cos)^zeta exp(-eta (r_ij^2 + r_ik^2 + r_jk^2)) fc fc fc``. G5 is G4
    without the factors of r_jk. Inputs are shifted and scaled to mean 0 and deviation 1 over the atoms of the data. A
    file given as `weights` brings its settings with it.
    """

    registered: ClassVar[str] = "behler-parrinello"

    cutoff: float = setting(6.0, "where neighbours end", unit="angstrom", gt=0)
    cutoff_function: Literal["cosine", "polynomial"] = setting(
        "cosine", "how functions end; the polynomial is Amp's, with gamma 4"
    )
    functions: Literal["standard", "amp"] = setting(
        "standard",
        "those that are taken where `radial` or `angular` say nothing; amp: the default ones of Amp",
    )
    radial: list[list[float]] | None = setting(None, "[eta, shift in angstrom] of each G2")
    angular: list[list[float]] | None = setting(None, "[eta, zeta, lambda] of each angular function")
    eta: Literal["n2p2", "amp"] = setting(
        "n2p2", "what eta of `radial` and `angular` counts in: 1/angstrom^2, or amp: 1/cutoff^2"
    )
    angular_kind: Literal["G4", "G5"] = setting("G4", "G5 does not ask how far apart the two neighbours are")
    hidden: list[int] = setting([16, 16], "nodes of each hidden layer")
    activation: Literal["tanh", "sigmoid", "softplus"] = setting("tanh", "what hidden nodes do to their sums")
    references: list[float] | None = setting(
        None, "energy of an atom of each species; none: those of the data", unit="eV"
    )
    scaling: list[list[list[float]]] | None = setting(
        None, "of each species: mean and deviation of each function; none: those of the data"
    )

    @field_validator("radial", "angular")
    @classmethod
    def _whole_rows(cls, rows: list[list[float]] | None, info: Any) -> list[list[float]] | None:
        names = ("eta", "shift") if info.field_name == "radial" else ("eta", "zeta", "lambda")
        for row in rows or []:
            if len(row) != len(names) or row[0] < 0:
                raise ValueError(f"{row} is no function: give [{', '.join(names)}], with eta not negative")
            if len(names) == 3 and (row[1] < 1 or row[2] not in (1.0, -1.0)):
                raise ValueError(f"{row} is no function: zeta must be at least 1, and lambda 1 or -1")
        return rows

    @field_validator("hidden")
    @classmethod
    def _some_nodes(cls, hidden: list[int]) -> list[int]:
        if not all(1 <= one <= 1000 for one in hidden):
            raise ValueError("each hidden layer has between 1 and 1,000 nodes, such as [16, 16]")
        return hidden

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self._rows(self.radial, 2) and not self._rows(self.angular, 3):
            raise ValueError("there are neither radial nor angular functions; give one at least")
        if self.elements is not None:
            n, count = len(self.elements), self.symmetry_functions.count
            if self.references is not None and len(self.references) != n:
                raise ValueError(f"`references` must have one energy for each of {n} elements")
            shape = [[len(part) for part in one] for one in self.scaling or []]
            if self.scaling is not None and shape != [[count, count]] * n:
                raise ValueError(
                    f"`scaling` must have two rows of {count} numbers for each of {n} elements, mean and deviation"
                )
        elif self.references is not None or self.scaling is not None:
            raise ValueError("`references` and `scaling` are in the order of `elements`: give these too")
        return self

    def _rows(self, given: list[list[float]] | None, width: int) -> list[list[float]]:
        """Functions with eta in 1/angstrom^2, shifts in angstrom."""
        square = self.cutoff**2
        if given is not None:
            return [[one[0] / (square if self.eta == "amp" else 1.0), *one[1:]] for one in given]
        if self.functions == "amp":
            if width == 2:
                return [[eta / square, 0.0] for eta in _AMP_RADIAL]
            return [[_AMP_ANGULAR / square, zeta, sign] for zeta in (1.0, 4.0) for sign in _LAMBDAS]
        if width == 2:
            return [[_BELL / square, shift * self.cutoff] for shift in _SHIFTS]
        return [[eta / square, zeta, sign] for eta in _ETAS for zeta in _ZETAS for sign in _LAMBDAS]

    @functools.cached_property
    def symmetry_functions(self) -> SymmetryFunctions:
        """The functions of this potential.

        Raises:
            InputError: nothing says which species there are.
        """
        return SymmetryFunctions(
            self.numbers,
            self.cutoff,
            _GAMMA if self.cutoff_function == "polynomial" else 0.0,
            self.angular_kind == "G4",
            np.array(self._rows(self.radial, 2), dtype=np.float64).reshape(-1, 2),
            np.array(self._rows(self.angular, 3), dtype=np.float64).reshape(-1, 3),
        )

    @functools.cached_property
    def layers(self) -> tuple[int, ...]:
        """Numbers of nodes of each network, from its inputs to its one output."""
        return (self.symmetry_functions.count, *self.hidden, 1)

    @functools.cached_property
    def _scale(self) -> torch.Tensor:
        """Mean and deviation of each function: (n_species, 2, count)."""
        functions = self.symmetry_functions
        if self.scaling is None:
            shape = (len(functions.species), functions.count)
            return torch.stack([torch.zeros(shape), torch.ones(shape)], 1).double()
        return torch.tensor(self.scaling, dtype=torch.float64)

    @functools.cached_property
    def _reference(self) -> torch.Tensor:
        """Energy of an atom of each species: (n_species,)."""
        return torch.tensor(self.references or [0.0] * len(self.elements or []), dtype=torch.float64)

    @property
    def reach(self) -> float:
        """The cutoff; see `FittablePotential.reach`."""
        return self.cutoff

    @property
    def n_parameters(self) -> int:
        """See `StoredPotential.n_parameters`: the networks of the elements, each layer's weights before its biases."""
        return len(self.numbers) * network.n_parameters(self.layers)

    def start(self, seed: int = 0) -> torch.Tensor:
        """See `FittablePotential.start`."""
        return network.drawn(seed, self.layers, len(self.symmetry_functions.species))

    def row_energy(self, systems: Systems) -> torch.Tensor:
        """See `Potential.row_energy`."""
        functions, theta = self.symmetry_functions, self.parameters.to(systems.pos)
        kind, n = functions.kinds(systems), len(functions.species)
        scale = self._scale.to(systems.pos)[kind]
        x = (functions.values(systems) - scale[:, 0]) / scale[:, 1]
        rows = theta.reshape(-1, n, theta.shape[-1] // n)
        own = rows[systems.batch, kind] if theta.ndim == 2 else rows[0]
        found = self._reference.to(systems.pos)[kind]
        for index in range(n):
            atoms = torch.nonzero(kind == index).flatten()
            if theta.ndim == 2:
                part = network.energies(own[atoms], x[atoms, None], self.layers, self.activation, False)[0]
            else:
                part = network.energies(own[[index]], x[atoms], self.layers, self.activation, False)[0]
            found = found.index_add(0, atoms, part.flatten())
        return found

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        """See `Potential.evaluate`; compiled where no positions ask for gradients."""
        theta = self.parameters
        if torch.is_grad_enabled() and (systems.pos.requires_grad or theta.requires_grad):
            if systems.pos.requires_grad or theta.ndim == 2:
                return super().evaluate(systems, stress=stress)
            found = self.of_theta(systems, stress=stress)(theta[None])
            return Evaluation(
                found.energy[0], found.force[0], stress=None if found.stress is None else found.stress[0]
            )
        return self._compiled(systems, theta, stress)

    def _compiled(self, systems: Systems, theta: torch.Tensor, stress: bool) -> Evaluation:
        functions, n_atoms = self.symmetry_functions, len(systems.pos)
        n = len(functions.species)
        begin, other, vector, lost = arrays(systems, functions.cutoff)
        kind, system = functions.kinds(systems).cpu().numpy(), systems.batch.cpu().numpy()
        rows = theta.detach().to("cpu", torch.float64)
        table = rows.reshape(-1, rows.shape[-1] // n).numpy()
        theta_of = kind + (system * n if rows.ndim == 2 else 0)
        energy, pull = np.zeros(n_atoms), np.zeros((len(other), 3))
        centre, width = (self._scale[:, part].contiguous().numpy() for part in (0, 1))
        layers = np.array(self.layers, dtype=np.int64)
        pulls, gathered = compiled()["pulls"], gather()

        def work(first: int, last: int) -> None:
            pulls(
                first, last, begin, other, kind, vector, *functions.arguments, centre, width, layers,
                network.ACTIVATIONS.index(self.activation), table, theta_of, energy, pull,
            )  # fmt: skip

        in_threads(work, chunks(n_atoms, CHUNK))
        force, virial = np.zeros((n_atoms, 3)), np.zeros((len(systems), 3, 3))
        gathered(begin, other, system, vector, pull, force, virial)
        like = systems.pos
        own = torch.from_numpy(energy + self._reference.numpy()[kind]).to(like)
        there = torch.from_numpy(force).to(like)
        if bool(lost.any()):
            bad = systems.segments.rows_of(lost)
            own, there = own.masked_fill(bad, torch.nan), there.masked_fill(bad[:, None], torch.nan)
        tensor = per_volume(torch.from_numpy(virial).to(like), systems) if stress else None
        return Evaluation(systems.segments.sum(own[:, None]), there, own, tensor)

    def of_theta(self, systems: Systems, *, stress: bool = False) -> Callable[[torch.Tensor], Predictions]:
        """See `FittablePotential.of_theta`: functions and their slopes are computed here, once."""
        descriptors = Descriptors.of(self.symmetry_functions, systems, self._scale)
        reference = systems.segments.sum(self._reference.to(systems.pos)[descriptors.kind][:, None])
        n = len(self.symmetry_functions.species)

        def evaluated(theta: torch.Tensor) -> Predictions:
            k = len(theta)
            energy = theta.new_zeros(k, len(systems.pos))
            steep = theta.new_zeros(k, len(systems.pos), descriptors.inputs.shape[1])
            rows = theta.reshape(k, n, -1)
            for index, atoms in enumerate(descriptors.atoms):
                part, slope = network.energies(
                    rows[:, index], descriptors.inputs[atoms], self.layers, self.activation
                )
                energy = energy.index_copy(1, atoms, part)
                steep = steep.index_copy(1, atoms, slope) if slope is not None else steep
            force, virial = descriptors.forces(steep)
            volume = systems.volume
            return Predictions(
                systems.segments.sum_stack(energy[..., None]).T + reference,
                force,
                virial / torch.where(volume > 0, volume, torch.nan)[:, None, None] if stress else None,
            )

        return evaluated

    def prepared(self, data: Dataset) -> Self:
        """See `FittablePotential.prepared`: species, their energies, mean and deviation of each function."""
        elements = self.elements or elements_of(data)
        found = self.replace(elements=elements)
        functions = found.symmetry_functions
        if self.references is None:
            found = found.replace(references=data.reference_energies(functions.species).tolist())
        if self.scaling is None:
            values = compiled_values(functions, data.systems)
            kind, scaling = functions.kinds(data.systems), []
            for index, element in enumerate(elements):
                own = values[kind == index]
                if not len(own):
                    raise InputError(f"behler-parrinello: no structure of the data has {element}")
                width = own.std(0, correction=0)
                # a function that is the same for all atoms says nothing: its input is zero for all
                width = torch.where(width > 1e-9 * own.abs().amax(0).clamp(min=1e-3), width, 1.0)
                scaling.append([own.mean(0).tolist(), width.tolist()])
            found = found.replace(scaling=scaling)
        return found
