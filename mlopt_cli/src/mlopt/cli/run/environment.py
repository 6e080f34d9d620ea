"""Threads and versions, on which the last bits of a result depend: set, recorded and compared."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from mlopt.cli.terminal.output import note
from mlopt.core.errors import InputError
from mlopt.core.files import atomic
from mlopt.core.runs.directory import RunDirectory
from mlopt.core.runs.environment import environment


def use_threads(threads: int | None) -> None:
    """Set the number of threads, at most one per core; None leaves the choice to torch."""
    if threads is None:
        return
    if threads < 1:
        raise InputError(f"--threads must be at least 1, got {threads}")
    cores = os.cpu_count() or 1
    if threads > cores:
        note(
            f"mlopt: {threads} threads were asked for, and there are {cores} cores: computing with {cores} threads"
        )
        threads = cores
    if "numba" not in sys.modules:  # numba reads it once, when it is imported
        os.environ["NUMBA_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)


def load_torch() -> None:
    """Import torch, so that env.json can say how many threads it uses."""
    import torch

    torch.get_num_threads()


def recorded_threads(run: RunDirectory) -> int | None:
    """Return the number of threads with which a run began; sums depend on it in their last bits."""
    threads = _recorded(run).get("torch_threads")
    return threads if isinstance(threads, int) and threads >= 1 else None


def differences(run: RunDirectory) -> list[str]:
    """Return the changes since the run began that may affect its last bits, one line each."""
    before, now = _recorded(run), environment()
    found = []
    for name in (
        "torch",
        "numpy",
        "numba",
        "llvmlite",
        *("mlopt-core", "mlopt-potentials", "mlopt-optimizers"),
    ):
        versions = before.get("versions", {})
        old, new = versions.get(name), now["versions"].get(name)
        if old != new and (name in versions or name != "llvmlite"):  # which older runs did not record
            found.append(f"{name} was {old} when the run began and is {new} now")
    for key, words in (("torch_threads", "the number of threads"), ("python", "python")):
        if before.get(key) != now.get(key) and before.get(key) is not None:
            found.append(f"{words} was {before.get(key)} when the run began and is {now.get(key)} now")
    then, here = before.get("cpu"), now["cpu"]
    if isinstance(then, dict) and then != here:
        lacking = _features(then) ^ _features(here)
        which = f" ({', '.join(sorted(lacking)[:6])})" if lacking else ""
        found.append(
            f"the kind of CPU was {then.get('name')} when the run began and is {here['name']} now{which}"
        )
    return [f"{line}: the result may differ in its last digits" for line in found]


def _features(cpu: dict[str, Any]) -> set[str]:
    found = cpu.get("features")
    return {one for one in found if isinstance(one, str)} if isinstance(found, list) else set()


def _recorded(run: RunDirectory) -> dict[str, Any]:
    try:
        value = json.loads(atomic.read_bytes(run.path("env.json")))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) and isinstance(value.get("versions", {}), dict) else {}
