"""Contacts: atoms that come too near to each other on a path, before an optimizer starts on it."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.core.structures.checks import coincident_pairs
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.idpp import idpp
from mlopt.optimizers.bands.initial import perturb

#: nearer than this share of the distance at which two atoms touch is a contact: 55 times the depth of a bond of
#: Lennard-Jones
CONTACT = 0.7
#: nearer than this share they have met: no direction leads them apart
MET = 0.1
#: these are taken apart by a random displacement of this share of the path
_APART = 0.02


@dataclass(frozen=True)
class Contact:
    """Two atoms, ``distance`` apart in ``image`` (1 is the first after the start), where they touch at ``usual``."""

    image: int
    first: int
    second: int
    symbols: tuple[str, str]
    distance: float
    usual: float

    @property
    def share(self) -> float:
        """The distance in units of the one at which they touch."""
        return self.distance / self.usual

    def __str__(self) -> str:
        one, other = self.symbols
        return (
            f"atoms {self.first} ({one}) and {self.second} ({other}) are {self.distance:.3g} apart in image "
            f"{self.image}, where {self.usual:.3g} are usual"
        )


def around_contacts(band: Band, x: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, Contact | None]:
    """Return images (n_rows, d) that IDPP has led around the contacts of ``x``, and the worst of these contacts.

    Without a contact ``x`` is returned as it is.

    key: (n_problems,) int64, for the random displacements that move atoms at one point apart.
    """
    contact = worst_contact(band, x)
    if contact is None:
        return x, None
    if contact.share < MET:  # coincident atoms have no direction in which to separate
        x = perturb(band, x, key, _APART)
    return idpp(band, x), contact


def worst_contact(band: Band, x: torch.Tensor, problem: int = 0) -> Contact | None:
    """Return the worst contact in the images ``x (n_rows, d)`` of one path, or None.

    Distances are compared with the usual one of the two species. That is the shortest distance between them in either
    end, or the potential's diameter where they do not touch there. Pairs of fixed atoms do not count. On landscapes
    that are not of atoms the result is None.
    """
    landscape = band.landscape
    if not isinstance(landscape, AtomsLandscape):
        return None
    one = landscape.systems[problem]
    z, fixed = one.z.tolist(), one.fixed.tolist()
    diameter = landscape.potential.diameter(one.z).tolist()
    reach = max(diameter)
    cell, pbc = one.cell[0].cpu().to(torch.float64).numpy(), one.pbc[0].cpu().numpy()
    chosen = torch.tensor([problem], device=x.device)
    part, (_, rows) = band.select(chosen), band.segments.select(chosen)
    start, *images, end = part.unpack(x[rows])[0]

    def pairs(points: torch.Tensor) -> list[tuple[int, int, float]]:
        return coincident_pairs(points.detach().cpu().to(torch.float64).numpy(), cell, pbc, reach)

    def kinds(first: int, second: int) -> tuple[int, int]:
        low, high = sorted((z[first], z[second]))
        return low, high

    usual: dict[tuple[int, int], float] = {}
    for points in (start, end):
        for first, second, distance in pairs(points):
            touch = 0.5 * (diameter[first] + diameter[second])
            key = kinds(first, second)
            usual[key] = min(usual.get(key, touch), distance)
    worst: Contact | None = None
    for place, points in enumerate(images, 1):
        for first, second, distance in pairs(points):
            if fixed[first] and fixed[second]:
                continue
            touch = 0.5 * (diameter[first] + diameter[second])
            touch = usual.get(kinds(first, second), touch)
            if distance < CONTACT * touch and (worst is None or distance / touch < worst.share):
                symbols = SYMBOLS[z[first]], SYMBOLS[z[second]]
                worst = Contact(place, first, second, symbols, distance, touch)
    return worst
