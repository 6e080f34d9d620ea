"""What the files of a run directory say, read with tolerance: a report must also come out of half a run.

A file that is missing is missing; one that cannot be read is named in ``Record.notes``. Every number is a finite
float or None, whatever the file holds.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlopt.cli.report.exhibits import Exhibits, Image, drawn, read_exhibits
from mlopt.cli.report.files import number, read_json, read_object, read_text
from mlopt.cli.report.minima import ShownMinimum, read_minima
from mlopt.cli.report.search.starts import Starts, read_starts
from mlopt.core.atoms.units import Units
from mlopt.core.errors import InputError, MloptError, RunDirectoryError
from mlopt.core.plugins import registry
from mlopt.core.plugins.plugin import Plugin, build
from mlopt.core.runs.directory import RunDirectory

_FINISHED = ("finished", "not-converged", "converged", "ok", "done")


@dataclass(frozen=True)
class Record:
    """Content of a run directory; ``starts`` and ``minima`` are those of a run that has left such files.

    exhibits: what the run wants to be shown. drawn: every SVG that it drew, where it names no figures.
    """

    folder: str
    config_text: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    starts: Starts = Starts()
    minima: tuple[ShownMinimum, ...] = ()
    n_minima: int = 0
    notes: tuple[str, ...] = ()
    exhibits: Exhibits = Exhibits()
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

    @property
    def unit(self) -> str:
        """The same behind a number: nothing in reduced units."""
        return "" if self.units == Units.of("reduced").label else self.units

    @property
    def name(self) -> str:
        """What the run was about: ``LJ38``, a formula, or the run directory's name."""
        if self.summary.get("name"):
            return str(self.summary["name"])
        system = self.config.get("system")
        cluster = str(system.get("cluster") or "") if isinstance(system, dict) else ""
        if (
            self.minima
            and not any(self.minima[0].periodic)
            and len(set(self.minima[0].numbers.tolist())) == 1
        ):
            called = getattr(_plugin(self.config, "potential")[0], "abbreviation", "")
            if called:
                return f"{called}{len(self.minima[0].numbers)}"
        return cluster or (self.minima[0].formula if self.minima else self.folder)


def read_record(folder: Path) -> Record:
    """Read a run directory; `RunDirectoryError` if there is nothing of a run in it."""
    if not folder.is_dir():
        raise RunDirectoryError(f"{folder}: no such run directory. Give the folder that `mlopt run` made.")
    notes: list[str] = []
    results, config_text = folder / "results", read_text(folder / "config.resolved.yaml", notes)
    record = Record(
        folder=folder.resolve().name,
        config_text=config_text,
        config=_yaml(config_text, notes),
        environment=read_object(folder / "env.json", notes),
        status=_status(folder, notes),
        summary=read_object(results / "summary.json", notes),
    )
    record = replace(record, starts=read_starts(results, _target(record), notes))
    minima, n_minima = read_minima(results / "minima.extxyz", notes)
    if not (config_text or record.status or record.summary or record.starts or notes):
        raise RunDirectoryError(
            f"{folder}: not a run directory (no config.resolved.yaml, STATUS.json or results in it)."
            " Give the folder that `mlopt run` made."
        )
    exhibits = read_exhibits(results, read_json(results / "page.json", notes), notes)
    return replace(
        record,
        exhibits=exhibits or Exhibits(),
        drawn=() if exhibits and exhibits.figures else drawn(results, notes),
        minima=minima,
        n_minima=n_minima,
        notes=tuple(notes),
    )


def _status(folder: Path, notes: list[str]) -> dict[str, Any]:
    """Return STATUS.json; a run that calls itself running while nobody runs it was killed."""
    status = read_object(folder / "STATUS.json", notes)
    if status.get("state") == "running":
        with contextlib.suppress(MloptError):
            status["state"] = RunDirectory.open(folder).read_status().state
    return status


def declared_units(config: dict[str, Any]) -> Units | None:
    """What the potential or the model of a configuration says of its numbers; None where it cannot be asked."""
    for kind, name in (("model", "energy_units"), ("potential", "units")):
        cls, settings = _plugin(config, kind)
        if cls is None:
            continue
        with contextlib.suppress(MloptError):  # of another version
            units = getattr(cls, name, None)
            return Units.of(units if isinstance(units, Units) else getattr(build(cls, settings), name))
    return None


def _plugin(config: dict[str, Any], kind: str) -> tuple[type[Plugin] | None, dict[str, Any]]:
    """Find the class that a configuration names at its top, and its settings; None where there is none, or not here."""
    given = config.get(kind)
    settings = {"name": given} if isinstance(given, str) else dict(given) if isinstance(given, dict) else {}
    if "name" not in settings:
        return None, {}
    with contextlib.suppress(MloptError):  # not installed here
        return registry.load(kind, str(settings.pop("name"))), settings
    return None, {}


def _target(record: Record) -> float | None:
    """The energy to be reached; before the summary is written, that of the configuration."""
    if "target_energy" in record.summary:
        return number(record.summary["target_energy"])
    given = record.config.get("target")
    return number(given.get("energy") if isinstance(given, dict) else given)


def _yaml(text: str, notes: list[str]) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        notes.append("config.resolved.yaml: not readable as YAML")
        return {}
    return value if isinstance(value, dict) else {}
