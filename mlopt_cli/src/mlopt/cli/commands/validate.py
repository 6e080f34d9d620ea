"""``mlopt validate``: every mistake of a configuration, and everything that a run would refuse before it begins."""

from __future__ import annotations

import click

#: what was looked at: with --quick, and without
_TRIED = {True: "settings alone", False: "settings, files, potential and device"}


@click.command()
@click.argument("configs", metavar="CONFIG|RECIPE...", nargs=-1, required=True)
@click.option(
    "-s", "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override a setting; repeatable."
)
@click.option(
    "--quick",
    is_flag=True,
    help="Look at the settings alone: open no file, try no potential, look for no device.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(configs: tuple[str, ...], assignments: tuple[str, ...], quick: bool, as_json: bool) -> int:
    """Check configurations without running them; lists every mistake, with its place.

    Files are opened, the potential is tried on the system, and the device is looked for: what `mlopt run` would refuse
    is refused here in the same words.
    """
    from mlopt.cli.configs import sources
    from mlopt.cli.terminal.output import emit_json, note, printing_aside
    from mlopt.core.errors import ConfigError, MloptError

    found: list[dict[str, object]] = []
    for given in configs:
        try:
            source = sources.find(given, assignments)
            with printing_aside():
                experiment = source.experiment()
                if not quick:
                    from mlopt.cli.run.runner import examined  # it needs NumPy

                    examined(experiment)
        except MloptError as error:
            problems = error.problems if isinstance(error, ConfigError) else [str(error)]
            found.append({"config": given, "ok": False, "problems": problems})
            if not as_json:
                note(f"mlopt: {error}")
        else:
            found.append({"config": given, "ok": True, "problems": []})
            if not as_json:
                click.echo(f"{given}: ok ({_TRIED[quick]})")
    sound = all(one["ok"] for one in found)
    if as_json:
        emit_json({"status": "ok" if sound else "error", "checked": _TRIED[quick], "configs": found})
    return 0 if sound else 2
