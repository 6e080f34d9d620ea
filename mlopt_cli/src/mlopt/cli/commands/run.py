"""``mlopt run``: validate, run, report."""

from __future__ import annotations

import click

from mlopt.cli.run.options import finish, options_of, run_options
from mlopt.cli.terminal.output import printing_aside


@click.command()
@click.argument("config", metavar="CONFIG|RECIPE")
@click.option(
    "-s", "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override a setting; repeatable."
)
@click.option("--out", metavar="DIR", help="Run directory; the default is the next free runs/NAME-0001.")
@click.option("--device", metavar="cpu|cuda", help="Short for -s device=...")
@run_options
def command(
    config: str, assignments: tuple[str, ...], out: str | None, device: str | None, **options: object
) -> int:
    """Run a configuration file or a recipe (`mlopt list recipes`).

    A file wins over a recipe of the same name. Everything goes into one run directory: resolved configuration, log,
    metrics, checkpoints, results and report.html.
    """
    from mlopt.cli.configs import sources
    from mlopt.cli.run.runner import start

    if device is not None:
        assignments = (*assignments, f"device={device}")
    source = sources.find(config, assignments)
    chosen = options_of(options)
    with printing_aside():
        experiment = source.experiment()
        outcome = start(experiment, name=source.name, config_input=source.text, out=out, options=chosen)
    return finish(outcome, as_json=bool(options["as_json"]))
