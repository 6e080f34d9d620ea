"""Small runs of `mlopt` in separate processes, to be damaged, and a judgement of their endings."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mlopt.cli.testing.runs import IMPORTED, KINDS

_RESULTS = ("metrics.jsonl", "results/starts.json", "results/trace.json", "results/minima.extxyz")
SEARCH = """
experiment: search
system: {file: FOLDER/start.extxyz}
potential: {name: lennard-jones, epsilon: 1.0, r0: 1.0}
optimizer: {name: basin-hopping, temperature: 0.8}
start: sphere
starts: 2
budget: {force_calls: 150}
minima: {keep: 4}
engine: eager
"""
#: configurations, with FOLDER for where the bench keeps its files, and the files that must not depend on damage
SUBJECTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "search": (SEARCH, _RESULTS),
    "path": (
        """
experiment: path
model: {name: atoms, system: {file: FOLDER/first.extxyz}, potential: {name: lennard-jones, epsilon: 1.0, r0: 1.0}}
initial: {file: FOLDER/first.extxyz}
final: {file: FOLDER/last.extxyz}
band: {images: 3}
fmax: 0.05
ends: {fmax: 1.0e-3}
""",
        ("metrics.jsonl", "results/path.extxyz", "results/profile.csv"),
    ),
    "contest": KINDS["contest"],
    "training": KINDS["training"],
    "compiled": (
        "experiment: search\nsystem: {cluster: Ar7}\npotential: lennard-jones\noptimizer: gradient-descent\n"
        "starts: 4\nbudget: {force_calls: 200}\npolish: {force_calls: 0}\nengine: fused\n",
        _RESULTS,
    ),
}
_MODULE = '''
"""Potentials that break the contract."""
import os
from dataclasses import replace
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.landscapes.potential import Potential
from mlopt.potentials import LennardJones

class Odd(Potential):
    how: str = setting("nan", "in which way")
    def evaluate(self, systems, *, stress=False):
        found = LennardJones(epsilon=1.0, r0=1.0).evaluate(systems, stress=stress)
        if self.how == "exit":
            raise SystemExit(0)
        if self.how == "ends":
            os._exit(0)
        if self.how == "raises":
            raise RuntimeError("\\x1b[2J two\\nlines")
        if self.how == "moves":
            systems.pos.add_(0.1)
        return {
            "nan": replace(found, energy=found.energy * torch.nan),
            "shape": replace(found, energy=found.energy[:, None]),
            "dtype": replace(found, energy=found.energy.to(torch.float16)),
            "force": replace(found, force=found.force[:-1]),
            "nothing": None,
        }.get(self.how, found)
'''
_LOOK = 0.005  # seconds between two looks at a process


@dataclass(frozen=True)
class Ended:
    """The ending of a command: its output, and its exit code, minus the number of a signal, or None for a hang."""

    code: int | None
    out: str
    err: str

    @property
    def messages(self) -> int:
        """The number of lines on standard error that are messages."""
        return sum(line.startswith("mlopt: ") for line in self.err.splitlines())


class Command:
    """A running ``mlopt`` with some arguments, in a fork of this process, which has done the imports.

    scratch: an existing folder for the output streams.
    prepare: a function that is called in the fork before the command.
    """

    def __init__(
        self, arguments: Sequence[str], scratch: Path, prepare: Callable[[], object] | None = None
    ) -> None:
        self._began = time.monotonic()
        self._written = [scratch / name for name in ("stdout", "stderr")]
        self._pid = os.fork()
        if self._pid == 0:
            _become(arguments, self._written, prepare)

    def wait(self, limit: float = 60.0) -> Ended:
        """Wait until the command ends; kill it ``limit`` seconds after it began."""
        hung = False
        while not (found := os.waitpid(self._pid, os.WNOHANG))[0]:
            if time.monotonic() - self._began > limit and not hung:
                hung = True
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(_LOOK)
        out, err = (path.read_text(errors="replace") for path in self._written)
        return Ended(None if hung else os.waitstatus_to_exitcode(found[1]), out, err)


def _become(arguments: Sequence[str], written: Sequence[Path], prepare: Callable[[], object] | None) -> None:
    """Run the command in this process, and end the process."""
    status = 99
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream, path in zip((1, 2), written, strict=True):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.stdout, sys.stderr = (open(stream, "w", closefd=False) for stream in (1, 2))  # noqa: SIM115
        if prepare is not None:
            prepare()
        importlib.import_module("mlopt.cli.main").cli.main(list(arguments))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def state(run: Path) -> str:
    """Return the state in STATUS.json of a run; empty if there is none."""
    try:
        told = json.loads((run / "STATUS.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(told.get("state", "")) if isinstance(told, dict) else ""


def wrong(ended: Ended, run: Path, found: bytes, expected: bytes, codes: Sequence[int] = (0,)) -> str:
    """Return the fault in how a damaged run ended, or an empty string.

    A finished run must have the ``expected`` bytes and one of ``codes``. Otherwise the command must have ended with an
    exit code other than 0 and with exactly one message.
    """
    if ended.code is None:
        return "hangs"
    if ended.code < 0:
        return f"died by {signal.Signals(-ended.code).name}"
    if "Traceback" in ended.out + ended.err:
        return f"traceback: {ended.err[-300:]!r}"
    if state(run) == "finished":
        if found != expected:
            return "finished with other results"
        return "" if ended.code in codes else f"finished with exit code {ended.code}: {ended.err[-300:]!r}"
    if ended.code == 0:
        return f"exit code 0, and STATUS is {state(run)!r}"
    return "" if ended.messages == 1 else f"{ended.messages} messages: {ended.err[-300:]!r}"


class Bench:
    """A folder with undisturbed, finished and stopped runs, each made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()
        for module in IMPORTED:
            importlib.import_module(module)
        from ase import Atoms
        from ase.build import molecule
        from ase.io import write

        start = Atoms("Ar7", molecule("C2H5").positions)
        write(folder / "start.extxyz", start)
        start.positions[0] += 0.1
        write(folder / "other.extxyz", start)
        self.plugins = folder / "plugins"
        for name, module, group in (
            ("odd", _MODULE, "potentials"),
            ("gone", "import os; os._exit(0)", "moves"),
        ):
            info = self.plugins / f"mlopt_{name}-1.0.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mlopt-{name}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[mlopt.{group}]\n{name} = mlopt_{name}:Odd\n")
            (self.plugins / f"mlopt_{name}.py").write_text(module)

    def new(self, name: str) -> Path:
        """Return an unused name in the folder."""
        return self.folder / f"{next(self._numbers)}-{name}"

    def mlopt(self, *arguments: str | Path, prepare: Callable[[], object] | None = None) -> Ended:
        """Run the command, and return how it ends."""
        return self.begin(*arguments, prepare=prepare).wait()

    def begin(self, *arguments: str | Path, prepare: Callable[[], object] | None = None) -> Command:
        """Start the command, and return it while it runs."""
        scratch = self.new("streams")
        scratch.mkdir()
        return Command([str(one) for one in arguments], scratch, prepare)

    def config(self, text: str) -> Path:
        """Write a configuration, and return its file."""
        if "first.extxyz" in text and not (self.folder / "first.extxyz").exists():
            self._two_minima()
        path = self.new("config.yaml")
        path.write_text(text.replace("FOLDER", str(self.folder)))
        return path

    @cache  # noqa: B019  a bench is there as long as the program
    def whole(self, subject: str) -> tuple[Path, bytes]:
        """Return the configuration, and the part of its undisturbed run that must not depend on damage."""
        config, run = self.config(SUBJECTS[subject][0]), self.new(f"{subject}-whole")
        ended = self.mlopt("run", config, "--out", run, "--quiet", prepare=self.warm)
        if ended.code != 0:
            raise AssertionError(f"the undisturbed {subject} failed: {ended.err}")
        return config, self.found(subject, run)

    def found(self, subject: str, run: Path) -> bytes:
        """Return the results of a run as bytes; empty if they are missing."""
        return read(run, SUBJECTS[subject][1])

    @cache  # noqa: B019
    def _stopped(self, subject: str, text: str) -> Path:
        run, now = (
            self.new(f"{subject}-stopped"),
            ("--max-minutes", "1e-9", "--checkpoint-every", "0", "--quiet"),
        )
        self.mlopt("run", self.config(text), "--out", run, *now)
        for _ in range(2):
            self.mlopt("resume", run, *now)
        if state(run) != "preempted" or len(list((run / "checkpoints").glob("*.ckpt"))) != 2:
            raise AssertionError(f"{run} was not stopped with two checkpoints")
        return run

    def stopped(self, subject: str, text: str = "") -> Path:
        """Return a copy of a run that was stopped in its middle, with two checkpoints."""
        copy = self.new(subject)
        shutil.copytree(self._stopped(subject, text or SUBJECTS[subject][0]), copy)
        return copy

    def judged(self, subject: str, run: Path, ended: Ended, metrics: bool = True) -> str:
        """Return the fault in how a run of a subject ended, or an empty string."""
        found, expected = self.found(subject, run), self.whole(subject)[1]
        if not metrics:
            found, expected = (b"\0".join(one.split(b"\0")[1:]) for one in (found, expected))
        return wrong(ended, run, found, expected)

    def resumed(self, subject: str, run: Path, metrics: bool = True) -> str:
        """Resume a run, and judge how it ends."""
        return self.judged(subject, run, self.mlopt("resume", run, "--quiet"), metrics)

    def warm(self) -> None:
        """Use the kernels of the bench."""
        os.environ["MLOPT_CACHE"] = str(self.folder / "cache")

    def register(self) -> None:
        """Make the plugins of the bench known to this process and those that it begins."""
        sys.path.insert(0, str(self.plugins))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(self.plugins), os.environ.get("PYTHONPATH", "")])
        importlib.invalidate_caches()

    def _two_minima(self) -> None:
        from ase.io import read, write

        run = self.new("minima")
        text = "experiment: search\nsystem: {cluster: Ar7}\npotential: {name: lennard-jones, epsilon: 1.0, r0: 1.0}\n"
        text += "optimizer: basin-hopping\nstarts: 2\nbudget: {force_calls: 400}\nengine: eager\n"
        ended = self.mlopt("run", self.config(text), "--out", run, "--quiet")
        minima = read(run / "results" / "minima.extxyz", ":")
        if ended.code != 0 or len(minima) < 2:
            raise AssertionError(f"there are no two minima for a path: {ended.err}")
        for name, atoms in zip(("first", "last"), minima[:2], strict=True):
            atoms.info = {}
            write(self.folder / f"{name}.extxyz", atoms)


def read(run: Path, names: tuple[str, ...]) -> bytes:
    """Return the contents of a run's files, one after the other; nothing for a missing one."""
    return b"\0".join((run / name).read_bytes() if (run / name).is_file() else b"" for name in names)
