"""The tables of a minima store, and the upgrade of files with an earlier schema."""

from __future__ import annotations

APPLICATION = 0x6D6C6D6E  # "mlmn" in the file's header: tells our files from other SQLite files
SCHEMA = 3
TABLES = (
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value REAL NOT NULL)",
    """CREATE TABLE minima (
        id INTEGER PRIMARY KEY, potential TEXT NOT NULL, composition TEXT NOT NULL, energy REAL NOT NULL,
        n_atoms INTEGER NOT NULL, pos BLOB NOT NULL, z BLOB NOT NULL, cell BLOB NOT NULL, pbc INTEGER NOT NULL,
        max_force REAL NOT NULL, rms_force REAL, point_group TEXT, point_group_order INTEGER,
        first_run TEXT NOT NULL, seed TEXT, start_index INTEGER, force_calls INTEGER, created TEXT NOT NULL,
        notes TEXT, fixed BLOB, masses BLOB, template TEXT)""",
    "CREATE INDEX by_energy ON minima (potential, composition, energy)",
    "CREATE TABLE hits (source TEXT PRIMARY KEY, minimum INTEGER NOT NULL REFERENCES minima (id)) WITHOUT ROWID",
    "CREATE INDEX by_minimum ON hits (minimum)",
)
#: columns that later schemas have added to the table of minima; a file that lacks one gets it when it is opened
ADDED = {"minima": {"notes": "TEXT", "fixed": "BLOB", "masses": "BLOB", "template": "TEXT"}}
