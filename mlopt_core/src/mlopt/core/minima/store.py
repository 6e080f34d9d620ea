"""The minima store: one SQLite file that any number of processes and runs may write at once.

Invariants:

- No two records of one potential and composition are the same structure. Structures are compared by
  `mlopt.core.minima.matching.same_structure`, with the tolerances written into the file when it was created. Comparison
  and insertion are one ``BEGIN IMMEDIATE`` transaction, so this holds across processes.
- A hit is counted once. Each has a ``source`` key; adding it again, after a crash or by merging twice, changes nothing.
- Energies and coordinates are returned bit for bit. SQLite's REAL is float64, and arrays are raw little-endian bytes
  whose lengths are checked. Nothing is pickled.
- A writer killed at any instant loses at most the minimum it was adding (WAL journal, ``synchronous=FULL``).

SQLite's locks need a local file system. On a network file system give each node its own store and `merge_from` them. A
store must be used in the process and thread that opened it, as any SQLite connection.
"""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlopt.core.atoms.template import Template
from mlopt.core.errors import InputError, MloptError
from mlopt.core.files.database import Database
from mlopt.core.minima.matching import same_structure
from mlopt.core.minima.minimum import (
    Evaluate,
    Ints,
    Minimum,
    composition_key,
    geometry,
    verify,
    with_point_group,
)
from mlopt.core.minima.schema import ADDED, APPLICATION, SCHEMA, TABLES
from mlopt.core.minima.symmetry import PointGroup
from mlopt.core.minima.verification import Verification
from mlopt.core.quoting import quoted
from mlopt.core.structures.write import write_ase_db, write_extxyz

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Evaluate", "MinimaStore", "Minimum", "Verification", "verify"]

_DEFAULTS = {"energy_window": 1e-3, "distance_tolerance": 0.05}
_SELECT = "SELECT *, (SELECT COUNT(*) FROM hits WHERE minimum = minima.id) AS hits FROM minima"


class MinimaStore(Database):
    """The minima store in the file ``path``, created if absent. Use it as a context manager, or call `close`.

    energy_window, distance_tolerance: the limits within which two structures are the same minimum, 1e-3 and 0.05 by
        default. They belong to the file. Pass them only to create a file, or to require these values of an existing
        one.

    Raises:
        InputError: the file is no minima store, has a newer schema, or was created with other tolerances.
    """

    kind = "minima store"
    content = "minima"
    when_locked = "stop that process, or give this run its own store and merge them later"
    application, schema, tables, added = APPLICATION, SCHEMA, TABLES, ADDED

    def __init__(
        self,
        path: str | os.PathLike[str],
        energy_window: float | None = None,
        distance_tolerance: float | None = None,
    ) -> None:
        asked = {"energy_window": energy_window, "distance_tolerance": distance_tolerance}
        for name, value in asked.items():
            if value is not None and not (np.isfinite(value) and value > 0):
                raise InputError(f"MinimaStore({name}=...) must be positive, got {quoted(value)}.")
        self._asked = asked
        super().__init__(path)
        settings = {row["name"]: row["value"] for row in self._rows("SELECT name, value FROM settings")}
        for name, value in asked.items():
            if value is not None and value != settings[name]:
                self.close()
                raise InputError(
                    f"{self.path} was created with {name}={settings[name]:g}, not {value:g}: "
                    f"leave {name} out to use the file's, or start a new file."
                )
        self.energy_window, self.distance_tolerance = (
            settings["energy_window"],
            settings["distance_tolerance"],
        )

    def _created(self) -> None:
        settings = {name: value or _DEFAULTS[name] for name, value in self._asked.items()}
        self._database.executemany("INSERT INTO settings VALUES (?, ?)", settings.items())

    def __len__(self) -> int:
        return int(self._rows("SELECT COUNT(*) AS size FROM minima")[0]["size"])

    def __iter__(self) -> Iterator[Minimum]:
        """Iterate in order of energy over the minima present now; ties in order of discovery."""
        for row in self._rows("SELECT id FROM minima ORDER BY energy, id"):
            yield self.get(row["id"])

    def get(self, identifier: int) -> Minimum:
        """Return one record.

        Raises:
            InputError: there is none of this id.
        """
        rows = self._rows(f"{_SELECT} WHERE id = ?", int(identifier))
        if not rows:
            raise InputError(f"{self.path} has no minimum with id {identifier}.")
        return self._minimum(rows[0])

    def lowest(
        self, k: int, composition: str | Sequence[int] | Ints | None = None, potential: str | None = None
    ) -> list[Minimum]:
        """Return up to ``k`` minima in order of energy.

        composition: a formula (``"Ar38"``) or atomic numbers in any order; None takes all.

        Raises:
            InputError: the composition is no formula, or ``k`` is negative.
        """
        if k < 0:
            raise InputError(f"lowest(k=...) must not be negative, got {k}.")
        wanted: dict[str, str] = {}
        if composition is not None:
            wanted["composition"] = composition_key(composition)
        if potential is not None:
            wanted["potential"] = potential
        where = " WHERE " + " AND ".join(f"{name} = ?" for name in wanted) if wanted else ""
        rows = self._rows(f"{_SELECT}{where} ORDER BY energy, id LIMIT ?", *wanted.values(), int(k))
        return [self._minimum(row) for row in rows]

    def add(self, minimum: Minimum) -> tuple[int, bool]:
        """Count a hit on the record of this structure, inserting it if there is none; return (id, whether it is new).

        Of two equal structures the lower in energy is kept. A ``source`` that was added before changes nothing.
        """
        return self._add(minimum, [minimum.source or uuid.uuid4().hex])

    def merge_from(self, other: MinimaStore) -> int:
        """Add all of another store's minima with their hits; return how many were new. Merging again adds nothing."""
        if self.path.resolve() == other.path.resolve():
            raise InputError(f"merge_from: {self.path} cannot be merged into itself.")
        new = 0
        for minimum in other:
            sources = other._rows("SELECT source FROM hits WHERE minimum = ? ORDER BY source", minimum.id)
            new += self._add(minimum, [row["source"] for row in sources])[1]
        return new

    def note(self, identifier: int, notes: dict[str, float | bool]) -> None:
        """Replace the notes of one record."""
        with self._writing():
            text = json.dumps(notes) if notes else None
            self._database.execute("UPDATE minima SET notes = ? WHERE id = ?", (text, identifier))

    def to_extxyz(self, path: str | os.PathLike[str], minima: Iterable[Minimum] | None = None) -> None:
        """Write ``minima`` (default: all) in the given order; the format rounds coordinates to 8 decimals."""
        write_extxyz(path, self._images(minima))

    def to_ase_db(self, path: str | os.PathLike[str], minima: Iterable[Minimum] | None = None) -> None:
        """Write ``minima`` (default: all) as a new ASE database, replacing the file; see `write_ase_db`."""
        chosen = list(self if minima is None else minima)
        facts = [minimum.facts(rank) for rank, minimum in enumerate(chosen, 1)]
        write_ase_db(path, self._images(chosen), facts)

    def _images(self, minima: Iterable[Minimum] | None) -> list[Atoms]:
        return [minimum.to_atoms(rank) for rank, minimum in enumerate(self if minima is None else minima, 1)]

    def _add(self, minimum: Minimum, sources: list[str]) -> tuple[int, bool]:
        composition = composition_key(minimum.z)
        with self._writing():
            known = [self._rows("SELECT minimum FROM hits WHERE source = ?", source) for source in sources]
            fresh = [source for source, rows in zip(sources, known, strict=True) if not rows]
            if not fresh:
                return int(known[0][0]["minimum"]), False
            same = self._same(minimum, composition)
            if same is None:
                identifier = self._insert(with_point_group(minimum), composition)
            else:
                identifier = int(same.id or 0)
                if minimum.energy < same.energy:
                    self._update(identifier, with_point_group(minimum))
            for source in fresh:
                self._database.execute("INSERT INTO hits VALUES (?, ?)", (source, identifier))
        return identifier, same is None

    def _same(self, minimum: Minimum, composition: str) -> Minimum | None:
        low, high = minimum.energy - self.energy_window, minimum.energy + self.energy_window
        rows = self._rows(
            f"{_SELECT} WHERE potential = ? AND composition = ? AND energy BETWEEN ? AND ? "
            "ORDER BY abs(energy - ?), id",
            *(minimum.potential, composition, low, high, minimum.energy),
        )
        for row in rows:
            stored = self._minimum(row)
            if same_structure(stored, minimum, self.energy_window, self.distance_tolerance):
                return stored
        return None

    def _insert(self, minimum: Minimum, composition: str) -> int:
        values = geometry(minimum) | {
            "potential": minimum.potential,
            "composition": composition,
            "first_run": minimum.first_run,
            "seed": None if minimum.seed is None else str(minimum.seed),  # may exceed SQLite's 63 bits
            "start_index": minimum.start_index,
            "force_calls": minimum.force_calls,
            "created": datetime.now(UTC).isoformat(),
        }
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        cursor = self._database.execute(
            f"INSERT INTO minima ({names}) VALUES ({marks})", list(values.values())
        )
        return int(cursor.lastrowid or 0)

    def _update(self, identifier: int, minimum: Minimum) -> None:
        values = geometry(minimum)
        names = ", ".join(f"{name} = ?" for name in values)
        self._database.execute(f"UPDATE minima SET {names} WHERE id = ?", [*values.values(), identifier])

    def _minimum(self, row: sqlite3.Row) -> Minimum:
        n = row["n_atoms"]
        group = row["point_group"]
        return Minimum(
            energy=row["energy"],
            pos=self._array(row, "pos", "<f8", (n, 3)),
            z=self._array(row, "z", "<i8", (n,)),
            cell=self._array(row, "cell", "<f8", (3, 3)),
            pbc=np.array([bool(row["pbc"] >> axis & 1) for axis in range(3)]),
            fixed=None if row["fixed"] is None else self._array(row, "fixed", "u1", (n,)).astype(bool),
            masses=None if row["masses"] is None else self._array(row, "masses", "<f8", (n,)),
            template=None if row["template"] is None else Template.from_json(row["template"]),
            point_group=None if group is None else PointGroup(group, row["point_group_order"]),
            seed=None if row["seed"] is None else int(row["seed"]),
            notes=json.loads(row["notes"]) if row["notes"] else {},
            **{name: row[name] for name in _PLAIN_COLUMNS},
        )

    def _array(self, row: sqlite3.Row, name: str, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
        raw = row[name]
        expected = np.dtype(kind).itemsize * int(np.prod(shape))
        if len(raw) != expected:
            raise MloptError(
                f"{self.path}: {name} of minimum {row['id']} has {len(raw)} bytes instead of {expected}: "
                "the file was altered; restore it from a copy, or rebuild it with merge_from."
            )
        return np.frombuffer(raw, dtype=kind).reshape(shape)


_PLAIN_COLUMNS = (
    "id",
    "hits",
    "max_force",
    "rms_force",
    "potential",
    "first_run",
    "start_index",
    "force_calls",
)
