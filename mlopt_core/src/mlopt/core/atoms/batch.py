"""The arrays of a batch of atomic configurations, and functions that make one batch from others.

Configurations are concatenated, never padded (PyG's convention).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self

from mlopt.core.atoms.elements import MASSES
from mlopt.core.atoms.template import Template
from mlopt.core.batch.segments import Segments
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch


@dataclass(frozen=True, eq=False)
class AtomBatch:
    """A batch of atomic configurations: the base of `mlopt.core.atoms.systems.Systems`, which converts from and to ASE.

    pos: (n_atoms, 3) angstrom, or the potential's reduced length.
    z: (n_atoms,) int64 atomic numbers; a dimensionless model uses any element as a label.
    ptr: (n_systems + 1,) int64; system ``i`` owns the atoms ``ptr[i]:ptr[i + 1]``.
    cell: (n_systems, 3, 3) lattice vectors as rows; zero where there is none.
    pbc: (n_systems, 3) bool.
    fixed: (n_atoms,) bool, atoms that must not move.
    given_masses: (n_atoms,) float64, atomic mass units, as the structures give them. NaN stands for the element's
        standard mass; None stands for standard masses throughout.
    template: (n_systems,) int64, index into ``templates`` of the columns and info that a system carries, or -1 for
        none. None stands for no template in the batch.
    """

    pos: torch.Tensor
    z: torch.Tensor
    ptr: torch.Tensor
    cell: torch.Tensor = field(default=None)  # type: ignore[assignment]
    pbc: torch.Tensor = field(default=None)  # type: ignore[assignment]
    fixed: torch.Tensor = field(default=None)  # type: ignore[assignment]
    given_masses: torch.Tensor | None = None
    template: torch.Tensor | None = None
    templates: tuple[Template, ...] = ()

    def __post_init__(self) -> None:
        n = self.ptr.numel() - 1
        like = self.pos
        if self.cell is None:
            object.__setattr__(self, "cell", like.new_zeros(n, 3, 3))
        if self.pbc is None:
            object.__setattr__(self, "pbc", torch.zeros(n, 3, dtype=torch.bool, device=like.device))
        if self.fixed is None:
            object.__setattr__(self, "fixed", torch.zeros(len(like), dtype=torch.bool, device=like.device))
        n_atoms = self.segments.n_rows
        expected = {
            "pos": (n_atoms, 3),
            "z": (n_atoms,),
            "cell": (n, 3, 3),
            "pbc": (n, 3),
            "fixed": (n_atoms,),
        }
        expected |= {} if self.given_masses is None else {"given_masses": (n_atoms,)}
        expected |= {} if self.template is None else {"template": (n,)}
        for name, shape in expected.items():
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise InputError(f"Systems: `{name}` must have shape {shape} to fit `ptr`, got {got}")
        if self.template is not None:
            worn = zip(self.segments.counts.tolist(), self.template.tolist(), strict=True)
            for index, (count, number) in enumerate(worn):
                if not -1 <= number < len(self.templates):
                    raise InputError(
                        f"Systems: there are {len(self.templates)} templates, and no number {number}"
                    )
                if number >= 0 and not self.templates[number].fits(count):
                    raise InputError(f"Systems: the template of system {index} is not of its {count} atoms")

    @cached_property
    def segments(self) -> Segments:
        """The atoms of each system."""
        return Segments(self.ptr)

    @property
    def batch(self) -> torch.Tensor:
        """(n_atoms,) system of each atom."""
        return self.segments.batch

    @property
    def n_systems(self) -> int:
        """Number of systems."""
        return self.segments.n_problems

    def __len__(self) -> int:
        return self.n_systems

    @cached_property
    def periodic(self) -> bool:
        """True if any system has a periodic direction."""
        return bool(self.pbc.any())

    @cached_property
    def volume(self) -> torch.Tensor:
        """(n_systems,) cell volumes, 0 without a cell."""
        determinant: torch.Tensor = torch.linalg.det(self.cell)
        return determinant.abs()

    @cached_property
    def masses(self) -> torch.Tensor:
        """(n_atoms,) float64, atomic mass units: those of the structures where given, else the standard ones."""
        standard = torch.tensor(MASSES, dtype=torch.float64, device=self.z.device)[self.z]
        given = self.given_masses
        return standard if given is None else torch.where(given.isnan(), standard, given)

    def template_of(self, index: int) -> Template | None:
        """Return the columns and info that system ``index`` carries, or None."""
        number = -1 if self.template is None else int(self.template[index])
        return None if number < 0 else self.templates[number]

    def with_pos(self, pos: torch.Tensor) -> Self:
        """Return the same systems at positions ``pos (n_atoms, 3)``.

        Everything that was derived from the other fields is kept.
        """
        moved = object.__new__(type(self))
        moved.__dict__.update(self.__dict__)
        object.__setattr__(moved, "pos", pos)
        return moved

    def select(self, systems: torch.Tensor | Sequence[int]) -> Self:
        """Keep the given systems (int64 indices, in that order)."""
        index = torch.as_tensor(systems, dtype=torch.int64, device=self.ptr.device)
        segments, rows = self.segments.select(index)
        part = object.__new__(type(self))  # no checks: searches select from a checked batch at every hop
        given, template = self.given_masses, self.template
        part.__dict__.update(
            pos=self.pos[rows],
            z=self.z[rows],
            ptr=segments.ptr,
            cell=self.cell[index],
            pbc=self.pbc[index],
            fixed=self.fixed[rows],
            given_masses=None if given is None else given[rows],
            template=None if template is None else template[index],
            templates=self.templates,
            segments=segments,
            periodic=self.periodic and bool(self.pbc[index].any()),
        )
        return part

    def __getitem__(self, index: int) -> Self:
        """Return one system as a batch of one."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"system {index} of a batch of {len(self)}")
        return self.select([index % len(self)])

    def __iter__(self) -> Iterator[Self]:
        """Iterate over the systems, each a batch of one."""
        return (self[index] for index in range(len(self)))

    def repeat(self, times: int) -> Self:
        """Return the batch repeated ``times`` times, one whole copy after the other."""
        return type(self).concatenate([self] * times)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Return the batch on another device, or with its floating-point fields in another dtype."""
        moved: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, torch.Tensor):
                kind = dtype if one.name in ("pos", "cell") else None
                moved[one.name] = value.to(device=device, dtype=kind)
        return replace(self, **moved)

    @classmethod
    def concatenate(cls, batches: Sequence[Self]) -> Self:
        """Return one batch out of several."""
        if not batches:
            raise InputError("Systems.concatenate needs at least one batch")
        counts = torch.cat([batch.segments.counts for batch in batches])
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        joined: dict[str, Any] = {
            name: torch.cat([getattr(batch, name) for batch in batches])
            for name in ("pos", "z", "cell", "pbc", "fixed")
        }
        return cls(ptr=ptr, **joined, **_joined_extras(batches))

    @classmethod
    def cluster(cls, numbers: Sequence[int], n_systems: int = 1, dtype: torch.dtype | None = None) -> Self:
        """Return ``n_systems`` free clusters of the given atomic numbers; all atoms are at the origin."""
        z = torch.tensor(numbers, dtype=torch.int64).repeat(n_systems)
        ptr = torch.arange(n_systems + 1) * len(numbers)
        return cls(torch.zeros(len(z), 3, dtype=dtype or torch.float64), z, ptr)


def _joined_extras(batches: Sequence[AtomBatch]) -> dict[str, Any]:
    """Return masses and templates of a concatenated batch; batches that share templates still do."""
    found: dict[str, Any] = {}
    if any(batch.given_masses is not None for batch in batches):
        found["given_masses"] = torch.cat(
            [
                batch.z.new_full(batch.z.shape, float("nan"), dtype=torch.float64)
                if batch.given_masses is None
                else batch.given_masses
                for batch in batches
            ]
        )
    if any(batch.template is not None for batch in batches):
        places: dict[int, int] = {}  # by identity: templates are not compared
        kept: list[Template] = []
        numbers = []
        for batch in batches:
            if batch.template is None:
                numbers.append(batch.ptr.new_full((len(batch),), -1))
                continue
            for one in batch.templates:
                if id(one) not in places:
                    places[id(one)] = len(kept)
                    kept.append(one)
            new = batch.ptr.new_tensor([*(places[id(one)] for one in batch.templates), -1])
            numbers.append(new[batch.template])  # -1 is the last
        found |= {"template": torch.cat(numbers), "templates": tuple(kept)}
    return found
