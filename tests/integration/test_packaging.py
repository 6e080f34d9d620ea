"""The promises of the layout: one namespace, four distributions, nothing that runs foreign data as code."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = ("core", "potentials", "optimizers", "cli")
# What each part may import of mlopt besides itself.
MAY_IMPORT = {
    "core": set(),
    "potentials": {"core"},
    "optimizers": {"core"},
    "cli": {"core", "potentials", "optimizers"},
}
MAX_LINES = 400

# Modules whose import is already the mistake: each reads data by running it.
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_BUILTINS = {"eval", "exec"}
FORBIDDEN_FUNCTIONS = {
    "asyncio.create_subprocess_shell",
    "os.popen",
    "os.system",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "torch.load",
    "yaml.full_load",
    "yaml.load",
    "yaml.unsafe_load",
}
# Of these `shell=` is asked; a cluster may have a shell too.
STARTERS = {"Popen", "call", "check_call", "check_output", "run"}


def source_files(part: str) -> list[Path]:
    return sorted((REPOSITORY / f"mlopt_{part}" / "src").rglob("*.py"))


def all_source_files() -> list[Path]:
    plugin = [path for path in (REPOSITORY / "plugins_example").rglob("*.py") if "tests" not in path.parts]
    return sorted(path for part in PARTS for path in source_files(part)) + sorted(plugin)


def imported_modules(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) for each import; ``from a import b`` yields ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def full_names(tree: ast.AST) -> dict[str, str]:
    """Map each name that an import binds to what it stands for, so that ``import numpy as np`` hides nothing."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def forbidden_in(source: str) -> list[str]:
    """List what SECURITY.md rules out, as ``line: what``."""
    tree = ast.parse(source)
    names = full_names(tree)
    found = [
        f"{line}: import of {name}"
        for line, name in imported_modules(tree)
        if name.partition(".")[0] in FORBIDDEN_MODULES or name in FORBIDDEN_FUNCTIONS
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        head, dot, rest = ast.unparse(node.func).partition(".")
        function = names.get(head, head) + dot + rest
        switched_on = {
            keyword.arg
            for keyword in node.keywords
            if not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
        }
        if function in FORBIDDEN_BUILTINS | FORBIDDEN_FUNCTIONS:
            found.append(f"{node.lineno}: call of {function}")
        if "allow_pickle" in switched_on:
            found.append(f"{node.lineno}: allow_pickle in {function}")
        if "shell" in switched_on and function.rpartition(".")[2] in STARTERS:
            found.append(f"{node.lineno}: shell in {function}")
    return found


def tracked_files() -> list[Path]:
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listing.split("\0") if name and (path := REPOSITORY / name).is_file()]


def test_mlopt_is_a_namespace():
    import mlopt.core

    assert mlopt.core.__name__ == "mlopt.core"
    assert mlopt.__file__ is None, (
        f"{mlopt.__file__} hides the other distributions: delete it if it is a stray mlopt/__init__.py of this "
        "repository, or run `pip uninstall mlopt` if it belongs to the unrelated PyPI project of that name"
    )


@pytest.mark.parametrize("part", PARTS)
def test_part_is_installed(part):
    try:
        importlib.metadata.version(f"mlopt-{part}")
    except importlib.metadata.PackageNotFoundError:
        pytest.fail(f"mlopt-{part} is not installed: run `make install`")
    assert importlib.util.find_spec(f"mlopt.{part}") is not None, f"no mlopt.{part}: run `make install`"


def test_no_distribution_owns_the_namespace():
    stray = sorted(REPOSITORY.glob("*/src/mlopt/__init__.py"))
    assert not stray, f"delete {[str(path) for path in stray]}: mlopt is a namespace (PEP 420)"


@pytest.mark.parametrize("part", PARTS)
def test_dependencies_point_one_way(part):
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line}: {name}"
        for path in source_files(part)
        for line, name in imported_modules(ast.parse(path.read_text("utf-8")))
        if name.startswith("mlopt.") and name.split(".")[1] not in MAY_IMPORT[part] | {part}
    ]
    assert not wrong, f"mlopt.{part} may import {sorted(MAY_IMPORT[part]) or 'nothing'} of mlopt: {wrong}"


def test_source_is_free_of_forbidden_calls():
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in all_source_files()
        for line in forbidden_in(path.read_text("utf-8"))
    ]
    assert not found, "SECURITY.md rules these out:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import cloudpickle as safe",
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path, weights_only=True)",
        "from torch import load",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "eval(text)",
        "exec(text)",
        "import os\nos.system(command)",
        "from os import system as run",
        "import subprocess as sp\nsp.run(command, shell=True)",
        "run(command, shell=flag)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
    ],
)
def test_scan_finds(source):
    assert forbidden_in(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import yaml\nyaml.safe_load(text)",
        "from safetensors.torch import load",
        "import subprocess\nsubprocess.run([program, argument])",
        "icosahedron(shell=3)",
    ],
)
def test_scan_leaves_alone(source):
    assert not forbidden_in(source)


def test_source_files_are_short():
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in all_source_files()}
    long = [f"{path.relative_to(REPOSITORY)}: {n} lines" for path, n in lengths.items() if n > MAX_LINES]
    assert not long, f"split these; the ceiling is {MAX_LINES} lines: {long}"


def test_no_tracked_file_names_a_place_on_one_machine():
    # Written so that it does not match itself; such a folder inside a longer path or an address may stand.
    place = re.compile(r"(?<![\w.~}-])/(?:work|root|home)/")
    found = []
    for path in tracked_files():
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(REPOSITORY)}:{n}" for n, line in enumerate(lines, 1) if place.search(line)
        ]
    assert not found, f"paths that exist on one machine only: {found}"


@pytest.mark.parametrize("part", PARTS)
def test_licence_travels_with_each_distribution(part):
    licence = (REPOSITORY / "LICENSE").read_text("utf-8")
    assert (REPOSITORY / f"mlopt_{part}" / "LICENSE").read_text("utf-8") == licence


# Run with -I -S: site-packages is on the path for torch and the like, but its .pth files, which would bring in
# the editable checkout, are not read.
IMPORT_EVERYTHING = """
import importlib, importlib.util, pkgutil, sys
target, site_packages, *parts = sys.argv[1:]
sys.path[:0] = [target]
sys.path.append(site_packages)
import mlopt
assert [p for p in mlopt.__path__ if not p.startswith(site_packages)] == [target + "/mlopt"], mlopt.__path__
for part in parts:
    package = importlib.import_module("mlopt." + part)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
others = {"core", "potentials", "optimizers", "cli"} - set(parts)
present = [part for part in others if importlib.util.find_spec("mlopt." + part)]
assert not present, present
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    distributions = [str(REPOSITORY / f"mlopt_{part}") for part in PARTS]
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), *distributions)
    return {part: next(folder.glob(f"mlopt_{part}-*.whl")) for part in PARTS}


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [("core",), ("core", "potentials"), ("core", "optimizers"), PARTS],
    ids="+".join,
)
def test_wheels_work_without_the_others(parts, wheels, tmp_path):
    target = tmp_path / "site"
    pip("install", "--no-deps", "--target", str(target), *(str(wheels[part]) for part in parts))
    isolated = [sys.executable, "-I", "-S", "-c", IMPORT_EVERYTHING]
    command = [*isolated, str(target), sysconfig.get_path("purelib"), *parts]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for part in parts:
        assert (target / "mlopt" / part / "py.typed").is_file()


def test_module_mlopt_is_the_command():
    """Of the command's distribution alone: the namespace has no code of its own."""
    assert [path.parents[2].name for path in REPOSITORY.glob("*/src/mlopt/*.py")] == ["mlopt_cli"]
    command = [sys.executable, "-m", "mlopt", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY / "docs")
    assert done.stdout == f"mlopt {importlib.metadata.version('mlopt-cli')}\n"
