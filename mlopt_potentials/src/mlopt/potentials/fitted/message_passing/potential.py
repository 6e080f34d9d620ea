"""SchNet: a potential of continuous-filter convolutions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Self

from pydantic import model_validator

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.features.graph import Graph
from mlopt.core.landscapes.potential import differentiated
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.fittable import Predictions
from mlopt.potentials.fitted.message_passing.network import SchNetLayers, Sizes
from mlopt.potentials.fitted.species import elements_of
from mlopt.potentials.fitted.stored import StoredPotential


class SchNet(StoredPotential):
    """A message-passing potential after SchNet (Schütt et al., NeurIPS 2017; J. Chem. Phys. 148, 241722 (2018)).

    The energy is a sum over atoms: ``E = sum_i [reference(z_i) + scale * network_i]``. An atom begins with numbers that
    belong to its element. In each round it receives a message: the sum over its neighbours of their numbers times a
    filter of the distance. After k rounds an atom depends on others up to k cutoffs away. Layers and activations are
    those of `torch_geometric.nn.SchNet`. A file given as `weights` brings its settings with it.
    """

    registered: ClassVar[str] = "schnet"

    cutoff: float = setting(5.0, "where neighbours end", unit="angstrom", gt=0)
    hidden: int = setting(32, "numbers that each atom has", ge=1, le=1024)
    filters: int = setting(32, "numbers that pass between neighbours", ge=1, le=1024)
    gaussians: int = setting(20, "functions of the distance of which filters are made", ge=2, le=1000)
    rounds: int = setting(2, "how often neighbours exchange messages", ge=1, le=20)
    references: list[float] | None = setting(
        None, "energy of an atom of each species; none: those of the data", unit="eV"
    )
    scale: float | None = setting(
        None, "what the network counts energies in; none: by the forces of the data", unit="eV", gt=0
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.references is not None and len(self.references) != len(self.elements or []):
            raise ValueError("`references` must have one energy for each of the `elements`, in their order")
        return self

    @functools.cached_property
    def layers(self) -> SchNetLayers:
        """The network, to be called with parameters.

        Raises:
            InputError: nothing says which species there are.
        """
        sizes = Sizes(len(self.numbers), self.hidden, self.filters, self.gaussians, self.rounds)
        return SchNetLayers(sizes, self.cutoff, self.numbers)

    @property
    def reach(self) -> float:
        """The cutoff times the number of rounds; see `FittablePotential.reach`."""
        return self.rounds * self.cutoff

    @property
    def n_parameters(self) -> int:
        """See `StoredPotential.n_parameters`: embedding, the layers of each round, and those to the energy."""
        return self.layers.sizes.n_parameters

    def start(self, seed: int = 0) -> torch.Tensor:
        """See `FittablePotential.start`."""
        return self.layers.sizes.drawn(seed)

    def row_energy(self, systems: Systems) -> torch.Tensor:
        """See `Potential.row_energy`."""
        return self._rows(systems, Graph.within(systems, self.cutoff))

    def _rows(self, systems: Systems, graph: Graph) -> torch.Tensor:
        """Return the energy of each atom, over the neighbours of ``graph``."""
        theta = self.parameters.to(systems.pos)
        found: torch.Tensor = self.layers(systems.pos, graph, systems.z, theta)
        if self.scale is not None:
            found = self.scale * found
        if self.references is None:
            return found
        kinds = self.layers.kinds(systems.z, len(systems.pos), systems.pos.device)
        return found + torch.tensor(self.references, dtype=torch.float64).to(systems.pos)[kinds]

    def of_theta(self, systems: Systems, *, stress: bool = False) -> Callable[[torch.Tensor], Predictions]:
        """See `FittablePotential.of_theta`; all networks are one batch, whose neighbours are searched once."""
        n = len(systems)

        @functools.cache
        def copies(k: int) -> tuple[Systems, Graph]:
            whole = systems.repeat(k)
            return whole, Graph.within(whole, self.cutoff)

        def evaluated(theta: torch.Tensor) -> Predictions:
            k, fitted = len(theta), self.with_theta(theta)
            whole, graph = copies(k)

            def energies(moved: Systems) -> tuple[torch.Tensor, torch.Tensor]:
                # a strain acts on the cell too; without images no cell is read
                here = graph if graph.shift is None else replace(graph, cell=moved.cell)
                rows = fitted._rows(moved, here)
                return moved.segments.sum(rows[:, None]), rows

            keep = torch.is_grad_enabled() and theta.requires_grad
            found = differentiated(energies, whole, stress=stress, keep=keep)
            return Predictions(
                found.energy.reshape(k, n),
                found.force.reshape(k, -1, 3),
                None if found.stress is None else found.stress.reshape(k, n, 3, 3),
            )

        return evaluated

    def prepared(self, data: Dataset) -> Self:
        """See `FittablePotential.prepared`: species, their energies, and the scale of the forces.

        The scale is the root mean square of the forces times 1 angstrom; without forces it is 1.
        """
        elements = self.elements or elements_of(data)
        found = self.replace(elements=elements)
        if self.references is None:
            found = found.replace(references=data.reference_energies(found.numbers).tolist())
        if self.scale is None:
            known = data.force[torch.isfinite(data.force).all(-1)]
            size = float(known.square().mean().sqrt()) if len(known) else 0.0
            found = found.replace(scale=size if size > 0 else 1.0)
        return found
