"""One minimum: a relaxed structure, its origin, and its verification."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlopt.core.atoms.elements import parse_formula
from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.template import Template, make_atoms
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.minima.matching import checked
from mlopt.core.minima.symmetry import PointGroup, point_group
from mlopt.core.minima.verification import Reading, Verification, check_records, reading

if TYPE_CHECKING:
    from ase import Atoms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Minimum:
    """A relaxed structure and its origin.

    Energies, lengths and forces are in the potential's units; forces are norms per atom.

    potential: identifies the energy surface, for instance by its configuration as canonical JSON. Minima of different
        potentials never merge.
    source: names the discovery (run, start and rank). Leave it None only where no discovery can be added twice.
    notes: further numbers. ``verified`` is present where false, with ``energy_again``, the energy of a second
        evaluation. ``relaxed`` is present where false: the potential was too rough to reach a small force. For
        ``energy_zero_width`` see `mlopt.core.landscapes.evaluation.Evaluation`.
    id, hits: set by the store and ignored by `MinimaStore.add`.

    Raises:
        InputError: shapes disagree, or a number is not finite.
    """

    energy: float
    pos: Floats  # (n, 3)
    z: Ints  # (n,)
    cell: Floats = field(default_factory=lambda: np.zeros((3, 3)))  # (3, 3), rows are lattice vectors
    pbc: Bools = field(default_factory=lambda: np.zeros(3, dtype=bool))  # (3,)
    fixed: Bools | None = None  # (n,) atoms that did not move; None for none
    masses: Floats | None = None  # (n,) amu, NaN for the standard one; None: all so
    template: Template | None = None  # other columns and info of the structure
    _: KW_ONLY
    max_force: float
    potential: str
    rms_force: float | None = None
    point_group: PointGroup | None = None  # computed on insertion where None and not periodic
    first_run: str = ""
    seed: int | None = None
    start_index: int | None = None
    force_calls: int | None = None  # of the start, until it found this minimum
    source: str | None = None
    notes: dict[str, float | bool] = field(default_factory=dict)
    id: int | None = None
    hits: int = 0

    def __post_init__(self) -> None:
        pos, z = checked(self.pos, self.z, "Minimum")
        cell, pbc = np.array(self.cell, dtype=np.float64), np.array(self.pbc, dtype=bool)
        if cell.shape != (3, 3) or pbc.shape != (3,) or not np.isfinite(cell).all():
            raise InputError(
                f"Minimum: cell must be (3, 3) and finite, pbc (3,); got {cell.shape} and {pbc.shape}."
            )
        for name in ("energy", "max_force", "rms_force"):
            value = getattr(self, name)
            if value is not None and (not np.isfinite(value) or (name != "energy" and value < 0)):
                raise InputError(
                    f"Minimum({name}=...) must be {'' if name == 'energy' else 'non-negative and '}finite, "
                    f"got {value!r}: a failed minimisation is not a minimum, do not add it."
                )
        for name, value in (("fixed", self.fixed), ("masses", self.masses)):
            if value is not None:
                kept: NDArray[Any] = np.array(value, dtype=bool if name == "fixed" else np.float64)
                if kept.shape != z.shape:
                    raise InputError(f"Minimum({name}=...) must have shape {z.shape}, got {kept.shape}.")
                kept.setflags(write=False)
                object.__setattr__(self, name, kept)
        if self.template is not None and not self.template.fits(len(z)):
            raise InputError(f"Minimum(template=...) is not of {len(z)} atoms.")
        for name, array in (("pos", pos.copy()), ("z", z), ("cell", cell), ("pbc", pbc)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        # numpy scalars would reach SQLite as blobs.
        for name, kind in (("energy", float), ("max_force", float), ("rms_force", float)):
            self._plain(name, kind)
        for name in ("seed", "start_index", "force_calls"):
            self._plain(name, int)

    def _plain(self, name: str, kind: Callable[[Any], object]) -> None:
        if (value := getattr(self, name)) is not None:
            object.__setattr__(self, name, kind(value))

    @classmethod
    def of(cls, systems: Systems, index: int, energy: float, **facts: Any) -> Minimum:
        """Make the minimum of system ``index`` of a batch, with its columns and info; ``facts`` sets other fields."""
        one = systems[index]
        return cls(
            energy,
            one.pos.detach().cpu().numpy(),
            one.z.cpu().numpy(),
            one.cell[0].detach().cpu().numpy(),
            one.pbc[0].cpu().numpy(),
            one.fixed.cpu().numpy() if bool(one.fixed.any()) else None,
            None if one.given_masses is None else one.given_masses.cpu().numpy(),
            one.template_of(0),
            **facts,
        )

    def system(self) -> Systems:
        """Return the structure as a batch of one, on the CPU."""
        return Systems(
            torch.from_numpy(self.pos.copy()),
            torch.from_numpy(self.z.copy()),
            torch.tensor([0, len(self.z)]),
            torch.from_numpy(self.cell.copy())[None],
            torch.from_numpy(self.pbc.copy())[None],
            None if self.fixed is None else torch.from_numpy(self.fixed.copy()),  # type: ignore[arg-type]
            None if self.masses is None else torch.from_numpy(self.masses.copy()),
            None if self.template is None else torch.zeros(1, dtype=torch.int64),
            () if self.template is None else (self.template,),
        )

    def facts(self, rank: int) -> dict[str, Any]:
        """Return what is known about the structure, for files: numbers and words by name."""
        group = self.point_group.symbol if self.point_group else "unknown"
        known = {"start_index": self.start_index, "force_calls": self.force_calls}
        found = {"point_group": group, "hits": self.hits, "rank": rank, "max_force": self.max_force}
        return found | {key: value for key, value in known.items() if value is not None} | self.notes

    def to_atoms(self, rank: int) -> Atoms:
        """Return `ase.Atoms` with the energy as calculator result and all else in ``info``."""
        from ase.calculators.singlepoint import SinglePointCalculator

        atoms = make_atoms(self.z, self.pos, self.cell, self.pbc, self.fixed, self.masses, self.template)
        atoms.info.update(self.facts(rank))
        # Not in info as well: ASE's extxyz writer refuses an energy that it finds twice.
        atoms.calc = SinglePointCalculator(atoms, energy=self.energy)
        return atoms


Evaluate = Callable[[Floats, Ints, Floats, Bools], tuple[float, Floats]]


def verify(
    minimum: Minimum, evaluate: Evaluate, force_tolerance: float, energy_tolerance: float
) -> Verification:
    """Recompute energy and largest force from the stored coordinates and compare them with the record.

    evaluate: ``evaluate(pos (n, 3), z (n,), cell (3, 3), pbc (3,))`` returns the energy and the forces (n, 3), in the
        units of the record.

    If they miss the record, further evaluations measure how well the potential repeats itself. The scatter that they
    show is allowed, see `mlopt.core.minima.verification`.

    Raises:
        InputError: the forces have another shape.
    """

    def told(indices: list[int]) -> list[Reading]:
        copies = [
            (minimum.pos.copy(), minimum.z.copy(), minimum.cell.copy(), minimum.pbc.copy()) for _ in indices
        ]
        return [reading(*evaluate(*one), minimum.pos.shape) for one in copies]

    relative = energy_tolerance / (1.0 + abs(minimum.energy))
    return check_records([minimum.energy], told, force_tolerance, relative).verifications[0]


def geometry(minimum: Minimum) -> dict[str, object]:
    """Return the columns that are overwritten when a lower copy of the same minimum is found."""
    group = minimum.point_group
    return {
        "energy": minimum.energy,
        "n_atoms": len(minimum.z),
        "pos": minimum.pos.astype("<f8").tobytes(),
        "z": minimum.z.astype("<i8").tobytes(),
        "cell": minimum.cell.astype("<f8").tobytes(),
        "pbc": sum(int(periodic) << axis for axis, periodic in enumerate(minimum.pbc)),
        "notes": json.dumps(minimum.notes) if minimum.notes else None,
        "max_force": minimum.max_force,
        "rms_force": minimum.rms_force,
        "point_group": group.symbol if group else None,
        "point_group_order": group.order if group else None,
        "fixed": None if minimum.fixed is None else minimum.fixed.astype("u1").tobytes(),
        "masses": None if minimum.masses is None else minimum.masses.astype("<f8").tobytes(),
        "template": None if minimum.template is None else minimum.template.to_json(),
    }


def with_point_group(minimum: Minimum) -> Minimum:
    """Return the minimum with its point group, if it is finite and has none yet."""
    if minimum.point_group is None and not minimum.pbc.any():
        # Atoms closer than the tolerance have no meaningful point group; they are stored without one.
        with contextlib.suppress(InputError):
            return replace(minimum, point_group=point_group(minimum.pos, minimum.z))
    return minimum


def composition_key(wanted: str | Sequence[int] | Ints) -> str:
    """Return the canonical key of a formula or of atomic numbers, ``"1:2,8:1"`` for water."""
    count = Counter(parse_formula(wanted) if isinstance(wanted, str) else (int(number) for number in wanted))
    return ",".join(f"{number}:{count[number]}" for number in sorted(count))
