"""``mlopt init``: a new configuration file."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.argument("recipe", required=False)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where to write; `-` is stdout. [default: search.yaml, RECIPE.yaml]",
)
def command(recipe: str | None, output: str | None) -> None:
    """Write a commented template, or a recipe, to a file that you can change and run."""
    from mlopt.cli.configs import sources
    from mlopt.core.errors import InputError

    text = sources.TEMPLATE.read_text(encoding="utf-8") if recipe is None else sources.recipe(recipe)
    if output == "-":
        click.echo(text, nl=False)
        return
    path = Path(output or f"{recipe or 'search'}.yaml")
    try:
        # O_EXCL, not a look beforehand: nothing that exists is ever overwritten.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(
            f"{path} exists already and is left as it is. Choose another file with -o."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be written: {reason}. Choose another file with -o.") from error
    click.echo(f"wrote {path}; run it with: mlopt run {path}")
