"""``mlopt resume``: the continuation of a run that was stopped or killed."""

from __future__ import annotations

import click

from mlopt.cli.run.options import finish, options_of, run_options
from mlopt.cli.terminal.output import printing_aside


@click.command()
@click.argument("directory", metavar="DIR")
@run_options
def command(directory: str, **options: object) -> int:
    """Go on with the run in DIR from its newest sound checkpoint.

    It ends as if it had never been stopped. Its configuration cannot be changed; a run that is finished says so.
    """
    from mlopt.cli.run.runner import resume

    with printing_aside():
        outcome = resume(directory, options_of(options))
    return finish(outcome, as_json=bool(options["as_json"]))
