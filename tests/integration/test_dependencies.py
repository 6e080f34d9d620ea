"""What the distributions say that they need: all that they import, with the same bounds everywhere."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = ("core", "potentials", "optimizers", "cli")

# Modules whose name is not that of the distribution that brings them.
BRINGS = {"yaml": "pyyaml", "torch_geometric": "torch-geometric", "pydantic_core": "pydantic"}
# Core imports these inside functions; who calls the functions declares them.
BY_CALL = {"torch-geometric": ("potentials", "optimizers"), "matplotlib": ("cli",)}


def declared(part: str) -> dict[str, str]:
    """Map each requirement of a distribution, mlopt's own aside, to its bounds."""
    project = tomllib.loads((REPOSITORY / f"mlopt_{part}" / "pyproject.toml").read_text("utf-8"))["project"]
    found = {}
    for line in project["dependencies"]:
        name, bounds = re.fullmatch(r"([\w.-]+)(.*)", line).groups()
        if not name.startswith("mlopt-"):
            found[name.lower()] = bounds
    return found


def optional(part: str) -> set[str]:
    """The requirements of the extras of a distribution."""
    project = tomllib.loads((REPOSITORY / f"mlopt_{part}" / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [line for extra in project.get("optional-dependencies", {}).values() for line in extra]
    return {re.match(r"[\w.-]+", line).group().lower() for line in lines}


def imported(part: str) -> set[str]:
    """The distributions from which a part imports, anywhere in a file."""
    modules = set()
    for file in (REPOSITORY / f"mlopt_{part}" / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
                if node.module == "mlopt.core.lazy":
                    modules |= {alias.name for alias in node.names} & {"torch"}
    foreign = modules - set(sys.stdlib_module_names) - {"mlopt"}
    return {BRINGS.get(module, module) for module in foreign}


@pytest.mark.parametrize("part", PARTS)
def test_what_is_imported_is_declared_and_nothing_else(part):
    needed = imported(part) - (set(BY_CALL) if part == "core" else set())
    needed |= {name for name, callers in BY_CALL.items() if part in callers}
    found = set(declared(part))
    assert not needed - found - optional(part), f"imported, and not in the pyproject.toml of mlopt-{part}"
    assert not found - needed, f"in the pyproject.toml of mlopt-{part}, and never imported"


def test_bounds_are_lower_bounds_and_the_same_everywhere():
    bounds: dict[str, set[str]] = {}
    for part in PARTS:
        for name, bound in declared(part).items():
            bounds.setdefault(name, set()).add(bound)
    wrong = {name: found for name, found in bounds.items() if len(found) > 1}
    assert not wrong, f"one distribution would allow what another refuses: {wrong}"
    strange = {name: found for name, found in bounds.items() if not re.fullmatch(r">=\d+(\.\d+)*", *found)}
    assert not strange, (
        f"a requirement without a lower bound, or with more than one, is not tested: {strange}"
    )
