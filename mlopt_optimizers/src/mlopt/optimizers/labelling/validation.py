"""The validation of labels before they are recorded."""

from __future__ import annotations

import math
from itertools import pairwise

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.lazy import torch
from mlopt.core.protocols.labeller import Labeller
from mlopt.core.quoting import one_line

#: net forces that are rounding, as a share of the sum of all lengths of forces
_ROUNDING = 1e-8


def faults(labeller: Labeller, given: Systems, data: Dataset) -> list[str | None]:
    """Return for each structure the reason for which its label cannot be taken, or None.

    A label is taken if its energy is finite, and its forces are all finite or all missing. Its structure must be the
    one that was given. The net force of a structure without fixed atoms must not exceed ``labeller.net_force`` per
    atom.

    given: the structures as they were handed to the labeller, in the order of ``data``.
    """
    name = type(labeller).__name__
    if len(data) != len(given) or data.systems.ptr.tolist() != given.ptr.tolist():
        return [f"{name} returned other structures than it was given"] * len(given)
    found: list[str | None] = []
    ends = given.ptr.tolist()
    for index, (start, stop) in enumerate(pairwise(ends)):
        one, other = given.pos[start:stop].double().cpu(), data.systems.pos[start:stop].double().cpu()
        same = torch.equal(one, other) and given.z[start:stop].tolist() == data.systems.z[start:stop].tolist()
        force = data.force[start:stop].cpu()
        whole = bool(torch.isfinite(force).all() or torch.isnan(force).all())
        if not same:
            found.append(f"{name} returned other atoms or positions than it was given")
        elif not (math.isfinite(float(data.energy[index])) and whole):
            found.append(one_line(data.source[index]) or "the energy or a force is not finite")
        else:
            held = bool(given.fixed[start:stop].any())
            found.append(None if held else _pushed(labeller.net_force, force))
    return found


def _pushed(most: float | None, force: torch.Tensor) -> str | None:
    """Return a sentence if the forces (n, 3) add up to more than ``most`` for each atom."""
    net = float(force.sum(0).norm())
    if most is None or not net > most * len(force) + _ROUNDING * float(force.norm(dim=-1).sum()):
        return None
    return (
        f"the forces add up to {net:.3g} eV/angstrom instead of zero: not converged, or an external field acts; then "
        f"set `net_force: null`"
    )
