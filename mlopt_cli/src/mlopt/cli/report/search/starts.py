"""The starts of a search, from ``results/starts.json``, and their energies over time, from ``trace.json``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlopt.cli.report.files import number, read_json


@dataclass(frozen=True)
class Start:
    """One start. ``energy`` is the polished one if there is one, None if it is not finite."""

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
        """True if the start ended by a non-finite energy or force."""
        return self.energy is None or self.reason == "non-finite"

    @property
    def watched(self) -> float:
        """The calls in which the start could have hit; infinite if it ended by itself, because then it never will."""
        return math.inf if self.failed or self.reason == "converged" else self.calls


@dataclass(frozen=True)
class Starts:
    """All starts of a run. ``trace_energy[t][i]`` is the lowest energy of start i up to ``trace_calls[t]``.

    target: the energy to be reached, if any.
    """

    starts: tuple[Start, ...] = ()
    trace_calls: tuple[float, ...] = ()
    trace_energy: tuple[tuple[float | None, ...], ...] = ()
    target: float | None = None

    def __bool__(self) -> bool:
        return bool(self.starts or self.trace_calls)


def read_starts(results: Path, target: float | None, notes: list[str]) -> Starts:
    """Read the starts of a run; there are none for other kinds of run."""
    starts = _starts(results / "starts.json", notes)
    return Starts(starts, *_trace(results / "trace.json", notes), target)


def _starts(path: Path, notes: list[str]) -> tuple[Start, ...]:
    value = read_json(path, notes)
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
    value = read_json(path, notes)
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
