"""The content of a run directory, read tolerantly, because an unfinished run also has a report.

A missing file is left out; an unreadable one is named in ``Record.notes``. Every number is a finite float or None,
whatever the file holds.
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
    """The content of a run directory; ``starts`` and ``minima`` are empty for a run without such files.

    exhibits: the content of the run's page.
    drawn: every SVG of the run, if its page names no figures.
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
        """The state of the run in one word. STATUS.json has it, unless the process was about to write it."""
        own, told = str(self.status.get("state", "")), str(self.summary.get("status", ""))
        return told if told and own in ("", "running") else own or told or "unknown"

    @property
    def partial(self) -> bool:
        """True if the run may continue, so that its numbers are not final."""
        return self.state not in _FINISHED

    @property
    def units(self) -> str:
        """The unit of energies in a word, from the run, else from its potential or model."""
        told = self.summary.get("units")
        try:
            units = Units.of(str(told)) if told else declared_units(self.config)
        except InputError:  # of a plugin that calls its units by a name of its own
            return str(told)
        return units.label if units else "the potential's units"

    @property
    def unit(self) -> str:
        """The unit of energies behind a number, empty for reduced units."""
        return "" if self.units == Units.of("reduced").label else self.units

    @property
    def name(self) -> str:
        """The subject of the run: ``LJ38``, a formula, or the run directory's name."""
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
    """Read a run directory.

    Raises:
        RunDirectoryError: the folder holds nothing of a run.
    """
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
    """Return STATUS.json; a run that is marked as running and has no process was killed."""
    status = read_object(folder / "STATUS.json", notes)
    if status.get("state") == "running":
        with contextlib.suppress(MloptError):
            status["state"] = RunDirectory.open(folder).read_status().state
    return status


def declared_units(config: dict[str, Any]) -> Units | None:
    """Return the units of a configuration's potential or model; None if it cannot be loaded."""
    for kind, name in (("model", "energy_units"), ("potential", "units")):
        cls, settings = _plugin(config, kind)
        if cls is None:
            continue
        with contextlib.suppress(MloptError):  # of another version
            units = getattr(cls, name, None)
            return Units.of(units if isinstance(units, Units) else getattr(build(cls, settings), name))
    return None


def _plugin(config: dict[str, Any], kind: str) -> tuple[type[Plugin] | None, dict[str, Any]]:
    """Return the class at the top of a configuration and its settings; None if it is missing or not installed."""
    given = config.get(kind)
    settings = {"name": given} if isinstance(given, str) else dict(given) if isinstance(given, dict) else {}
    if "name" not in settings:
        return None, {}
    with contextlib.suppress(MloptError):  # not installed here
        return registry.load(kind, str(settings.pop("name"))), settings
    return None, {}


def _target(record: Record) -> float | None:
    """Return the target energy; before the summary is written, that of the configuration."""
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
