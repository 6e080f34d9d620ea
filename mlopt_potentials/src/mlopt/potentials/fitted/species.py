"""The species of a fitted potential: a setting, and their places in what is kept for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.elements import NUMBERS, SYMBOLS
from mlopt.core.atoms.systems import Systems
from mlopt.core.lazy import torch


def _known(elements: list[str]) -> list[str]:
    strange = [one for one in elements if one not in NUMBERS]
    if strange:
        raise ValueError(f"{strange[0]!r} is no element; write symbols such as Si")
    if len(set(elements)) < len(elements):
        raise ValueError("each element is named once")
    return elements


#: a setting that lists elements by their symbols, each once
Elements: TypeAlias = Annotated[list[str], AfterValidator(_known)]


def elements_of(data: Dataset) -> list[str]:
    """Return the symbols of the elements in ``data``, by atomic number."""
    return [SYMBOLS[z] for z in sorted(set(data.systems.z.tolist()))]


def places(species: Sequence[int], systems: Systems) -> torch.Tensor:
    """Return the place of each atom's element in ``species`` (atomic numbers): (n_atoms,) int64, -1 for others."""
    place = torch.full((max(*species, 118) + 1,), -1, dtype=torch.int64, device=systems.z.device)
    place[list(species)] = torch.arange(len(species), device=systems.z.device)
    return place[systems.z]
