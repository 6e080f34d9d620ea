"""The rows of a fit that a label of a structure would bring."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mlopt.core.atoms.dataset import VOIGT
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.fitting.least_squares import Weights
from mlopt.optimizers.querying.maxvol import Matrix

#: the six components of a stress, of which those off the diagonal stand for two rows of a fit each
_ROOT_OF_ROWS = (1.0, 1.0, 1.0, 2.0**0.5, 2.0**0.5, 2.0**0.5)


def label_rows(potential: FittablePotential, systems: Systems, weights: Weights) -> list[Matrix]:
    """Return the weighted rows of energy, forces and stress of each system, (r, p), as in a fit.

    Atoms that are fixed have no rows, and neither has the stress of systems without three lattice vectors.

    Raises:
        InputError: the potential is not linear in its parameters.
    """
    design = potential.design(systems, force=weights.force > 0, stress=weights.stress > 0)
    if design is None:
        raise InputError(f"{potential.giver} is not linear in its parameters, and labels have no rows")
    root = systems.segments.counts.to(torch.float64).sqrt().clamp(min=1.0)
    energy = (weights.energy * design.energy / root[:, None]).detach().cpu().numpy()
    volume, free = systems.volume, ~systems.fixed
    found = []
    for index, (start, stop) in enumerate(pairwise(systems.ptr.tolist())):
        parts = [energy[index : index + 1]] if weights.energy > 0 else []
        if design.force is not None:
            parts.append(
                (weights.force * design.force[start:stop][free[start:stop]])
                .flatten(0, 1)
                .detach()
                .cpu()
                .numpy()
            )
        if design.stress is not None and float(volume[index]) > 0:
            factor = float(weights.stress * volume[index] / root[index])
            both = [
                factor * times * design.stress[index, a, b].detach().cpu().numpy()
                for times, (a, b) in zip(_ROOT_OF_ROWS, VOIGT, strict=True)
            ]
            parts.append(np.stack(both))
        found.append(np.concatenate(parts) if parts else np.zeros((0, energy.shape[1])))
    return found
