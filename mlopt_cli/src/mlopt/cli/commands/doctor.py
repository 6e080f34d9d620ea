"""``mlopt doctor``: the installation, the machine, and a remedy for each problem."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

_REQUIRED = (
    *("mlopt-core", "mlopt-potentials", "mlopt-optimizers", "mlopt-cli"),
    *(
        "torch",
        "numpy",
        "scipy",
        "ase",
        "vesin",
        "pydantic",
        "omegaconf",
        "safetensors",
        "click",
        "rich",
        "matplotlib",
        "numba",
        "torch-geometric",
    ),
)


@dataclass(frozen=True)
class Finding:
    """One result of a check. ``remedy`` is empty exactly if all is well."""

    what: str
    found: str
    remedy: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> int:
    """Check the installation and this machine; says what to do about each problem. Exits with 1 if there is one."""
    from dataclasses import asdict

    from mlopt.cli.terminal.output import emit_json, table

    findings: list[Finding] = []
    for check in (_python, _packages, _namespace, _plugins, _torch, _kernels, _sqlite, _folder):
        findings += _guarded(check)
    problems = [one for one in findings if one.remedy]
    if as_json:
        emit_json({"status": "error" if problems else "ok", "findings": [asdict(one) for one in findings]})
        return 1 if problems else 0
    rows = [("!!" if one.remedy else "ok", one.what, one.found) for one in findings]
    click.echo(table(rows, indent=""))
    for one in problems:
        click.echo(f"\n{one.what}: {one.remedy}")
    return 1 if problems else 0


def _guarded(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # a broken package may raise anything; the other checks go on
        name = check.__name__.strip("_")
        return [Finding(name, f"{type(error).__name__}: {error}", "Reinstall the package that this names.")]


def _python() -> Iterator[Finding]:
    remedy = "" if sys.version_info >= (3, 11) else "mlopt needs Python 3.11 or newer."
    yield Finding("python", f"{platform.python_version()} on {platform.platform(terse=True)}", remedy)


def _packages() -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    for name in _REQUIRED:
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, "not installed", f"pip install {name}")


def _namespace() -> Iterator[Finding]:
    import mlopt

    stray = getattr(mlopt, "__file__", None)
    advice = (
        "Another package of that name hides parts of mlopt: pip uninstall mlopt (or delete the stray file)."
    )
    if stray:
        yield Finding("namespace", str(stray), advice)


def _plugins() -> Iterator[Finding]:
    from mlopt.core.plugins import registry

    found = registry.entries()
    counts = {kind: sum(entry.kind == kind for entry in found) for kind in registry.GROUPS}
    missing = [kind for kind in ("potential", "optimizer", "experiment") if not counts[kind]]
    remedy = (
        f"Nothing is registered as {' or '.join(missing)}: reinstall the mlopt packages." if missing else ""
    )
    yield Finding("plugins", f"{len(found)} registered", remedy)


def _torch() -> Iterator[Finding]:
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield Finding("device", ", ".join(devices) if devices else "cpu only (torch sees no CUDA device)")
    threads, cores = torch.get_num_threads(), _cores()
    remedy = ""
    if threads > cores:
        remedy = f"torch uses more threads than the {cores} cores it may use: set OMP_NUM_THREADS={cores} or --threads."
    yield Finding("threads", f"{threads} of {cores} cores", remedy)
    finite = bool(torch.isfinite(torch.linalg.norm(torch.ones(3, dtype=torch.float64))))
    yield Finding("torch works", "yes" if finite else "no", "" if finite else "Reinstall torch.")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kernels() -> Iterator[Finding]:
    from mlopt.optimizers.fused.cache import cache_folder, fault, is_kept, kernels_in, wanted_folder

    folder, remedy = cache_folder(), ""
    if not is_kept(folder):
        reason = fault(wanted_folder()) or "the folder for them cannot be used"
        remedy = (
            f"Kernels are compiled anew in each process, for {reason}. Mend that, or set MLOPT_CACHE to a folder that "
            f"you alone may write to."
        )
    yield Finding("compiled kernels", f"{kernels_in(folder)} in {folder}", remedy)


def _sqlite() -> Iterator[Finding]:
    import sqlite3

    old = sqlite3.sqlite_version_info < (3, 24)
    yield Finding("sqlite", sqlite3.sqlite_version, "Use a Python with SQLite 3.24 or newer." if old else "")


def _folder() -> Iterator[Finding]:
    import fcntl
    import shutil

    advice = "Runs go to ./runs: change to a folder that you may write to, or give --out."
    try:
        here = Path.cwd()
        with tempfile.TemporaryFile(dir=here) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        yield Finding("this folder", f"cannot be written to or locked: {error.strerror or error}", advice)
        return
    free = shutil.disk_usage(here).free
    remedy = "" if free > 100 * 2**20 else "Free some space: checkpoints and results need it."
    yield Finding("this folder", f"writable, {free / 2**30:.1f} GiB free", remedy)
