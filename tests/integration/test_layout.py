"""The layout of the source: a folder imports only folders below it, and no files import each other in a circle."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = ("core", "potentials", "optimizers", "cli")
#: folders and lone files of each distribution, floor by floor; each may import what stands on a floor below its own
FLOORS: dict[str, list[set[str]]] = {
    "core": [
        {"lazy", "quoting", "kernels"},
        {"errors", "suggestions", "geometry"},
        {"plugins", "batch", "reporting"},
        {"files"},
        {"atoms", "runs"},
        {"landscapes", "structures", "features"},
        {"protocols", "minima"},
        {"driver"},
        {"testing"},
    ],
    "potentials": [{"kernels", "compound"}, {"sums", "ase", "spins", "models", "fitted"}, {"classical"}],
    "optimizers": [
        {"local", "moves", "starts", "labelling", "dynamics"},
        {"searches", "bands", "saddles", "fused", "fitting"},
        {"learned", "querying"},
        {"training"},
        {"experiments"},
    ],
    "cli": [{"terminal", "configs"}, {"report", "main"}, {"run", "testing", "__main__"}, {"commands"}],
}


def modules() -> dict[str, Path]:
    """Dotted name of every module that is no package, and its file."""
    found = {}
    for part in PARTS:
        root = REPOSITORY / f"mlopt_{part}" / "src"
        for path in sorted((root / "mlopt" / part).rglob("*.py")):
            if path.name != "__init__.py":
                found[".".join(path.relative_to(root).with_suffix("").parts)] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """The modules that a file imports anywhere in it: at its top, for types alone, or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & known) | ({node.module} & known)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
    return found


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    files = modules()
    return {name: imports(path, set(files)) for name, path in files.items()}


def room(module: str) -> tuple[str, str]:
    """Distribution and folder (or lone file) of a module."""
    _, part, folder, *_ = module.split(".")
    return part, folder


@pytest.mark.parametrize("part", PARTS)
def test_every_folder_stands_on_one_floor(part, graph):
    rooms = {room(name)[1] for name in graph if room(name)[0] == part}
    listed = [one for floor in FLOORS[part] for one in sorted(floor)]
    assert sorted(listed) == sorted(rooms), "FLOORS lists every folder of a distribution once"


@pytest.mark.parametrize("part", PARTS)
def test_no_folder_imports_upward(part, graph):
    floor = {one: height for height, floor in enumerate(FLOORS[part]) for one in floor}
    wrong = []
    for name, others in graph.items():
        here = room(name)
        for other in others:
            there = room(other)
            if here[0] == there[0] == part and here != there and floor[there[1]] >= floor[here[1]]:
                wrong.append(f"{name} imports {other}")
    assert not wrong, f"a folder of mlopt.{part} may import only folders on floors below: {wrong}"


def test_no_files_import_each_other_in_a_circle(graph):
    """Imports for types alone and imports inside functions count: they hide a circle, they do not open it."""
    state: dict[str, int] = {}
    circles = []

    def visit(name: str, way: list[str]) -> None:
        state[name] = 1
        for other in sorted(graph[name]):
            if state.get(other) == 1:
                circles.append(" -> ".join([*way[way.index(other) :], other]))
            elif other not in state:
                visit(other, [*way, other])
        state[name] = 2

    for name in sorted(graph):
        if name not in state:
            visit(name, [name])
    assert not circles, "open these circles: " + "; ".join(circles)


def faces() -> list[str]:
    """Packages whose ``__init__`` names what is public."""
    found = []
    for part in PARTS:
        root = REPOSITORY / f"mlopt_{part}" / "src"
        for path in sorted((root / "mlopt").rglob("__init__.py")):
            if "__all__" in path.read_text("utf-8"):
                found.append(".".join(path.parent.relative_to(root).parts))
    return found


@pytest.mark.parametrize("package", faces())
def test_a_face_gives_what_it_names(package):
    module = importlib.import_module(package)
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing, f"{package} names {missing}, which its modules do not have"
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert not name.startswith("_"), f"{package}.{name} is private, and so no part of a face"


def test_no_module_imports_torch():
    """`mlopt list` answers at once, although plugins are real classes."""
    names = [name for name in modules() if not name.endswith("__main__")]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules:\n"
        "        sys.exit(f'{name} imports torch; use `from mlopt.core.lazy import torch`')"
    )
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
