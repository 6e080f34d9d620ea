"""``mlopt report``: write report.html anew, from what the run directory holds."""

from __future__ import annotations

import click


@click.command()
@click.argument("directory", metavar="DIR")
@click.option("--out", metavar="FILE", help="Where to; the default is DIR/report.html.")
def command(directory: str, out: str | None) -> None:
    """Write DIR/report.html anew: one file, which needs neither network nor other files."""
    from pathlib import Path

    from mlopt.core.runs.directory import RunDirectory

    run = RunDirectory.open(directory)  # before the report, whose imports take a second
    from mlopt.cli.report.page import write_report

    click.echo(write_report(run.root) if out is None else write_report(run.root, Path(out)))
