"""SchNet: a potential of continuous-filter convolutions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Self

from pydantic import model_validator

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.elements import NUMBERS
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.features.graph import Graph
from mlopt.core.files.weights import Weights, check_trained, load_weights, read_card, save_weights, with_card
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.fittable import FittablePotential, Predictions
from mlopt.potentials.fitted.message_passing.network import SchNetLayers, Sizes
from mlopt.potentials.fitted.species import Elements, elements_of


class SchNet(FittablePotential):
    """A message-passing potential after SchNet (Schütt et al., NeurIPS 2017; J. Chem. Phys. 148, 241722 (2018)).

    The energy is a sum over atoms: ``E = sum_i [reference(z_i) + scale * network_i]``. An atom begins with numbers that
    belong to its element. In each round it hears the sum over its neighbours of their numbers times a filter of the
    distance. After k rounds it knows of others up to k cutoffs away. Layers and activations are those of
    `torch_geometric.nn.SchNet`. What `weights` names brings its settings with it.
    """

    cutoff: float = setting(5.0, "where neighbours end", unit="angstrom", gt=0)
    hidden: int = setting(32, "numbers that each atom has", ge=1, le=1024)
    filters: int = setting(32, "numbers that pass between neighbours", ge=1, le=1024)
    gaussians: int = setting(20, "functions of the distance of which filters are made", ge=2, le=1000)
    rounds: int = setting(2, "how often neighbours exchange messages", ge=1, le=20)
    elements: Elements | None = setting(None, "the species; none: those of the data")
    references: list[float] | None = setting(
        None, "energy of an atom of each species; none: those of the data", unit="eV"
    )
    scale: float | None = setting(
        None, "what the network counts energies in; none: by the forces of the data", unit="eV", gt=0
    )
    weights: Weights | None = setting(None, "a fitted potential: a file, whose card brings the settings")

    @model_validator(mode="before")
    @classmethod
    def _of_card(cls, values: Any) -> Any:
        """Take the settings of the card of a file of weights; such as are given must be the same."""
        return with_card(values, "schnet")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.weights is not None:
            check_trained(read_card(self.weights, "schnet"), self.weights, self.config())
        if self.references is not None and len(self.references) != len(self.elements or []):
            raise ValueError("`references` must have one energy for each of the `elements`, in their order")
        return self

    @functools.cached_property
    def layers(self) -> SchNetLayers:
        """The network, to be called with parameters.

        Raises:
            InputError: nothing says which species there are.
        """
        if not self.elements:
            raise InputError(
                "schnet: nothing says which species there are; fit the potential to data, or give `elements`"
            )
        species = tuple(NUMBERS[one] for one in self.elements)
        sizes = Sizes(len(species), self.hidden, self.filters, self.gaussians, self.rounds)
        return SchNetLayers(sizes, self.cutoff, species)

    @property
    def parameters(self) -> torch.Tensor:
        """See `FittablePotential.parameters`: embedding, the layers of each round, and those to the energy."""
        if self.theta is not None:
            return self.theta  # type: ignore[no-any-return]
        return self._fitted

    @functools.cached_property
    def _fitted(self) -> torch.Tensor:
        if self.weights is None:
            return self.start()
        theta, wanted = load_weights(self.weights, "schnet"), self.layers.sizes.n_parameters
        if len(theta) != wanted:
            raise InputError(
                f"weights {self.weights}: {len(theta)} parameters, and this network has {wanted}; fit anew"
            )
        return theta

    def start(self, seed: int = 0) -> torch.Tensor:
        """See `FittablePotential.start`."""
        return self.layers.sizes.drawn(seed)

    def row_energy(self, systems: Systems) -> torch.Tensor:
        """See `Potential.row_energy`."""
        graph = Graph.within(systems, self.cutoff)
        theta = self.parameters.to(systems.pos)
        found: torch.Tensor = self.layers(systems.pos, graph, systems.z, theta)
        if self.scale is not None:
            found = self.scale * found
        if self.references is None:
            return found
        kinds = self.layers.kinds(systems.z, len(systems.pos), systems.pos.device)
        return found + torch.tensor(self.references, dtype=torch.float64).to(systems.pos)[kinds]

    def of_theta(self, systems: Systems, *, stress: bool = False) -> Callable[[torch.Tensor], Predictions]:
        """See `FittablePotential.of_theta`; all networks are one batch."""

        def evaluated(theta: torch.Tensor) -> Predictions:
            k, n = len(theta), len(systems)
            found = self.with_theta(theta).evaluate(systems.repeat(k), stress=stress)
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
            species = [NUMBERS[one] for one in elements]
            found = found.replace(references=data.reference_energies(species).tolist())
        if self.scale is None:
            known = data.force[torch.isfinite(data.force).all(-1)]
            size = float(known.square().mean().sqrt()) if len(known) else 0.0
            found = found.replace(scale=size if size > 0 else 1.0)
        return found

    def species(self) -> set[int] | None:
        """See `Potential.species`."""
        return None if self.elements is None else {NUMBERS[one] for one in self.elements}

    def save(self, path: str, training: dict[str, Any]) -> None:
        """See `FittablePotential.save`."""
        settings = {name: one for name, one in self.config().items() if name not in ("weights", "theta")}
        save_weights(path, self.parameters, "schnet", settings, training)
