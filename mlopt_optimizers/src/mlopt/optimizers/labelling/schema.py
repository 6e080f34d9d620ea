"""The tables of a ledger of labels, and its rows."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.template import Template
from mlopt.core.errors import MloptError
from mlopt.core.lazy import torch

APPLICATION = 0x6D6C6C62  # "mllb"
SCHEMA = 1
TABLES = (
    """CREATE TABLE labellers (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, settings TEXT NOT NULL,
        created TEXT NOT NULL)""",
    """CREATE TABLE owners (
        name TEXT PRIMARY KEY, place TEXT NOT NULL, pid INTEGER NOT NULL, birth TEXT NOT NULL,
        beat INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE labels (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, structure TEXT NOT NULL,
        labeller INTEGER NOT NULL REFERENCES labellers (id),
        state TEXT NOT NULL CHECK (state IN ('claimed', 'done', 'failed')), owner TEXT, deaths INTEGER NOT NULL,
        attempts INTEGER NOT NULL, n_atoms INTEGER NOT NULL, electrons INTEGER NOT NULL,
        pos BLOB NOT NULL, z BLOB NOT NULL, cell BLOB NOT NULL, pbc INTEGER NOT NULL, fixed BLOB, masses BLOB,
        template TEXT, energy REAL, force BLOB, stress BLOB, digest TEXT, source TEXT, reason TEXT,
        seconds REAL NOT NULL DEFAULT 0, created TEXT NOT NULL, finished TEXT)""",
    "CREATE INDEX by_state ON labels (labeller, state)",
    """CREATE TABLE failures (
        label INTEGER NOT NULL REFERENCES labels (id), attempt INTEGER NOT NULL, reason TEXT NOT NULL,
        seconds REAL NOT NULL, owner TEXT NOT NULL, time TEXT NOT NULL)""",
    "CREATE INDEX by_label ON failures (label)",
)


def structure_columns(system: Systems) -> dict[str, Any]:
    """Return the columns of one structure, a batch of one, with all that it carries."""
    template, given = system.template_of(0), system.given_masses
    return {
        "n_atoms": len(system.z),
        "electrons": int(system.z.sum()),
        "pos": _bytes(system.pos.double(), "<f8"),
        "z": _bytes(system.z, "<i8"),
        "cell": _bytes(system.cell[0].double(), "<f8"),
        "pbc": sum(int(periodic) << axis for axis, periodic in enumerate(system.pbc[0].tolist())),
        "fixed": _bytes(system.fixed, "u1") if bool(system.fixed.any()) else None,
        "masses": None if given is None or bool(given.isnan().all()) else _bytes(given, "<f8"),
        "template": None if template is None else template.to_json(),
    }


def label_columns(data: Dataset) -> dict[str, Any]:
    """Return the columns of one label, a dataset of one, with a digest of its numbers."""
    energy = float(data.energy[0])
    force = _bytes(data.force, "<f8") if bool(data.with_force[0]) else None
    stress = _bytes(data.stress[0], "<f8") if bool(data.with_stress[0]) else None
    return {
        "energy": energy,
        "force": force,
        "stress": stress,
        "source": data.source[0],
        "digest": _digest(energy, force, stress),
    }


def dataset_of(row: sqlite3.Row, path: Path) -> Dataset:
    """Return the structure of a row with its label, NaN if it has none; the source is then the reason.

    Raises:
        MloptError: the row is not what was written.
    """
    n = row["n_atoms"]

    def array(name: str, kind: str, shape: tuple[int, ...]) -> torch.Tensor:
        raw, expected = row[name], np.dtype(kind).itemsize * int(np.prod(shape))
        if len(raw) != expected:
            raise _altered(row, path)
        return torch.from_numpy(np.frombuffer(raw, dtype=kind).reshape(shape).copy())

    template = None if row["template"] is None else Template.from_json(row["template"])
    systems = Systems(
        array("pos", "<f8", (n, 3)),
        array("z", "<i8", (n,)),
        torch.tensor([0, n]),
        array("cell", "<f8", (1, 3, 3)),
        torch.tensor([[bool(row["pbc"] >> axis & 1) for axis in range(3)]]),
        None if row["fixed"] is None else array("fixed", "u1", (n,)).bool(),  # type: ignore[arg-type]
        None if row["masses"] is None else array("masses", "<f8", (n,)),
        None if template is None else torch.zeros(1, dtype=torch.int64),
        () if template is None else (template,),
    )
    if row["state"] != "done":
        return Dataset(systems, source=(row["reason"] or "",))
    if row["digest"] != _digest(row["energy"], row["force"], row["stress"]):
        raise _altered(row, path)
    return Dataset(
        systems,
        torch.tensor([row["energy"]], dtype=torch.float64),
        None if row["force"] is None else array("force", "<f8", (n, 3)),  # type: ignore[arg-type]
        None if row["stress"] is None else array("stress", "<f8", (1, 3, 3)),  # type: ignore[arg-type]
        source=(row["source"] or "",),
    )


def _altered(row: sqlite3.Row, path: Path) -> MloptError:
    return MloptError(
        f"{path}: label {row['id']} is not what was written: the file was altered or the disk is faulty. Restore it "
        f"from a copy, or delete that row to have the label computed again."
    )


def _bytes(values: torch.Tensor, kind: str) -> bytes:
    return values.detach().cpu().numpy().astype(kind).tobytes()


def _digest(energy: float, force: bytes | None, stress: bytes | None) -> str:
    told = hashlib.sha256(np.float64(energy).tobytes())
    for part in (force, stress):
        told.update(b"-" if part is None else part)
    return told.hexdigest()
