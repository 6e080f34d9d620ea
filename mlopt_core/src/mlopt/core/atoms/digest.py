"""The digest of a structure, by which a checkpoint recognises the structure that it belongs to."""

from __future__ import annotations

import hashlib
from typing import Any

from mlopt.core.atoms.systems import Systems


def structure_digest(system: Systems) -> str:
    """Return the SHA-256 of a structure, for checkpoints."""
    told: list[Any] = [one.tolist() for one in (system.pos, system.z, system.cell, system.pbc, system.fixed)]
    if system.given_masses is not None:
        told.append(system.masses.tolist())
    carried = [system.template_of(index) for index in range(len(system))]
    told += [one.to_json() for one in carried if one is not None]
    return hashlib.sha256(repr(told).encode()).hexdigest()
