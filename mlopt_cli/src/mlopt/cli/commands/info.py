"""``mlopt info``: the description of a plugin and of its settings."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import click

from mlopt.core.atoms.units import Units

if TYPE_CHECKING:
    from mlopt.core.plugins.registry import Entry


@click.command()
@click.argument("name")
@click.option("--kind", help="Kind of plugin, where several share a name; or write KIND:NAME.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(name: str, kind: str | None, as_json: bool) -> None:
    """Describe the plugin or recipe NAME: every setting with type, default, unit, limits and meaning."""
    from dataclasses import asdict

    from mlopt.cli.configs import sources
    from mlopt.cli.configs.describe import settings
    from mlopt.cli.terminal.output import emit_json
    from mlopt.core.errors import PluginError
    from mlopt.core.plugins.plugin import Plugin

    if kind is None and ":" in name:
        kind, _, name = name.partition(":")
    if kind == "recipe" or (kind is None and sources.is_recipe(name) and not _owners(name)):
        text = sources.recipe(name)
        if as_json:
            emit_json({"kind": "recipe", "name": name, "text": text})
        else:
            click.echo(text, nl=False)
        return
    entry = _find(name, kind)
    cls = entry.load()
    if not issubclass(cls, Plugin):
        raise PluginError(
            f"the {entry.kind} {name!r} is not an mlopt Plugin: tell the authors of {entry.distribution}."
        )
    described = list(settings(cls))
    documentation = inspect.getdoc(cls) or ""
    units = getattr(cls, "units", None)
    units = units if isinstance(units, Units) else None  # of a sum, say, they follow from its terms
    if as_json:
        about = {**asdict(entry), "doc": documentation, "settings": [asdict(one) for one in described]}
        emit_json(about | ({"units": str(units)} if units else {}))
        return
    click.echo(f"{entry.kind} {entry.name}  ({entry.distribution} {entry.version})\n\n{documentation}\n")
    if units:
        click.echo(f"Units: {units}.\n")
    click.echo("Settings:" if described else "No settings.")
    for one in described:
        value = "required" if one.required else f"default {_default(one.default)}"
        if one.type.startswith("group") and isinstance(one.default, dict):
            value = ""  # its settings follow, with their own defaults
        facts = [one.type, value, one.limits, one.unit and f"in {one.unit}"]
        click.echo(f"  {one.name}: {', '.join(fact for fact in facts if fact)}")
        if one.doc:
            click.echo(f"      {one.doc}")


def _owners(name: str) -> list[Entry]:
    from mlopt.core.plugins import registry

    return [entry for entry in registry.entries() if entry.name == name]


def _find(name: str, kind: str | None) -> Entry:
    """Return the one plugin of that name, among all kinds if none is given."""
    from mlopt.core.errors import InputError
    from mlopt.core.plugins import registry
    from mlopt.core.quoting import one_line, quoted
    from mlopt.core.suggestions import fold, hint, synonym_of_any

    if kind is not None:
        return registry.find(kind, name)
    kinds = list(dict.fromkeys(entry.kind for entry in _owners(name)))
    if len(kinds) > 1:
        choices = " or ".join(f"`mlopt info {one}:{one_line(name, 60)}`" for one in kinds)
        raise InputError(f"{quoted(name)} is the name of several things. Say which: {choices}.")
    if kinds:
        return registry.find(kinds[0], name)
    names = sorted({entry.name for entry in registry.entries()})
    alike = fold(name) in {fold(one) for one in names}
    meant = hint(name, names) if alike else synonym_of_any(name, names) or hint(name, names)
    raise InputError(f"no plugin and no recipe is called {quoted(name)}.{meant} `mlopt list` shows them all.")


def _default(value: Any) -> str:
    """Return a default as one would type it; a nested plugin by its name alone if all its settings are defaults."""
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return str(value["name"])
    return value if isinstance(value, str) else json.dumps(value, default=str)
