"""The source of a configuration: a file, or a recipe inside the package.

Invariant: a recipe is found by comparing names, never by joining a name to a path, so a name cannot lead elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.cli.configs import families
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.files.reading import is_there
from mlopt.core.quoting import one_line, quoted
from mlopt.core.runs.config import load_experiment, override, read_file, read_yaml
from mlopt.core.suggestions import hint

if TYPE_CHECKING:
    from mlopt.core.runs.experiment import Experiment

_FOLDER = Path(__file__).with_name("recipes")
_STRUCTURES = (".xyz", ".extxyz", ".cif", ".vasp", ".poscar", ".traj", ".con", ".pdb")
TEMPLATE = Path(__file__).with_name("template.yaml")


@dataclass(frozen=True)
class Source:
    """A configuration as given: ``name`` for runs, ``label`` for messages, the text, and the overridden content."""

    name: str
    label: str
    text: str
    config: dict[str, Any]

    def experiment(self) -> Experiment:
        """Validate the configuration and return its experiment.

        Raises:
            ConfigError: lists every mistake.
        """
        return load_experiment(self.config, self.label)


def recipe_paths() -> dict[str, Path]:
    """Return the file of each recipe by name, sorted."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"), key=_natural)}


def is_recipe(name: str) -> bool:
    """Return whether a recipe has that name: a file, or one of a family."""
    return name in recipe_paths() or families.written(name) is not None


def recipe(name: str) -> str:
    """Return the text of a recipe, of a file or one of a family.

    Raises:
        InputError: none has that name; gives a suggestion.
    """
    recipes = recipe_paths()
    text = recipes[name].read_text(encoding="utf-8") if name in recipes else families.written(name)
    if text is None:
        raise InputError(_unknown(name, recipes, "is not a recipe"))
    return text


def describe(path: Path) -> str:
    """Return the first line of a recipe, a comment that describes it."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def find(given: str, assignments: Sequence[str] = ()) -> Source:
    """Return the configuration called ``given``: a file of that name, else a recipe; with overrides applied."""
    path = Path(given)
    if path.suffix.lower() in _STRUCTURES and path.is_file():
        raise InputError(
            f"{one_line(given, 200)}: is a structure file, not a configuration: name it in one, as "
            f"`system: {one_line(given, 200)}`. `mlopt init` writes a template."
        )
    if is_there(path) and not (path.is_dir() and is_recipe(given)):  # a folder may be named like a recipe
        text, config = read_file(path)
        name, label = path.stem, given
    elif is_recipe(given):
        text = recipe(given)
        name, label = given, f"recipe {given}"
        config = read_yaml(text, label)
    else:
        raise InputError(_unknown(given, recipe_paths(), "is neither a file nor a recipe"))
    if assignments:
        try:
            config = override(config, assignments)
        except ConfigError as error:
            raise ConfigError(error.problems, label) from error
        text = text.rstrip("\n") + "\n" + "".join(f"# -s {' '.join(one.split())}\n" for one in assignments)
    return Source(name, label, text, config)


def _unknown(given: str, recipes: dict[str, Path], what: str) -> str:
    """Return the message about a name that is neither recipe nor file, with the nearest one."""
    meant = hint(given, {**recipes, **dict.fromkeys(_configurations(Path(given).parent))})
    return f"{quoted(given)} {what}.{meant} Recipes: {', '.join([*recipes, *families.families()])}."


def _configurations(folder: Path) -> list[str]:
    """Return the YAML files of a folder, as one would name them."""
    try:
        return [str(path) for path in sorted(folder.iterdir()) if path.suffix in (".yaml", ".yml")]
    except (OSError, ValueError):
        return []


def _natural(path: Path) -> tuple[str, int, str]:
    """Sort lj13 before lj98, and the variants of lj13 after it."""
    head = path.stem.split("-")[0]
    digits = "".join(character for character in head if character.isdigit())
    return head.rstrip("0123456789"), int(digits or 0), path.stem
