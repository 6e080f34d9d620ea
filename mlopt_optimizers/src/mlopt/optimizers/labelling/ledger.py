"""The ledger: one SQLite file that is the truth about labels, for any number of processes and runs at once.

Invariants:

- A label is recorded as soon as it is finished, and before it is used.
- A label that is recorded is never computed again. Its key is the digest of the structure and of the labeller's
  settings (`mlopt.optimizers.labelling.identity`).
- A structure is claimed before its label is computed. A claim of a process that has died passes on to the next that
  asks; a claim of a living process never does.
- A failed label is recorded with its reason, and tried again only as often as the labeller says.

A label that is finished while the disk is full, or whose process is killed before it is recorded, is computed again.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError, MloptError
from mlopt.core.files.database import Database
from mlopt.core.files.reading import existing_file
from mlopt.core.protocols.labeller import Labeller
from mlopt.core.quoting import quoted
from mlopt.optimizers.labelling.identity import differences, labeller_key, settings_of
from mlopt.optimizers.labelling.owners import Owner, Witness, beating
from mlopt.optimizers.labelling.schema import (
    APPLICATION,
    SCHEMA,
    TABLES,
    dataset_of,
    label_columns,
    structure_columns,
)

if TYPE_CHECKING:
    from ase import Atoms

#: keys in one query
_MANY = 500


class Claim(Enum):
    """The answer to a claim."""

    OURS = "ours"  # compute the label
    THEIRS = "theirs"  # a living process computes it
    DONE = "done"
    FAILED = "failed"  # and has been tried often enough


@dataclass(frozen=True)
class Counts:
    """The counts of a ledger for one labeller.

    number: the number of the labeller with these settings in the ledger.
    failed: structures that have no label after all attempts so far.
    claimed: structures whose label is computed now, or was when its process died.
    seconds, wasted: the time of all labels that are done, and that of failed attempts.
    electrons: the electrons of all structures with a label.
    """

    number: int
    labeller: str
    settings: Mapping[str, Any]
    done: int
    failed: int
    claimed: int
    seconds: float
    wasted: float
    electrons: int


class Ledger(Database):
    """The ledger in the file ``path``, created if absent. Use it as a context manager, or call `close`.

    Raises:
        InputError: the file is no ledger, or has a newer schema.
    """

    kind = "ledger of labels"
    content = "labels"
    application, schema, tables = APPLICATION, SCHEMA, TABLES

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.owner: Owner | None = None
        self.witness = Witness()
        #: sentences about claims that were taken over, for the log; the reader empties it
        self.news: list[str] = []
        #: labellers whose other settings have been told
        self.told: set[int] = set()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a ledger that exists.

        Raises:
            InputError: there is no such file, or it is no ledger.
        """
        found = existing_file(os.fspath(path))
        if not found.stat().st_size:
            raise InputError(f"{found} is an empty file, and no ledger of labels")
        return cls(found)

    @contextmanager
    def claiming(self) -> Iterator[Owner]:
        """Make this process an owner of claims; at the end its open claims are given back."""
        owner = Owner.here()
        with self._writing():
            self._database.execute(
                "INSERT INTO owners (name, place, pid, birth) VALUES (?, ?, ?, ?)",
                (owner.name, owner.place, owner.pid, owner.birth),
            )
        self.owner = owner
        try:
            with beating(self.path, owner):
                yield owner
        finally:
            self.owner = None
            with suppress(MloptError), self._writing():  # on a full disk; others see that the owner has gone
                self._give_back(owner.name)
                self._database.execute("DELETE FROM owners WHERE name = ?", (owner.name,))

    def enter(self, labeller: Labeller) -> int:
        """Return the number of a labeller with its settings in this ledger; it is entered if it is new."""
        settings = settings_of(labeller)
        key = labeller_key(settings)
        known = self._rows("SELECT id FROM labellers WHERE key = ?", key)
        if not known:
            with self._writing():
                self._database.execute(
                    "INSERT OR IGNORE INTO labellers (key, name, settings, created) VALUES (?, ?, ?, ?)",
                    (key, settings["name"], json.dumps(settings), _now()),
                )
            known = self._rows("SELECT id FROM labellers WHERE key = ?", key)
        return int(known[0]["id"])

    def others(self, labeller: Labeller) -> list[str]:
        """Return one line for each other setting of this labeller of which the ledger has labels."""
        here = settings_of(labeller)
        key, lines = labeller_key(here), []
        rows = self._rows(
            "SELECT key, settings, (SELECT COUNT(*) FROM labels WHERE labeller = labellers.id AND state = 'done') "
            "AS done FROM labellers WHERE name = ? ORDER BY id",
            here["name"],
        )
        for row in rows:
            if row["key"] == key or not row["done"]:
                continue
            apart = differences(here, json.loads(row["settings"]))
            listed = "; ".join(apart[:5]) + (f"; and {len(apart) - 5} more" if len(apart) > 5 else "")
            labels = "1 label" if row["done"] == 1 else f"{row['done']:,} labels"
            lines.append(
                f"{self.path} has {labels} of `{here['name']}` with other settings, not used here: {listed}"
            )
        return lines

    def counts(self) -> list[Counts]:
        """Return the counts of each labeller, in the order of their first use."""
        found = []
        for row in self._rows(
            "SELECT labellers.id AS number, labellers.name, settings, TOTAL(state = 'done') AS done, "
            "TOTAL(state = 'failed') AS failed, "
            "TOTAL(state = 'claimed') AS claimed, TOTAL(seconds) AS seconds, "
            "TOTAL(electrons * (state = 'done')) AS electrons, (SELECT TOTAL(failures.seconds) FROM failures JOIN "
            "labels ON label = labels.id WHERE labeller = labellers.id) AS wasted "
            "FROM labellers LEFT JOIN labels ON labeller = labellers.id GROUP BY labellers.id ORDER BY labellers.id"
        ):
            whole = {name: int(row[name]) for name in ("done", "failed", "claimed", "electrons")}
            settings = json.loads(row["settings"])
            found.append(
                Counts(
                    row["number"],
                    row["name"],
                    settings,
                    seconds=row["seconds"],
                    wasted=row["wasted"],
                    **whole,
                )
            )
        return found

    def dataset(self, labeller: str | int | None = None, *, failed: bool = False) -> Dataset:
        """Return all labels of one labeller, in the order in which they were claimed.

        labeller: its name, or its number in `counts`; None takes the only one.
        failed: True to return the structures whose label failed instead, with the reason as their source.

        Raises:
            InputError: the ledger has no such labels, or those of several labellers or settings.
        """
        rows = self._labels_of(labeller, failed)
        if not rows:
            return Dataset(Systems.cluster([]).select([]))
        return Dataset.concatenate([dataset_of(row, self.path) for row in rows])

    def images(self, labeller: str | int | None = None, *, failed: bool = False) -> list[Atoms]:
        """Return what `dataset` returns as ASE ``Atoms``, for files.

        ``info`` has the name of the labeller, the seconds that the label took, and for a failed label the reason.

        Raises:
            InputError: as `dataset`.
        """
        rows, images = self._labels_of(labeller, failed), []
        for row in rows:
            (atoms,) = dataset_of(row, self.path).to_atoms()
            atoms.info["labeller"] = row["name"]
            atoms.info |= {"failure": row["reason"]} if failed else {"label_seconds": row["seconds"]}
            images.append(atoms)
        return images

    def _labels_of(self, labeller: str | int | None, failed: bool) -> list[sqlite3.Row]:
        state = "failed" if failed else "done"
        known = self._rows("SELECT id, name, settings FROM labellers ORDER BY id")
        chosen = [row for row in known if labeller is None or labeller in (row["id"], row["name"])]
        if labeller is None and not known:
            return []
        if not chosen:
            listed = ", ".join(f"{row['name']} (number {row['id']})" for row in known) or "nobody"
            raise InputError(f"{self.path} has no labels of {quoted(labeller)}. It has those of: {listed}.")
        rows = {
            row["id"]: self._rows(
                "SELECT labels.*, name FROM labels JOIN labellers ON labeller = labellers.id WHERE labeller = ? AND "
                "state = ? ORDER BY labels.id",
                row["id"],
                state,
            )
            for row in chosen
        }
        filled = [row for row in chosen if rows[row["id"]]]
        if len(filled) > 1:
            apart = differences(json.loads(filled[0]["settings"]), json.loads(filled[1]["settings"]))
            numbers = ", ".join(f"{row['name']} (number {row['id']})" for row in filled)
            words = apart[0].replace(" here, ", " and ").removesuffix(" there") if apart else "nothing"
            raise InputError(
                f"{self.path} has labels of {len(filled)} labellers or settings: {numbers}; the first two differ in "
                f"{words}. Their energies may not be compared: say which by its number"
            )
        return rows[filled[0]["id"]] if filled else []

    def states(self, keys: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Return state and number of deaths of each known key."""
        found = {}
        for row in self._select("key, state, deaths", keys):
            found[row["key"]] = row["state"], row["deaths"]
        return found

    def labels(self, keys: Sequence[str]) -> dict[str, Dataset]:
        """Return the label of each known key as a dataset of one, NaN if it failed or is not finished."""
        return {row["key"]: dataset_of(row, self.path) for row in self._select("*", keys)}

    def claim(self, key: str, structure: str, system: Systems, labeller: int, attempts: int) -> Claim:
        """Claim the computation of a label.

        attempts: how often a label is tried.
        """
        owner = self._owner()
        # a claim that a power cut loses costs nothing; only labels are forced to the disk
        self._database.execute("PRAGMA synchronous = NORMAL")
        try:
            with self._writing():
                rows = self._rows("SELECT id, state, owner, attempts, deaths FROM labels WHERE key = ?", key)
                if not rows:
                    self._insert(key, structure, system, labeller, owner)
                    return Claim.OURS
                row = rows[0]
                if row["state"] == "done":
                    return Claim.DONE
                if row["state"] == "failed" and row["attempts"] >= attempts:
                    return Claim.FAILED
                died = row["state"] == "claimed" and row["owner"] != owner.name
                if died:
                    if not self._has_died(row["owner"]):
                        return Claim.THEIRS
                    self._tell_death(row["owner"], row["id"], row["deaths"] + 1)
                self._database.execute(
                    "UPDATE labels SET state = 'claimed', owner = ?, deaths = deaths + ? WHERE id = ?",
                    (owner.name, int(died), row["id"]),
                )
                return Claim.OURS
        finally:
            self._database.execute("PRAGMA synchronous = FULL")

    def record(self, labels: Mapping[str, tuple[Dataset, str | None, float]]) -> None:
        """Record labels that are finished, in one transaction that is on the disk when this returns.

        A label that is recorded already stays as it is.

        labels: by key, a dataset of one, the reason of its failure or None, and the seconds that it took.

        Raises:
            MloptError: the disk is full, or fails; nothing of this call is recorded then.
        """
        owner, now = self._owner(), _now()
        with self._writing():
            for key, (data, reason, seconds) in labels.items():
                if reason is None:
                    columns = label_columns(data) | {
                        "state": "done", "seconds": seconds, "finished": now, "owner": None, "reason": None
                    }  # fmt: skip
                    sets = ", ".join(f"{name} = ?" for name in columns)
                    self._database.execute(
                        f"UPDATE labels SET {sets} WHERE key = ? AND state != 'done'",
                        [*columns.values(), key],
                    )
                    continue
                self._database.execute(
                    "INSERT INTO failures SELECT id, attempts + 1, ?, ?, ?, ? FROM labels WHERE key = ? AND "
                    "state != 'done'",
                    (reason, seconds, owner.told, now, key),
                )
                self._database.execute(
                    "UPDATE labels SET state = 'failed', reason = ?, attempts = attempts + 1, owner = NULL, "
                    "finished = ? WHERE key = ? AND state != 'done'",
                    (reason, now, key),
                )

    def forgive(self, labeller: int | None = None) -> int:
        """Let failed labels be tried again from the first attempt; return how many there are.

        labeller: of this labeller alone; the history of failures stays.
        """
        with self._writing():
            done = self._database.execute(
                "UPDATE labels SET attempts = 0 WHERE state = 'failed' AND (? IS NULL OR labeller = ?)",
                (labeller, labeller),
            )
        return int(done.rowcount)

    def _insert(self, key: str, structure: str, system: Systems, labeller: int, owner: Owner) -> None:
        values = structure_columns(system) | {
            "key": key, "structure": structure, "labeller": labeller, "state": "claimed", "owner": owner.name,
            "deaths": 0, "attempts": 0, "created": _now(),
        }  # fmt: skip
        marks = ", ".join("?" * len(values))
        self._database.execute(
            f"INSERT INTO labels ({', '.join(values)}) VALUES ({marks})", list(values.values())
        )

    def _give_back(self, owner: str) -> None:
        """Undo the open claims of an owner; what was never tried leaves no trace."""
        self._database.execute(
            "DELETE FROM labels WHERE state = 'claimed' AND owner = ? AND attempts = 0 AND deaths = 0",
            (owner,),
        )
        self._database.execute(
            "UPDATE labels SET state = 'failed', owner = NULL, reason = COALESCE(reason, 'not finished') "
            "WHERE state = 'claimed' AND owner = ?",
            (owner,),
        )

    def _has_died(self, name: str) -> bool:
        rows = self._rows("SELECT * FROM owners WHERE name = ?", name)
        if not rows:
            return True
        row = rows[0]
        return self.witness.is_dead(Owner(row["name"], row["place"], row["pid"], row["birth"]), row["beat"])

    def _tell_death(self, name: str, label: int, deaths: int) -> None:
        rows = self._rows("SELECT * FROM owners WHERE name = ?", name)
        who = (
            Owner(*(rows[0][one] for one in ("name", "place", "pid", "birth"))).told if rows else "a process"
        )
        times = f", the {deaths}th that did" if deaths > 3 else ", the 3rd that did" if deaths == 3 else ""
        self.news.append(f"{who} has died while it computed label {label}{times}; it is computed again")

    def _select(self, columns: str, keys: Sequence[str]) -> Iterator[Any]:
        distinct = list(dict.fromkeys(keys))
        for start in range(0, len(distinct), _MANY):
            part = distinct[start : start + _MANY]
            marks = ", ".join("?" * len(part))
            yield from self._rows(f"SELECT {columns} FROM labels WHERE key IN ({marks})", *part)

    def _owner(self) -> Owner:
        if self.owner is None:
            raise InputError("Ledger: claims and labels are made inside `with ledger.claiming():`")
        return self.owner


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
