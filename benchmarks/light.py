"""Measure what every start and every kept minimum costs, on one thread.

    python benchmarks/light.py

Prints, in seconds and each the best of a few: the processor time of commands that load no plugin, harmonic starts of
150 clusters of 38 atoms, the match of two orientations of one cluster, and a point group.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from ase.cluster import Decahedron, Octahedron

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.minima.matching import match
from mlopt.core.minima.symmetry import point_group
from mlopt.optimizers.starts import HarmonicStart


def command(*arguments: str) -> float:
    """Return the least processor time of five runs of ``mlopt``."""
    costs = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "mlopt.cli", *arguments], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(costs)


def best(function: Callable[[], object]) -> float:
    """Return the least time of five calls."""
    costs = []
    for _ in range(5):
        began = time.perf_counter()
        function()
        costs.append(time.perf_counter() - began)
    return min(costs)


def main() -> None:
    """Print one line for each."""
    torch.set_num_threads(1)
    for arguments in (["--help"], ["list"], ["validate", "--quick", "lj38"]):
        print(f"mlopt {' '.join(arguments):24} {command(*arguments):.3f} s of CPU")
    systems = Systems.cluster([18] * 38, 150)
    diameter, keys = torch.ones(len(systems.z), dtype=torch.float64), problem_keys(0, torch.arange(150))
    start = HarmonicStart()
    print(f"150 starts of 38 atoms         {best(lambda: start.sample(systems, diameter, keys)):.3f} s")
    cluster = Octahedron("Ar", 4, 1)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    pos, z = cluster.positions / 3.8, cluster.numbers
    print(f"match of 38 atoms              {best(lambda: match(pos, z, pos @ turn, z, 0.05)):.4f} s")
    decahedron = Decahedron("Ar", 2, 2, 1)
    pos, z = decahedron.positions / 3.8, decahedron.numbers
    print(f"point group of a decahedron    {best(lambda: point_group(pos, z)):.4f} s")


if __name__ == "__main__":
    main()
