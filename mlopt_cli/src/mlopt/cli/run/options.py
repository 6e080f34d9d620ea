"""Common parts of ``mlopt run`` and ``mlopt resume``: options, and the display of the outcome."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlopt.cli.terminal.output import cells, emit_json, is_table, note, shown, table

if TYPE_CHECKING:
    from mlopt.cli.run.runner import Ending, Options

Function = TypeVar("Function", bound=Callable[..., Any])


def _not_nan(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if value != value:
        raise click.BadParameter("nan is not a time.", context, parameter)
    return value


_OPTIONS = (
    click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object."),
    click.option(
        "--strict", is_flag=True, help="Exit with 3 if the target was not reached or nothing converged."
    ),
    click.option("--quiet", is_flag=True, help="Show no progress."),
    click.option(
        "--threads", type=click.IntRange(min=1), help="Threads to compute with; the default is torch's."
    ),
    click.option(
        "--checkpoint-every",
        type=click.FloatRange(min=0),
        callback=_not_nan,
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="Time between checkpoints.",
    ),
    click.option(
        "--max-minutes",
        type=click.FloatRange(min=0, min_open=True),
        callback=_not_nan,
        default=math.inf,
        metavar="MINUTES",
        help="Stop then, with a checkpoint and exit code 75; `mlopt resume` goes on.",
    ),
)


def run_options(function: Function) -> Function:
    """Add the options of a run to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def options_of(given: Mapping[str, Any]) -> Options:
    """Return the options in the runner's form."""
    from mlopt.cli.run.runner import Options

    return Options(
        strict=given["strict"],
        quiet=given["quiet"],
        checkpoint_every=given["checkpoint_every"],
        max_minutes=given["max_minutes"],
        threads=given["threads"],
    )


def finish(outcome: Ending, *, as_json: bool) -> int:
    """Show how a run ended and, on a terminal, what to open next; return the exit code."""
    if as_json:
        emit_json(outcome.summary)
    elif "message" not in outcome.summary:
        listed = {key: value for key, value in outcome.summary.items() if is_table(value)}
        single = {key: value for key, value in outcome.summary.items() if key not in listed}
        click.echo(table([(key.replace("_", " "), shown(value)) for key, value in single.items()], indent=""))
        for one in listed.values():
            click.echo("\n" + table(cells(one), indent=""))
    if outcome.message:
        note(f"mlopt: {outcome.message}")
    report = outcome.summary.get("report")
    if report and not as_json and sys.stdout.isatty():
        click.echo(f"open {Path(str(report)).absolute().as_uri()}")
    return int(outcome.code)
