"""Runs for `mlopt.core.testing.kills`: start or resume a real search, and what of it must not depend on kills."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

#: a second or two of basin hopping, with several minima to store
_SEARCH = """
experiment: search
system: {cluster: Ar13}
potential: lennard-jones
optimizer: basin-hopping
starts: 4
budget: {force_calls: 400}
minima: {keep: 5}
"""
_IMPORTED = (
    "torch",
    "ase.io",
    "ase.io.extxyz",
    "ase.db",
    "ase.db.sqlite",
    "scipy.spatial",
    "mlopt.optimizers",
    "mlopt.cli.report",
)
_COMPARED = ("metrics.jsonl", "results/starts.json", "results/trace.json", "results/minima.extxyz")


def small_search(folder: Path) -> Callable[[Path], int]:
    """A function that starts the run at a path, or resumes the one that is there, and returns its exit code.

    Writes the configuration into ``folder``; for `check_kills`.
    """
    for module in _IMPORTED:  # once here instead of in every child
        importlib.import_module(module)
    config = folder / "search.yaml"
    config.write_text(_SEARCH)

    def start_or_resume(path: Path) -> int:
        from mlopt.cli.main import cli

        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        # killed before the marker was written, a run has nothing to resume and starts again
        begun = (path / ".mlopt-run").exists()
        where = ["resume", str(path)] if begun else ["run", str(config), "--out", str(path)]
        try:
            cli.main([*where, "--quiet", "--checkpoint-every", "0.05"])
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return start_or_resume


def results(path: Path) -> bytes:
    """What must be the same, byte for byte; empty where it is missing."""
    found = [path / name for name in _COMPARED]
    return b"\0".join(one.read_bytes() if one.exists() else b"" for one in found)
