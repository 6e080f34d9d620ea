"""What the documentation shows is true: its code runs, its configurations validate, its commands work, its links lead
somewhere.

A page is one session in an empty folder that holds the files of examples/. Its blocks take turns as they stand there:

- ``python``: executed, all blocks of a page in one namespace; functions called ``test_*`` are called. A first line
  ``# name.py`` makes it a file instead, which later blocks import.
- ``yaml``: read; validated if it has an ``experiment:``. A first line ``# name.yaml`` makes it a file as well.
- ``toml``: a ``# pyproject.toml`` registers its entry points, as installing it would.
- ``bash``: lines that begin with ``mlopt`` are run, others are read for ``make`` targets and scripts, which must exist.
  To every ``mlopt run`` of a search the test appends the settings of `SMALL`: it takes a second then.
- ``console``: lines that begin with ``$ mlopt`` are run as they are, and must print what follows (``...`` is anything).

A block is left alone only if ``<!-- not run: reason -->`` stands above it.
"""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlopt.core.runs.config import load_experiment, read_yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md")) + [path for path in [REPOSITORY / "README.md"] if path.exists()]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))

#: pages that run for longer than others: slow
LONG = (
    "docs/concepts/fitting.md",
    "docs/concepts/meta-learning.md",
    "docs/howto/compare.md",
    "docs/howto/ase-calculator.md",
)

#: what `mlopt run` is told in addition, so that an example of a long run is a short one
SMALL = ["-s", "starts=2", "-s", "budget.force_calls=300", "-s", "minima.keep=3"]

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<kind>[a-z]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL
)
_NOT_RUN = re.compile(r"<!--\s*not run:\s*(?P<reason>[^>]*?)\s*-->\s*\Z")
_FILE_NAME = re.compile(r"#\s*(?P<name>[\w.-]+\.(?:py|yaml|toml))\b")
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\((?P<target>[^)\s]+)[^)]*\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, first line in the page, and the reason not to run it."""

    kind: str
    text: str
    line: int
    not_run: str | None

    @property
    def file_name(self) -> str | None:
        """The name in its first line, if that is one."""
        found = _FILE_NAME.match(self.text)
        return found["name"] if found else None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        before = text[: match.start()].rstrip()
        reason = _NOT_RUN.search(before)
        lines = match["text"].splitlines()
        code = "\n".join(line[len(match["indent"]) :] for line in lines) + "\n"
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(match["kind"], code, line, reason["reason"] if reason else None))
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


class Session:
    """One page in an empty folder."""

    def __init__(self, page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.page, self.folder = page, folder
        self.namespace: dict[str, Any] = {"__name__": "__page__"}
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)

    def take(self, block: Block) -> None:
        if block.file_name is not None:
            (self.folder / block.file_name).write_text(block.text, encoding="utf-8")
            importlib.invalidate_caches()
        run = {"python": self.python, "yaml": self.yaml, "toml": self.toml}
        run |= {"bash": self.shell, "console": self.console}
        if block.kind in run:
            run[block.kind](block)

    def python(self, block: Block) -> None:
        if block.file_name is not None:
            self.call_tests(vars(importlib.import_module(Path(block.file_name).stem)), set())
            return
        known = set(self.namespace)
        # tracebacks then name page and line
        code = compile("\n" * (block.line - 1) + block.text, str(self.page), "exec", dont_inherit=True)
        exec(code, self.namespace)  # noqa: S102  (the pages are our own)
        self.call_tests(self.namespace, known)

    def call_tests(self, namespace: dict[str, Any], known: set[str]) -> None:
        for name in [name for name in namespace if name.startswith("test_") and name not in known]:
            namespace[name]()

    def yaml(self, block: Block) -> None:
        config = read_yaml(block.text, f"{name_of(self.page)}, line {block.line}")
        if "experiment" in config:
            load_experiment(config, f"{name_of(self.page)}, line {block.line}")

    def toml(self, block: Block) -> None:
        project = tomllib.loads(block.text).get("project", {})
        if "entry-points" not in project:
            return
        info = self.folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (info / "METADATA").write_text(metadata)
        groups = project["entry-points"].items()
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in them.items()) for group, them in groups]
        (info / "entry_points.txt").write_text("\n".join(lines))
        importlib.invalidate_caches()

    def shell(self, block: Block) -> None:
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.strip().removeprefix("$ "), comments=True)
            place = f"{name_of(self.page)}, line {block.line}: {' '.join(words)}"
            if words[:1] == ["mlopt"]:
                self.mlopt(words[1:], place)
            elif words[:1] == ["make"]:
                check_make([word for word in words[1:] if "=" not in word], place)
            elif words[:1] == ["python"] and words[1:2] != ["-m"]:
                script = REPOSITORY / words[1]
                assert script.exists(), f"{place}: there is no {words[1]}"

    def console(self, block: Block) -> None:
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
            words = shlex.split(command, comments=True)
            place = f"{name_of(self.page)}, line {block.line}: {command}"
            assert words[0] == "mlopt", f"{place}: only mlopt's own commands are tried"
            self.mlopt(words[1:], place, expected)

    def mlopt(self, arguments: list[str], place: str, expected: str | None = None) -> None:
        from mlopt.cli.main import cli

        extra = SMALL if expected is None and is_search(arguments) else []
        done = CliRunner().invoke(cli, [*arguments, *extra], prog_name="mlopt")
        if expected is not None:
            same = doctest.OutputChecker().check_output(
                expected, done.output, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            )
            assert same, f"{place} printed:\n{done.output}\ninstead of:\n{expected}"
            return
        assert done.exit_code == 0, f"{place} left with {done.exit_code}:\n{done.stdout}\n{done.stderr}"


def is_search(arguments: list[str]) -> bool:
    """Whether a command runs the experiment that the settings of `SMALL` belong to."""
    if arguments[:1] != ["run"] or {"-h", "--help"} & set(arguments):
        return False
    from mlopt.cli.configs import sources

    return sources.find(arguments[1]).config.get("experiment") == "search"


def check_make(targets: list[str], place: str) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in targets:
        if target.startswith("-"):
            continue
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"{place}: no such target"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with the structure files of examples/."""
    for path in (REPOSITORY / "examples").glob("*.extxyz"):
        shutil.copy(path, tmp_path)
    return tmp_path


@pytest.fixture
def clean() -> Iterator[None]:
    """Forget modules that a test has made, and the number of threads that a command has set."""
    import torch

    before, threads = set(sys.modules), torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin and not Path(origin).is_relative_to(sys.prefix) and "mlopt." not in name:
            del sys.modules[name]


@pytest.mark.parametrize(
    "page",
    [pytest.param(one, marks=[pytest.mark.slow] if name_of(one) in LONG else []) for one in PAGES],
    ids=name_of,
)
def test_page_runs(page, folder, monkeypatch, clean):
    todo = [block for block in blocks(page) if block.not_run is None]
    if not {block.kind for block in todo} & {"python", "yaml", "toml", "bash", "console"}:
        return
    session = Session(page, folder, monkeypatch)
    for block in todo:
        session.take(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_exemptions_give_a_reason(page):
    for block in blocks(page):
        assert block.not_run is None or len(block.not_run) > 10, f"line {block.line}: why is it not run?"


def slugs(text: str) -> set[str]:
    """Anchors of the headings, as the markdown extension `toc` makes them."""
    found = set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", _BLOCK.sub("", text), re.MULTILINE):
        word = re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading)).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", word))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in _LINK.findall(_BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target}, which does not exist"
        if anchor and file.suffix == ".md":
            known = slugs(file.read_text(encoding="utf-8"))
            assert anchor in known, f"{name_of(page)} links to {target}; headings there: {sorted(known)}"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"[\w/-]+\.md", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


@pytest.mark.parametrize("part", ["core", "potentials", "optimizers"])
def test_reference_names_every_module(part):
    """Not of mlopt.cli, which is a command before it is a library."""
    source = REPOSITORY / f"mlopt_{part}" / "src"
    files = [path for path in source.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    modules = {".".join(path.relative_to(source).with_suffix("").parts) for path in files}
    page = (DOCS / "reference" / f"{part}.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^::: (\S+)", page, re.MULTILINE))
    assert listed == modules, f"docs/reference/{part}.md: add or remove {sorted(listed ^ modules)}"


def load_script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_command_reference_is_up_to_date():
    written = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    assert written == load_script("update_docs").page(), "run: python scripts/update_docs.py"


@pytest.mark.parametrize(
    "script",
    [pytest.param(one, marks=[pytest.mark.slow] if one.stem == "pt_heptamer" else []) for one in EXAMPLES],
    ids=name_of,
)
def test_example_runs(script, folder, monkeypatch, capsys, clean):
    """In a folder of its own, as ``python examples/NAME.py``; each checks itself what it claims."""
    for path in (REPOSITORY / "examples").glob("*.yaml"):
        shutil.copy(path, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.strip(), "an example shows something"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples").glob("*.yaml")), ids=name_of)
def test_example_configuration_is_valid(path):
    load_experiment(read_yaml(path.read_text(encoding="utf-8"), path.name), path.name)


@pytest.mark.slow
def test_site_builds(tmp_path):
    pytest.importorskip("mkdocs", reason="needs requirements-dev.txt")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
