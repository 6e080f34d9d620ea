"""Fixtures of the command line's tests: an experiment that needs no physics, and the command in this process."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from mlopt.core.plugins import registry

MODULE = '''
"""An experiment for tests: adds up sines, one step at a time."""
import json, math, multiprocessing, os, signal, threading, time
import numpy as np
from pathlib import Path
from typing import Literal
import torch
from ase import Atoms
from ase.io import write
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.errors import InputError, MloptError
from mlopt.core.runs.experiment import Context, Experiment, Preempted
from mlopt.core.plugins.input_file import InputFile
from mlopt.core.plugins.plugin import Plugin, setting
from mlopt.core.landscapes.potential import Potential
from mlopt.core.reporting.statistics import Estimate
from mlopt.core.reporting.summary import Card, Column, Figure, Gallery, Structure, Summary, Table

class Outcome:
    def __init__(self, values):
        self.values = values
    def summary(self):
        return self.values

class Sub(Plugin):
    depth: int = setting(1, "how deep", unit="m", ge=1, le=9)

class Sines(Experiment):
    """Add up sines."""
    steps: int = setting(10, "how many", ge=1)
    sleep: float = setting(0.0, "after each step", unit="s", ge=0)
    target: float | None = setting(None, "sum to stay below")
    forbidden: bool = setting(False, "whether check refuses")
    trouble: Literal[
        "no", "input", "disk", "bug", "interrupt", "signal", "usr2", "ctrl-c", "all-failed", "leave", "nan",
        "print", "end", "end-in-thread", "end-of-children"
    ] = setting("no")
    sub: Sub = setting(Sub(), "a group")
    device: str = setting("cpu", "cpu or cuda")
    source: InputFile | None = setting(None, "a file with a number to begin with")

    def check(self):
        if self.forbidden:
            raise InputError("`forbidden` is on: switch it off")

    def run(self, context=None):
        context = context or Context()
        begin = 0.0 if self.source is None else float(Path(self.source).read_text())
        total, step = torch.tensor(begin, dtype=torch.float64), 0
        restored = context.restored()
        if restored is not None:
            total, step = restored.tensors["total"], restored.meta["step"]
        while step < self.steps:
            if context.pause():
                context.save(step, Checkpoint({"total": total}, {"step": step}))
                if context.stopping:
                    raise Preempted
            step += 1
            total = total * 0.99 + math.sin(step)
            context.metric(step, total=float(total))
            context.progress(step / self.steps, f"total {float(total):.3f} [markup]")
            suffered = context.results() / "suffered"
            if step == self.steps // 2 and self.trouble != "no" and not suffered.exists():
                suffered.touch()
                self.suffer()
            time.sleep(self.sleep)
        (context.results() / "final.json").write_text(json.dumps(float(total)))
        reached = None if self.target is None else float(total) < self.target
        failure = "every start failed" if self.trouble == "all-failed" else ""
        numbers = {"total": float(total), **self.odd()}
        missed = "the target was not reached"
        return Outcome(Summary(numbers, failure=failure, reached=reached, missed=missed))

    def odd(self):
        if self.trouble != "nan":
            return {"not_json": Sub(), "none": None}
        rows = [{"mean": 1.0}, {"mean": torch.tensor(math.inf)}]
        return {"barrier": math.nan, "rows": rows, "array": np.array([1.0, -np.inf]), "none": None}

    def suffer(self):
        if self.trouble == "input":
            raise InputError("wrong after all: do better")
        if self.trouble == "disk":
            raise MloptError("the disk is full: free some space")
        if self.trouble == "bug":
            raise ZeroDivisionError("a [bug]")
        if self.trouble == "print":
            print("printed by a plugin")
        if self.trouble == "leave":
            raise SystemExit(0)
        if self.trouble == "end":
            os._exit(0)
        if self.trouble == "end-in-thread":
            thread = threading.Thread(target=os._exit, args=(0,))
            thread.start()
            thread.join()
        if self.trouble == "end-of-children":
            child = os.fork()
            if child == 0:
                os._exit(7)
            with multiprocessing.get_context("fork").Pool(1) as pool:
                print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), pool.apply(abs, (-3,)))
        if self.trouble == "interrupt":
            raise KeyboardInterrupt
        kinds = {"signal": signal.SIGTERM, "usr2": signal.SIGUSR2, "ctrl-c": signal.SIGINT}
        if self.trouble in kinds:
            os.kill(os.getpid(), kinds[self.trouble])

class Broken(Potential):
    """A potential without a sound energy, or one that leaves the program."""
    leave: bool = setting(False, "whether to leave")
    check_leaves: bool = setting(False, "whether to leave at once")
    def check(self, systems):
        if self.check_leaves:
            raise SystemExit(0)
    def energy(self, systems):
        if self.leave:
            raise SystemExit(0)
        return systems.pos.new_full((len(systems),), math.nan) + 0.0 * systems.pos.sum()

class Showing(Experiment):
    """Shows cards, tables, a picture and structures, some of them at fault."""
    reached: bool | None = setting(None, "what it says of its goal")
    missing: bool = setting(False, "whether files are not there")
    plain: bool = setting(False, "whether it returns a plain dictionary")
    def run(self, context=None):
        folder = context.results()
        if not self.missing:
            (folder / "curve.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
            write(folder / "pair.xyz", [Atoms("Ar2", [[0, 0, 0], [0, 0, z]]) for z in (1, 2)])
        numbers = {"barrier": 0.374485}
        return Outcome(numbers if self.plain else self.shown(numbers))
    def shown(self, numbers):
        table = Table("Steps <b>", [Column("name"), Column("energy", "eV", 3), Column("cost")],
                      [["<i>one</i>", 1.23456, Estimate(391234.0, 212345.0, 876543.0)],
                       ["two", None, Estimate(math.inf, 3000.4, math.inf)]], "as <it> is")
        pair = [Structure("pair.xyz", 0, "before <p>"), Structure("pair.xyz", -1, "after")]
        outside = Figure("Outside", "../config.resolved.yaml")
        figures = [Figure("Curve <c>", "curve.svg", "a caption"), Gallery("Pair", pair), outside]
        return Summary(numbers, headline="climbed", reached=self.reached, missed="it stayed below",
                       cards=[Card("barrier <x>", 0.374485, "eV", "of <y>"), Card("reduced", 2.0, "reduced")],
                       tables=[table], figures=figures, remarks=["Not all was <done>."])

class Stubborn(Experiment):
    """Its settings do not survive being written."""
    scale: float = setting(1.0, "changes at every reading")
    def __init__(self, **values):
        super().__init__(**{**values, "scale": values.get("scale", 1.0) * 2})
    def run(self, context=None):
        raise AssertionError("must not run")

class Raising(Experiment):
    """A validator of it raises what pydantic does not expect."""
    def __init__(self, **values):
        raise RuntimeError("surprise")
    def run(self, context=None):
        raise AssertionError("must not run")

not_a_class = 3
'''

ENTRY_POINTS = """
[mlopt.experiments]
sines = mlopt_test_plugins:Sines
showing = mlopt_test_plugins:Showing
stubborn = mlopt_test_plugins:Stubborn
raising = mlopt_test_plugins:Raising
broken = mlopt_test_raises:X
leaving = mlopt_test_exits:X
chatty = mlopt_test_prints:X
gone = mlopt_test_gone:X
crashing = mlopt_test_crashes:X
colourful = mlopt_test_colours:X
missing = mlopt_test_nowhere:X
number = mlopt_test_plugins:not_a_class
stranger = collections:OrderedDict
sub = mlopt_test_plugins:Sub
[mlopt.potentials]
broken = mlopt_test_plugins:Broken
[mlopt.moves]
sub = mlopt_test_plugins:Sub
twice = mlopt_test_plugins:Sub
"""


def write_distribution(folder: Path, name: str, entry_points: str) -> None:
    """What pip leaves of an installed distribution, as far as entry points go."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for sys.path with the test plugins, sound and broken, registered as pip would."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "mlopt_test_plugins.py").write_text(MODULE)
    (folder / "mlopt_test_raises.py").write_text("raise OSError('no such [library]')\n")
    (folder / "mlopt_test_exits.py").write_text("raise SystemExit(0)\n")
    (folder / "mlopt_test_gone.py").write_text("import os; os._exit(0)\n")
    (folder / "mlopt_test_crashes.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n")
    (folder / "mlopt_test_small.py").write_text("from mlopt.core.plugins.plugin import Plugin as X\n")
    (folder / "mlopt_test_hangs.py").write_text("import time; time.sleep(1000)\n")
    (folder / "mlopt_test_colours.py").write_text("raise OSError('\\x1b[2Jred\\x07')\n")
    (folder / "mlopt_test_prints.py").write_text(
        "print('hello')\nfrom mlopt_test_plugins import Sines\nclass X(Sines): pass\n"
    )
    write_distribution(folder, "mlopt-test-plugins", ENTRY_POINTS)
    write_distribution(folder, "mlopt-test-rival", "[mlopt.moves]\ntwice = mlopt_test_plugins:Sines\n")
    return folder


@pytest.fixture
def plugins(plugin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The test plugins, registered in this process."""
    monkeypatch.syspath_prepend(plugin_folder)
    importlib.invalidate_caches()
    yield plugin_folder
    for name in [name for name in sys.modules if name.startswith("mlopt_test_")]:
        del sys.modules[name]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def mlopt(here: Path) -> Callable[..., Any]:
    """Run the command in this process: ``mlopt("run", "lj13")`` gives exit code, stdout and stderr."""
    from mlopt.cli.main import cli

    def run(*args: str) -> Any:
        result = CliRunner().invoke(cli, list(args), prog_name="mlopt")
        return SimpleNamespace(code=result.exit_code, out=result.stdout, err=result.stderr)

    return run


@pytest.fixture
def refuse(mlopt: Callable[..., Any], here: Path) -> Callable[..., None]:
    """Check that a request is refused: exit code 2, one message with all the words, and nothing written."""

    def check(args: list[str], *words: str) -> None:
        before = tree(here)
        result = mlopt(*args)
        assert result.code == 2, result
        assert not result.out, "nothing belongs on stdout"
        assert result.err.startswith(("mlopt: ", "Usage: ")) and "Traceback" not in result.err, result.err
        for word in words:
            assert word in result.err, f"{word!r} is missing in: {result.err}"
        assert tree(here) == before, "something was written"

    return check


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the report by one that costs nothing; gives the directories that were asked for."""
    from mlopt.cli.report import page as report

    asked: list[Path] = []

    def write_report(folder: Path) -> Path:
        asked.append(folder)
        (folder / "report.html").write_text("<html>")
        return folder / "report.html"

    monkeypatch.setattr(report, "write_report", write_report)
    return asked


@pytest.fixture
def search() -> None:
    """Skip where the experiment `search` is not installed."""
    if not any(entry.name == "search" for entry in registry.entries("experiment")):
        pytest.skip("needs the experiment `search`: install mlopt-optimizers (`make install`)")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file and folder below, with content."""
    found = {}
    for parent, folders, files in os.walk(folder):
        found |= {str(Path(parent, name)): b"" for name in folders}
        found |= {str(Path(parent, name)): Path(parent, name).read_bytes() for name in files}
    return found
