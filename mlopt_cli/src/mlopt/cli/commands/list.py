"""``mlopt list``: what is installed, by name; no plugin is imported."""

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
    from mlopt.cli import sources
    from mlopt.cli.output import emit_json, table
    from mlopt.core import registry

    kinds = [*registry.GROUPS, _RECIPES]
    chosen = kinds if kind is None else [_kind(kind, kinds)]
    found: dict[str, list[dict[str, str]]] = {}
    for one in chosen:
        if one == _RECIPES:
            items = sources.recipe_paths().items()
            found[one] = [{"name": name, "description": sources.describe(path)} for name, path in items]
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
    """The kind that was meant: `optimizers` is `optimizer`, `query-strategies` is `query-strategy`."""
    from difflib import get_close_matches

    from mlopt.core.errors import InputError
    from mlopt.core.quoting import quoted

    plural = {(f"{one[:-1]}ies" if one.endswith("y") else f"{one}s"): one for one in kinds}
    word = given.lower().replace("_", "-")
    if word in kinds or word in plural:
        return plural.get(word, word)
    close = get_close_matches(word, kinds, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InputError(f"no kind is called {quoted(given)}.{hint} Kinds: {', '.join(kinds)}.")
