"""Refusals of data and of bases that make no sense for a moment tensor potential."""

from __future__ import annotations

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.neighbours import find_neighbours
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch

#: functions of one species of the centre
_MOST = 20_000


def lengths(data: Dataset, reach: float) -> torch.Tensor:
    """Return all distances of two atoms below ``reach``, periodic images among them."""
    vectors = find_neighbours(data.systems, reach).differences(data.systems)
    found: torch.Tensor = torch.linalg.vector_norm(vectors, dim=0)
    return found


def check_elements(elements: list[str], there: list[str]) -> None:
    """Refuse species that are in the data or in the settings alone."""
    unknown, without = sorted(set(there) - set(elements)), sorted(set(elements) - set(there))
    if unknown:
        raise InputError(
            f"mtp: the data have {', '.join(unknown)}, which `elements` does not name: {', '.join(elements)}"
        )
    if without:
        raise InputError(
            f"mtp: `elements` names {', '.join(without)}, of which no structure has any: nothing can be learned about "
            f"it; the data have {', '.join(there)}"
        )


def check_number(about: float, of: str, species: int) -> None:
    """Refuse a basis that would not be found, let alone fitted."""
    if about > _MOST:
        raise InputError(
            f"mtp: {of} with {species} species make about {about:,.0f} functions of each, and {_MOST:,} are the most; "
            f"take lower ones"
        )
