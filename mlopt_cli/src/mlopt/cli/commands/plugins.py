"""``mlopt plugins``: the distribution of each plugin, and with --check whether the plugin loads."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mlopt.core.plugins.registry import Entry


@click.command()
@click.option("--check", is_flag=True, help="Load each plugin; exit with 1 if one is broken.")
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="With --check: how long one may take to load.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(check: bool, limit: float, as_json: bool) -> int:
    """List every installed plugin with its origin. Without --check none is imported.

    With --check each is loaded in a process of its own.
    """
    from dataclasses import asdict

    from mlopt.cli.terminal.output import emit_json, table
    from mlopt.core.plugins import registry

    entries = registry.entries()
    rows = [asdict(entry) for entry in entries]
    if check:
        for row, fault in zip(rows, _faults(entries, limit), strict=True):
            row["problem"] = fault
    broken = [row for row in rows if row.get("problem")]
    if as_json:
        emit_json({"status": "error" if broken else "ok", "plugins": rows})
    else:
        lines = [
            (row["kind"], row["name"], f"{row['distribution']} {row['version']}")
            + ((row["problem"] or "ok",) if check else (row["target"],))
            for row in rows
        ]
        click.echo(
            table(lines, indent="")
            or "no plugins are installed: reinstall mlopt-potentials, mlopt-optimizers"
        )
    return 1 if broken else 0


def _faults(entries: list[Entry], limit: float) -> list[str | None]:
    """Return the fault of each plugin, or None; plugins that share a name are not imported."""
    from mlopt.cli.configs.loading import problems
    from mlopt.core.errors import PluginError
    from mlopt.core.plugins import registry

    names = Counter((entry.kind, entry.name) for entry in entries)
    alone = [entry for entry in entries if names[entry.kind, entry.name] == 1]
    found = dict(zip(alone, problems(alone, limit), strict=True))
    for entry in entries:
        if entry not in found:
            try:
                registry.find(entry.kind, entry.name)
            except PluginError as error:
                found[entry] = " ".join(str(error).split())
    return [found.get(entry) for entry in entries]
