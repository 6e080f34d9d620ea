"""What the files of a run directory say, read with tolerance: a report must also come out of half a run.

A file that is missing is missing; one that cannot be read is named in ``Record.notes``. Every number is a finite
float or None, whatever the file holds.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.cli.report.exhibits import Exhibits, Image, drawn, read_exhibits
from mlopt.core.atoms.units import Units
from mlopt.core.errors import InputError, MloptError, RunDirectoryError
from mlopt.core.files import atomic
from mlopt.core.plugins import registry
from mlopt.core.plugins.plugin import build
from mlopt.core.runs.directory import RunDirectory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Minima that are read in full; a long run finds thousands, and a page shows the best.
MINIMA_SHOWN = 50
_FINISHED = ("finished", "not-converged", "converged", "ok", "done")


@dataclass(frozen=True)
class Start:
    """One start. ``energy`` is the polished one where there is one, None where it is not finite."""

    index: int
    energy: float | None
    fmax: float | None
    calls: float
    first_hit: float | None
    quenches: float | None
    reason: str
    polished: bool

    @property
    def failed(self) -> bool:
        """Whether it ended by a non-finite energy or force."""
        return self.energy is None or self.reason == "non-finite"

    @property
    def watched(self) -> float:
        """Calls for which it could have hit; infinite if it ended by itself, for then it never will."""
        return math.inf if self.failed or self.reason == "converged" else self.calls


@dataclass(frozen=True)
class Minimum:
    """One of the ranked minima. positions (n, 3), numbers (n,), cell (3, 3), periodic (3,)."""

    rank: int
    energy: float | None
    point_group: str
    hits: float | None
    start: float | None
    calls: float | None
    fmax: float | None
    formula: str
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    periodic: tuple[bool, bool, bool]


@dataclass(frozen=True)
class Record:
    """Content of a run directory. ``trace_energy[t][i]`` is the energy so far of start i at ``trace_calls[t]``."""

    folder: str
    config_text: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    starts: tuple[Start, ...] = ()
    trace_calls: tuple[float, ...] = ()
    trace_energy: tuple[tuple[float | None, ...], ...] = ()
    minima: tuple[Minimum, ...] = ()
    n_minima: int = 0
    notes: tuple[str, ...] = ()
    #: what the run wants to be shown; where it names no figures, every SVG that it drew is
    exhibits: Exhibits | None = None
    drawn: tuple[Image, ...] = ()

    @property
    def state(self) -> str:
        """State of the run in one word; STATUS.json is the newest, unless the run was about to write it."""
        own, told = str(self.status.get("state", "")), str(self.summary.get("status", ""))
        return told if told and own in ("", "running") else own or told or "unknown"

    @property
    def partial(self) -> bool:
        """Whether more may come: the numbers are those so far."""
        return self.state not in _FINISHED

    @property
    def units(self) -> str:
        """Unit of energies, in a word: what the run says, else what its potential or model declares."""
        told = self.summary.get("units")
        try:
            units = Units.of(str(told)) if told else declared_units(self.config)
        except InputError:  # of a plugin that calls its units by a name of its own
            return str(told)
        return units.label if units else "the potential's units"

    def with_unit(self, energy: str) -> str:
        """An energy for people: ``-1.25 eV``; the bare number in reduced units."""
        return energy if self.units == Units.of("reduced").label else f"{energy} {self.units}"

    @property
    def target(self) -> float | None:
        """The target energy; before the summary is written, that of the configuration."""
        if "target_energy" in self.summary:
            return number(self.summary["target_energy"])
        return next(_numbers_named(self.config, ("target_energy", "target")), None)

    @property
    def name(self) -> str:
        """What was searched: ``LJ38``, a formula, or the run directory's name."""
        if self.summary.get("name"):
            return str(self.summary["name"])
        system, potential = self.config.get("system"), self.config.get("potential")
        cluster = str(system.get("cluster") or "") if isinstance(system, dict) else ""
        name = potential.get("name") if isinstance(potential, dict) else potential
        if (
            self.minima
            and not any(self.minima[0].periodic)
            and len(set(self.minima[0].numbers.tolist())) == 1
        ):
            prefix = {"lennard-jones": "LJ", "morse": "M"}.get(str(name))
            if prefix:
                return f"{prefix}{len(self.minima[0].numbers)}"
        return cluster or (self.minima[0].formula if self.minima else self.folder)


def number(value: Any) -> float | None:
    """Return a finite float, or None for anything else (null, NaN, text, booleans)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        # Values read by ASE are NumPy's.
        if isinstance(value, bool) or not hasattr(value, "item") or getattr(value, "ndim", 1) != 0:
            return None
        value = value.item()
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def read_record(folder: Path) -> Record:
    """Read a run directory; `RunDirectoryError` if there is nothing of a run in it."""
    if not folder.is_dir():
        raise RunDirectoryError(f"{folder}: no such run directory. Give the folder that `mlopt run` made.")
    notes: list[str] = []
    config_text = _read(folder / "config.resolved.yaml", notes)
    record = Record(
        folder=folder.resolve().name,
        config_text=config_text,
        config=_yaml(config_text, notes),
        environment=_object(folder / "env.json", notes),
        status=_status(folder, notes),
        summary=_object(folder / "results" / "summary.json", notes),
        starts=_starts(folder / "results" / "starts.json", notes),
    )
    calls, energies = _trace(folder / "results" / "trace.json", notes)
    minima, n_minima = _minima(folder / "results" / "minima.extxyz", notes)
    if not (config_text or record.status or record.summary or record.starts or notes):
        raise RunDirectoryError(
            f"{folder}: not a run directory (no config.resolved.yaml, STATUS.json or results in it)."
            " Give the folder that `mlopt run` made."
        )
    exhibits = read_exhibits(folder / "results", _json(folder / "results" / "page.json", notes), notes)
    changes: dict[str, Any] = {
        "exhibits": exhibits,
        "drawn": () if exhibits and exhibits.figures else drawn(folder / "results", notes),
        "trace_calls": calls,
        "trace_energy": energies,
        "minima": minima,
        "n_minima": n_minima,
    }
    return Record(**{**record.__dict__, **changes, "notes": tuple(notes)})


def _status(folder: Path, notes: list[str]) -> dict[str, Any]:
    """Return STATUS.json; a run that calls itself running while nobody runs it was killed."""
    status = _object(folder / "STATUS.json", notes)
    if status.get("state") == "running":
        with contextlib.suppress(MloptError):
            status["state"] = RunDirectory.open(folder).read_status().state
    return status


def declared_units(config: dict[str, Any]) -> Units | None:
    """What the potential or the model of a configuration says of its numbers; None where it cannot be asked."""
    for kind, name in (("model", "energy_units"), ("potential", "units")):
        given = config.get(kind)
        settings = (
            {"name": given} if isinstance(given, str) else dict(given) if isinstance(given, dict) else {}
        )
        if "name" not in settings:
            continue
        with contextlib.suppress(MloptError):  # not installed here, or of another version
            cls = registry.load(kind, str(settings.pop("name")))
            units = getattr(cls, name, None)
            return Units.of(units if isinstance(units, Units) else getattr(build(cls, settings), name))
    return None


def _numbers_named(value: Any, names: tuple[str, ...]) -> Iterator[float]:
    if isinstance(value, dict):
        for name in names:
            inner = value.get(name)
            found = number(inner.get("energy") if isinstance(inner, dict) else inner)
            if found is not None:
                yield found
        for inner in value.values():
            yield from _numbers_named(inner, names)


def _read(path: Path, notes: list[str]) -> str:
    try:
        return atomic.read_bytes(path).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        notes.append(f"{path.name}: cannot be read ({error.strerror})")
        return ""


def _json(path: Path, notes: list[str]) -> Any:
    text = _read(path, notes)
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        notes.append(f"{path.name}: cannot be read ({error})")
        return None


def _object(path: Path, notes: list[str]) -> dict[str, Any]:
    value = _json(path, notes)
    if value is not None and not isinstance(value, dict):
        notes.append(f"{path.name}: holds no object")
    return value if isinstance(value, dict) else {}


def _yaml(text: str, notes: list[str]) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        notes.append("config.resolved.yaml: not readable as YAML")
        return {}
    return value if isinstance(value, dict) else {}


def _starts(path: Path, notes: list[str]) -> tuple[Start, ...]:
    value = _json(path, notes)
    if value is None:
        return ()
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    if not isinstance(value, list) or len(rows) < len(value):
        notes.append(f"{path.name}: not a list of starts; what is not a start was left out")
    starts = []
    for place, row in enumerate(rows):
        polished = number(row.get("polished_energy"))
        index = number(row.get("index"))
        starts.append(
            Start(
                index=place if index is None else int(index),
                energy=number(row.get("energy")) if polished is None else polished,
                fmax=number(row.get("fmax")),
                calls=max(0.0, number(row.get("calls")) or 0.0),
                first_hit=_not_negative(row.get("first_hit")),
                quenches=number(row.get("quenches")),
                reason=str(row.get("reason") or "unknown"),
                polished=polished is not None,
            )
        )
    return tuple(starts)


def _not_negative(value: Any) -> float | None:
    found = number(value)
    return found if found is not None and found >= 0 else None


def _trace(path: Path, notes: list[str]) -> tuple[tuple[float, ...], tuple[tuple[float | None, ...], ...]]:
    value = _json(path, notes)
    if value is None:
        return (), ()
    try:
        pairs = [
            (number(calls), tuple(number(energy) for energy in row))
            for calls, row in zip(value["calls"], value["energy"], strict=True)
        ]
        width = {len(row) for _, row in pairs}
        if len(width) > 1 or any(calls is None or calls < 0 for calls, _ in pairs):
            raise ValueError("rows of different length or calls that are no numbers")
    except (KeyError, TypeError, ValueError) as error:
        notes.append(f"{path.name}: not a trace ({error})")
        return (), ()
    return tuple(calls or 0.0 for calls, _ in pairs), tuple(row for _, row in pairs)


def _minima(path: Path, notes: list[str]) -> tuple[tuple[Minimum, ...], int]:
    if not path.exists():
        return (), 0
    from ase.io import iread

    minima: list[Minimum] = []
    try:
        # An open file, for ASE reads an @ in a name as an index.
        with io.TextIOWrapper(atomic.open_regular(path), encoding="utf-8") as lines:
            for place, atoms in enumerate(
                itertools.islice(iread(lines, index=":", format="extxyz"), MINIMA_SHOWN)
            ):
                minima.append(minimum_of(atoms, place))
        total = _count_frames(path)
    # ASE raises whatever its parser meets in a torn or foreign file; the report goes on with what was read.
    except Exception as error:
        notes.append(f"{path.name}: {len(minima)} minima could be read, then {type(error).__name__}: {error}")
        total = len(minima)
    ranked = sorted(minima, key=lambda item: math.inf if item.energy is None else item.energy)
    return tuple(ranked), max(total, len(minima))


def minimum_of(atoms: Any, place: int) -> Minimum:
    """Read a structure with what its file says of it; the first has place 0."""
    info = dict(atoms.info)
    if atoms.calc is not None:
        info = {**atoms.calc.results, **info}
    group = info.get("point_group", "")
    rank = number(info.get("rank"))
    return Minimum(
        rank=place + 1 if rank is None else int(rank),
        energy=number(info.get("energy")),
        # The extended xyz format reads a bare T (the tetrahedral rotations) as true.
        point_group="T" if group is True or str(group) == "True" else str(group),
        hits=number(info.get("hits")),
        # The second names are those of the minima store.
        start=number(info.get("start", info.get("start_index"))),
        calls=number(info.get("calls", info.get("force_calls"))),
        fmax=number(info.get("fmax", info.get("max_force"))),
        formula=str(atoms.get_chemical_formula()),
        numbers=atoms.get_atomic_numbers(),
        positions=atoms.get_positions(),
        cell=atoms.cell.array,
        periodic=(bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
    )


def _count_frames(path: Path) -> int:
    """Count frames by their sizes alone: a file may hold thousands."""
    frames = 0
    with io.TextIOWrapper(atomic.open_regular(path), encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                for _ in itertools.islice(lines, int(line) + 1):
                    pass
                frames += 1
    return frames
