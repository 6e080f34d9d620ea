"""``mlopt plugins``: which distribution brings what, and under --check whether it loads."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mlopt.core.registry import Entry


@click.command()
@click.option("--check", is_flag=True, help="Load each plugin in turn; exit with 1 if one is broken.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(check: bool, as_json: bool) -> int:
    """List every installed plugin with its origin. Without --check none is imported."""
    from dataclasses import asdict

    from mlopt.cli.output import emit_json, table
    from mlopt.core import registry

    rows = []
    for entry in registry.entries():
        row = asdict(entry)
        if check:
            row["problem"] = problem(entry)
        rows.append(row)
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


def problem(entry: Entry) -> str | None:
    """What is wrong with a plugin, in one line, or None; whatever it prints while it loads is swallowed."""
    from mlopt.core import registry
    from mlopt.core.errors import PluginError
    from mlopt.core.plugin import Plugin
    from mlopt.core.quoting import quoted

    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            cls = registry.load(entry.kind, entry.name)
    except PluginError as error:
        return " ".join(str(error).split())
    if not issubclass(cls, Plugin):
        return f"{cls.__name__} is not an mlopt Plugin. Tell the authors of {entry.distribution}."
    if printed.getvalue().strip():
        first = quoted(printed.getvalue().strip())
        return f"prints {first} when imported, which spoils --json. Tell the authors of {entry.distribution}."
    return None
