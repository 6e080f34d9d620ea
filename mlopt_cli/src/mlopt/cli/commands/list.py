"""``mlopt list``: the names of all that is installed; no plugin is imported."""

from __future__ import annotations

import click

_RECIPES = "recipe"


@click.command()
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(kind: str | None, as_json: bool) -> None:
    """List plugins of a KIND (such as `optimizer`), or `recipes`; without KIND, everything.

    `mlopt info NAME` describes one.
    """
    from mlopt.cli.configs import families, sources
    from mlopt.cli.terminal.output import emit_json, table
    from mlopt.core.plugins import registry

    kinds = [*registry.GROUPS, _RECIPES]
    chosen = kinds if kind is None else [_kind(kind, kinds)]
    found: dict[str, list[dict[str, str]]] = {}
    for one in chosen:
        if one == _RECIPES:
            items = {name: sources.describe(path) for name, path in sources.recipe_paths().items()}
            items |= families.families()
            found[one] = [{"name": name, "description": about} for name, about in items.items()]
        else:
            found[one] = [
                {"name": entry.name, "distribution": entry.distribution, "version": entry.version}
                for entry in registry.entries(one)
            ]
    if as_json:
        emit_json(found)
        return
    for one, listed in found.items():
        if len(found) > 1:
            click.echo(f"{one}:")
        rows = [(item["name"], item.get("description") or item["distribution"]) for item in listed]
        click.echo(table(rows) or "  (none installed)")


def _kind(given: str, kinds: list[str]) -> str:
    """Return the kind for a plural or hyphenated form: `optimizers`, `query-strategies`."""
    from mlopt.core.errors import InputError
    from mlopt.core.quoting import quoted
    from mlopt.core.suggestions import hint

    plural = {(f"{one[:-1]}ies" if one.endswith("y") else f"{one}s"): one for one in kinds}
    word = given.lower().replace("_", "-")
    if word in kinds or word in plural:
        return plural.get(word, word)
    raise InputError(f"no kind is called {quoted(given)}.{hint(word, kinds)} Kinds: {', '.join(kinds)}.")
