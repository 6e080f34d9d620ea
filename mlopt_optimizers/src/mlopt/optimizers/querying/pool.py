"""The candidates of a choice, in an order that depends on nothing but themselves."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.features.graph import Graph
from mlopt.core.features.radial import RadialFeatures
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.querying.maxvol import Matrix, column_scale

#: atoms whose rows are computed at a time, and the cutoff of features in equilibrium distances
_ATOMS, _REACH = 4096, 2.5


@dataclass(frozen=True, eq=False)
class Pool:
    """Candidates without repeats and without known ones, sorted by the digest of each structure.

    Ties between equal values are then resolved alike in any order. Repeats are exact: the same numbers, atom by atom.

    systems: n candidates.
    place (n,) int64: the former place of each.
    digest: n numbers of 60 bits.
    """

    systems: Systems
    place: NDArray[np.int64]
    digest: NDArray[np.int64]
    known: Dataset
    fitted: Potential | None
    key: torch.Tensor

    @classmethod
    def of(cls, systems: Systems, known: Dataset, fitted: Potential | None, key: torch.Tensor) -> Self:
        """Sort the candidates."""
        there = set(_digests(known.systems))
        first: dict[str, int] = {}
        for index, word in enumerate(_digests(systems)):
            if word not in there:
                first.setdefault(word, index)
        place = np.array([first[word] for word in sorted(first)], dtype=np.int64)
        digest = np.array([int(word[:15], 16) for word in sorted(first)], dtype=np.int64)
        return cls(systems.select(torch.from_numpy(place)), place, digest, known, fitted, key)

    def fittable(self, name: str, *, linear: bool = False) -> FittablePotential:
        """Return the potential, for the strategy ``name``.

        Raises:
            InputError: there is none, it cannot be fitted, or it is not linear in its parameters.
        """
        if self.fitted is None:
            raise InputError(
                f"{name}: needs a potential; of one that is linear in theta, an unfitted basis suffices"
            )
        if not isinstance(self.fitted, FittablePotential):
            raise InputError(f"{name}: {self.fitted.giver} has no parameters to fit; give one that has")
        if linear and not self.fitted.linear:
            raise InputError(
                f"{name}: {self.fitted.giver} is not linear in its parameters, which this strategy needs; take "
                f"d-optimal with `rows: qs1`, committee, model-change or farthest-point"
            )
        return self.fitted

    @functools.cached_property
    def features(self) -> tuple[Matrix, Matrix]:
        """Features of candidates (n, f) and of known structures (n_known, f), with columns of equal size.

        They are mean rows of the potential where it is linear, else means and deviations of radial functions.
        """
        both = [self._features(one) for one in (self.systems, self.known.systems)]
        centre = both[0].mean(0) if len(both[0]) else 0.0
        scale = column_scale(both[0] - centre)
        return (both[0] - centre) / scale, (both[1] - centre) / scale

    def _features(self, systems: Systems) -> Matrix:
        if isinstance(self.fitted, FittablePotential) and self.fitted.linear:
            return mean_rows(self.fitted, systems)
        z = sorted({*self.systems.z.tolist(), *self.known.systems.z.tolist()})
        if not len(systems):
            return np.zeros((0, 2 * len(z) * len(RadialFeatures().etas)))
        potential = self.fitted or Potential()
        diameter = potential.diameter(systems.z)
        graph = Graph.within(systems, _REACH * float(diameter.max()))
        with torch.no_grad():
            rows = RadialFeatures(cutoff=_REACH, species=z)(systems.pos, graph, systems.z, diameter)
        parts = torch.split(rows, systems.segments.counts.tolist())
        told = [torch.cat([part.mean(0), part.std(0, correction=0)]) for part in parts]
        return torch.stack(told).double().cpu().numpy()

    @functools.cached_property
    def mean_rows(self) -> tuple[Matrix, Matrix]:
        """Derivatives of energies per atom of candidates (n, p) and known structures (n_known, p), scaled alike."""
        potential = self.fittable("rows")
        both = [mean_rows(potential, one) for one in (self.systems, self.known.systems)]
        scale = column_scale(np.concatenate(both))
        return both[0] / scale, both[1] / scale


def _digests(systems: Systems) -> list[str]:
    """Return a number of each structure, in hexadecimal digits."""
    arrays = [one.cpu().numpy() for one in (systems.pos, systems.z, systems.fixed, systems.cell, systems.pbc)]
    found = []
    for index, (start, stop) in enumerate(pairwise(systems.ptr.tolist())):
        told = hashlib.sha256()
        for array in arrays[:3]:
            told.update(array[start:stop].tobytes())
        for array in arrays[3:]:
            told.update(array[index].tobytes())
        found.append(told.hexdigest())
    return found


def mean_rows(potential: FittablePotential, systems: Systems) -> Matrix:
    """Return the derivative of the energy per atom of each system with respect to theta: (n_systems, p)."""
    found = [np.zeros((0, potential.parameters.shape[-1]))]
    for first, stop in systems.segments.blocks(_ATOMS):
        part = systems.select(torch.arange(first, stop))
        rows = potential.energy_gradients(part) / part.segments.counts.clamp(min=1)[:, None]
        found.append(rows.detach().cpu().numpy())
    return np.concatenate(found)
