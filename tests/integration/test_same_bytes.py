"""Whoever compiles a kernel, and whoever loads it with however many threads, computes the same bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# cheap, and one that differed when functions of a kernel were not inlined
FEW = r"^lennard-jones/lbfgs/float64$"
MORE = r"^gupta/hopping surface/float64$|^stillinger-weber/lbfgs/|^morse periodic/gradient"


@pytest.mark.parametrize("which", [FEW, pytest.param(MORE, marks=pytest.mark.slow)])
def test_cold_and_warm(repository: Path, which: str) -> None:
    pytest.importorskip("numba")
    command = [sys.executable, str(repository / "benchmarks" / "same_bytes.py"), "--of", which]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 different" in done.stdout and " 0 combinations" not in done.stdout
