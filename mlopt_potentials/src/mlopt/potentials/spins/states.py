"""Initial configurations: a ferromagnet, a domain wall, a skyrmion, random spins, or given ones.

``make_state({"kind": "skyrmion", "radius": 4.0}).spins(lattice)`` are the unit vectors (n_spins, 3) of one problem.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

import numpy as np
from pydantic import BeforeValidator, model_validator

from mlopt.core.batch.random import Draws, problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.errors import InputError
from mlopt.core.geometry.lattice import reduced_vectors
from mlopt.core.geometry.minimum_image import shortest_vectors
from mlopt.core.lazy import torch
from mlopt.core.plugins import plugin
from mlopt.core.plugins.plugin import Plugin, setting
from mlopt.core.quoting import quoted
from mlopt.potentials.spins.files import read_spins
from mlopt.potentials.spins.lattice import SpinLattice
from mlopt.potentials.spins.settings import Direction, Number, Vector, plain
from mlopt.potentials.spins.unit import unit_spins

if TYPE_CHECKING:
    from mlopt.potentials.spins.shells import Floats


class SpinState(Plugin):
    """A configuration of spins for any lattice that it fits."""

    @abstractmethod
    def directions(self, lattice: SpinLattice) -> Floats:
        """Return (n_spins, 3) vectors of any length but zero."""

    def spins(
        self,
        lattice: SpinLattice,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """Return unit vectors (n_spins, 3) of one problem; float64 unless ``dtype`` says otherwise.

        Raises:
            InputError: the state does not fit the lattice, or a spin would have no direction.
        """
        where = f"state {quoted(getattr(self, 'kind', type(self).__name__))}"
        found = unit_spins(self.directions(lattice), lattice.n_spins, where=where, label=lattice.label)
        return torch.from_numpy(found).to(device, dtype or torch.float64)


class Ferromagnet(SpinState):
    """All spins along one direction."""

    kind: Literal["ferromagnet"] = "ferromagnet"
    direction: Direction = setting([0.0, 0.0, 1.0], "direction of the spins")

    def directions(self, lattice: SpinLattice) -> Floats:
        return np.tile(np.array(self.direction), (lattice.n_spins, 1))


class DomainWall(SpinState):
    """A wall between spins along a direction and spins against it.

    The angle from `direction` is ``2 atan(exp((r - position) / width))`` at the distance r along `axis`. This is the
    exact wall of the continuum; in a chain its width is ``sqrt(J / (2 K))`` times the spacing. In the middle of the
    wall the spins point along `through`. By default that is perpendicular to axis and direction, a Bloch wall; along
    the axis it is a Neel wall.
    """

    kind: Literal["domain-wall"] = "domain-wall"
    direction: Direction = setting([0.0, 0.0, 1.0], "direction of the spins before the wall")
    axis: Direction = setting([1.0, 0.0, 0.0], "normal of the wall, along which the spins rotate")
    through: Direction | None = setting(None, "direction in the middle of the wall")
    position: Number | None = setting(
        None, "position of the wall along the axis; null: the middle", unit="angstrom"
    )
    width: Number = setting(doc="width parameter of the wall", unit="angstrom", gt=0)

    def directions(self, lattice: SpinLattice) -> Floats:
        start = _unit(np.array(self.direction))
        axis = _unit(np.array(self.axis))
        if self.through is not None:
            through = np.array(self.through)
            through = through - (through @ start) * start
            if np.linalg.norm(through) < 1e-9 * np.linalg.norm(self.through):
                raise InputError("domain-wall: `through` lies along `direction`; choose one across it")
        else:
            through = np.cross(axis, start)
            if np.linalg.norm(through) < 1e-9:  # the spins lie along the axis: any perpendicular will do
                through = np.cross(np.eye(3)[int(np.argmin(np.abs(start)))], start)
        r = lattice.positions @ axis
        position = 0.5 * (r.min() + r.max()) if self.position is None else self.position
        angle = 2.0 * np.arctan(np.exp(np.clip((r - position) / self.width, -700.0, 700.0)))
        return np.cos(angle)[:, None] * start + np.sin(angle)[:, None] * _unit(through)


class Skyrmion(SpinState):
    """A skyrmion in the plane of x and y, or a tube of them, in a background along z or -z.

    Spins turn from the background by ``2 atan(sinh(radius / width) / sinh(r / width))``: 180 degrees in the centre, 90
    degrees at `radius`. A spin at the polar angle phi points in the plane along ``vorticity * phi + helicity``.
    Helicities 0 and 180 are Neel skyrmions; 90 and -90 are Bloch skyrmions of the two chiralities. `Heisenberg` says
    which of them a Dzyaloshinskii-Moriya interaction makes. Vorticity -1 is an antiskyrmion.

    Source of the profile: X. S. Wang, H. Y. Yuan & X. R. Wang, Commun. Phys. 1, 31 (2018).
    """

    kind: Literal["skyrmion"] = "skyrmion"
    radius: Number = setting(doc="where the spins lie in the plane", unit="angstrom", gt=0)
    width: Number | None = setting(
        None, "width of the wall around the core; null: half the radius", unit="angstrom", gt=0
    )
    helicity: Number = setting(
        0.0, "angle between a spin and the direction away from the centre", unit="degree"
    )
    vorticity: int = setting(1, "number of turns of the in-plane spin along a circle around the centre")
    core: Literal["up", "down"] = setting(
        "down", "direction of the spin in the centre; the background is opposite"
    )
    center: Annotated[list[Number], BeforeValidator(plain)] | None = setting(
        None,
        "x and y of the centre; null: the middle of the lattice",
        unit="angstrom",
        min_length=2,
        max_length=2,
    )

    def directions(self, lattice: SpinLattice) -> Floats:
        center = lattice.site_positions[:, :2].mean(0) if self.center is None else np.array(self.center)
        x, y = self._from_center(lattice, center).T
        r, width = np.hypot(x, y), self.width or 0.5 * self.radius
        # sinh(r / width) / sinh(radius / width) without large numbers
        rise = np.exp(np.clip((r - self.radius) / width, None, 700.0))
        ratio = rise * np.expm1(-2.0 * r / width) / np.expm1(-2.0 * self.radius / width)
        angle = np.pi - 2.0 * np.arctan(ratio)
        plane = self.vorticity * np.arctan2(y, x) + np.deg2rad(self.helicity)
        up = np.cos(angle) if self.core == "down" else -np.cos(angle)
        return np.stack([np.sin(angle) * np.cos(plane), np.sin(angle) * np.sin(plane), up], -1)

    def _from_center(self, lattice: SpinLattice, center: Floats) -> Floats:
        """Return (n_spins, 2) shortest vectors from the centre, across periodic boundaries too."""
        found = lattice.positions - np.append(center, 0.0)
        found[:, 2] = 0.0
        cell, extra = np.zeros((3, 3)), []
        periodic = np.zeros(3, dtype=bool)
        for direction in np.flatnonzero(lattice.pbc):
            along = lattice.shape[direction] * np.append(lattice.vectors[direction, :2], 0.0)
            length = float(np.linalg.norm(along))
            if length < 1e-9:
                continue
            area = np.linalg.norm(np.cross(cell[periodic], along), axis=1)
            flat = area < 1e-9 * length * np.linalg.norm(cell[periodic], axis=1)
            if periodic.sum() == 2 or flat.any():
                extra.append(along)  # what is tilted against the plane, and repeats with a shift in it
            else:
                cell[direction], periodic[direction] = along, True
        if not periodic.any():
            plane: Floats = found[:, :2]
            return plane
        shifts = _steps(len(extra)) @ np.array(extra).reshape(-1, 3)
        reduced = reduced_vectors(cell, periodic)
        repeats = [*reduced, *shortest_vectors(shifts, cell, periodic)]
        lengths = np.linalg.norm(repeats, axis=1)
        shortest = float(lengths[lengths > 1e-9].min())
        if 2.0 * self.radius >= shortest:
            raise InputError(
                f"skyrmion: a radius of {self.radius:g} does not fit into a lattice that repeats every {shortest:g}; "
                f"make the lattice larger or the skyrmion smaller"
            )
        near = shortest_vectors((found[:, None] + shifts).reshape(-1, 3), cell, periodic)
        near = (near[:, None] + _steps(len(reduced)) @ reduced).reshape(len(found), -1, 3)
        square = (near * near).sum(-1)
        # of several equally near images, the same ones wherever the centre is
        tied = square <= (1.0 + 1e-9) * square.min(1, keepdims=True)
        chosen = np.argmin(np.where(tied, near @ np.array([1.0, 0.3137, 0.0]), np.inf), 1)
        nearest: Floats = near[np.arange(len(near)), chosen, :2]
        return nearest


def _steps(k: int) -> Floats:
    """Return all (3^k, k) steps of -1, 0 or 1 along k vectors."""
    return np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=k)))


class RandomSpins(SpinState):
    """Spins of independent directions, uniform on the sphere; the same for the same seed."""

    kind: Literal["random"] = "random"
    seed: int = setting(0, "number of the random configuration")

    def directions(self, lattice: SpinLattice) -> Floats:
        found: Floats = random_spins(
            Segments.uniform(1, lattice.n_spins), problem_keys(self.seed, torch.arange(1))
        ).numpy()
        return found


class GivenSpins(SpinState):
    """Spins from a file (OVF, npy) or as numbers, scaled to unit length."""

    kind: Literal["given"] = "given"
    file: str | None = setting(None, "an .ovf or .npy file")
    index: int = setting(-1, "index of the configuration in the file, from 0; -1 is the last")
    values: Annotated[list[Vector] | None, BeforeValidator(plain)] = setting(None, "one vector for each spin")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file is None) == (self.values is None):
            raise ValueError("give either a `file` or `values`")
        return self

    def directions(self, lattice: SpinLattice) -> Floats:
        if self.file is None:
            return unit_spins(self.values or [], lattice.n_spins, where="values", label=lattice.label)
        chain = read_spins(self.file, lattice)
        if not -len(chain) <= self.index < len(chain):
            raise InputError(
                f"{self.file}: has {len(chain)} configurations, so there is no number {self.index}; use 0 to "
                f"{len(chain) - 1}, or -1 for the last"
            )
        found: Floats = chain[self.index].numpy()
        return found


STATES: dict[str, type[SpinState]] = {
    "ferromagnet": Ferromagnet,
    "domain-wall": DomainWall,
    "skyrmion": Skyrmion,
    "random": RandomSpins,
    "given": GivenSpins,
}
#: what `make_state` takes: a state, settings with a ``kind``, a file's name, or vectors
StateLike: TypeAlias = Any


def make_state(spec: StateLike, source: str = "") -> SpinState:
    """Return a state from settings with a ``kind`` of `STATES`, from its name or a file, or from vectors (n_spins, 3).

    source: names the origin in messages.

    Raises:
        InputError: the argument is none of these.
        ConfigError: the settings do not validate.
    """
    if isinstance(spec, SpinState):
        return spec
    head = f"{source}: " if source else ""
    if isinstance(spec, Mapping):
        kind = spec.get("kind")
        if kind not in STATES:
            raise InputError(
                f"{head}a state of spins needs a `kind`, one of {', '.join(STATES)}; got {quoted(kind)}"
            )
        state: SpinState = plugin.build(STATES[kind], spec, source)
        return state
    if spec in ("ferromagnet", "random") if isinstance(spec, str) else False:
        return STATES[spec]()
    if isinstance(spec, str) or hasattr(spec, "__fspath__"):
        return GivenSpins(file=str(spec))
    if hasattr(spec, "tolist") or isinstance(spec, list | tuple):
        built: SpinState = plugin.build(GivenSpins, {"values": spec}, source)
        return built
    raise InputError(
        f"{head}a state of spins is settings with a `kind`, the name of a file, or vectors; got {type(spec).__name__}"
    )


def random_spins(segments: Segments, key: torch.Tensor) -> torch.Tensor:
    """Return random unit vectors (n_rows, 3), float64, for problems with the keys ``key (n_problems,)`` int64.

    A problem gets the same spins in any batch; see `mlopt.core.batch.random.problem_keys`.
    """
    drawn = Draws(key, torch.zeros_like(key), segments).normal_rows(3)
    found: torch.Tensor = drawn / torch.linalg.vector_norm(drawn, dim=-1, keepdim=True)
    return found


def _unit(vector: Floats) -> Floats:
    found: Floats = vector / np.linalg.norm(vector)
    return found
