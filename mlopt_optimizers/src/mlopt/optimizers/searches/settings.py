"""Settings of a search: its budget, the energy to reach, and the minima to keep."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from mlopt.core.errors import InputError
from mlopt.core.plugins.input_file import AbsolutePath
from mlopt.core.plugins.plugin import Plugin, setting


class Budget(Plugin):
    """The budget of each start, or of the whole run."""

    force_calls: int = setting(50_000, "force calls of each start", ge=1)
    minutes: float | None = setting(
        None, "wall time of the whole run without compiling; where it ends the run is not reproducible", gt=0
    )


class Target(Plugin):
    """An energy to reach."""

    energy: float = setting(..., "the energy, such as that of the known global minimum")
    tolerance: float = setting(
        1e-3,
        "largest energy above the target that counts as a hit, because quenches end a little above "
        "the minimum",
        ge=0,
    )
    stop: Literal["never", "start", "run"] = setting("run", "what ends when a start hits")


class MinimaSettings(Plugin):
    """The choice of minima to keep."""

    keep: int = setting(
        50, "number of the lowest distinct minima of the run that are polished and stored", ge=1
    )
    per_start: int = setting(10, "number of the lowest distinct minima that each start remembers", ge=1)
    energy_window: float = setting(
        1e-3, "minima with a larger difference in energy are different", unit="energy", gt=0
    )
    distance_tolerance: float = setting(
        0.05, "largest displacement between atoms of equal minima", unit="length", gt=0
    )
    database: AbsolutePath | None = setting(
        None, "a minima store to which this run adds; several runs can share one"
    )

    def check(self) -> None:
        """Refuse a database to which this run could not add in the end. Create none."""
        if self.database is None:
            return
        path = Path(self.database)
        if path.exists():
            from mlopt.core.minima.store import MinimaStore

            MinimaStore(path, self.energy_window, self.distance_tolerance).close()
        elif not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise InputError(
                f"`minima.database`: {path.parent} is no folder that can be written to; create it first"
            )
