"""``mlopt validate``: every mistake of every configuration, in a fraction of a second."""

from __future__ import annotations

import click


@click.command()
@click.argument("configs", metavar="CONFIG|RECIPE...", nargs=-1, required=True)
@click.option(
    "-s", "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override a setting; repeatable."
)
@click.option("--check", is_flag=True, help="Also open its files and look for its device (imports torch).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(configs: tuple[str, ...], assignments: tuple[str, ...], check: bool, as_json: bool) -> int:
    """Check configurations without running them; lists every mistake, with its place."""
    from mlopt.cli import sources
    from mlopt.cli.output import emit_json, note
    from mlopt.core.errors import ConfigError, MloptError

    found: list[dict[str, object]] = []
    for given in configs:
        try:
            experiment = sources.find(given, assignments).experiment()
            if check:
                experiment.check()
        except MloptError as error:
            problems = error.problems if isinstance(error, ConfigError) else [str(error)]
            found.append({"config": given, "ok": False, "problems": problems})
            if not as_json:
                note(f"mlopt: {error}")
        else:
            found.append({"config": given, "ok": True, "problems": []})
            if not as_json:
                click.echo(f"{given}: ok")
    sound = all(one["ok"] for one in found)
    if as_json:
        emit_json({"status": "ok" if sound else "error", "configs": found})
    return 0 if sound else 2
