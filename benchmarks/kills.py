"""Kill runs at random instants, resume them, and compare with runs that were left alone.

    python benchmarks/kills.py [--kills 200] [--of KIND] [--cold-cache]

Every one of many small runs is killed (SIGKILL) once at a random instant of its life, then resumed to its end.
KIND: search, compiled, training, contest, path, network, fit or "fit by training". --cold-cache: each run has a cache
of kernels of its own, empty at first, as on a fresh machine, and what chooses its engine itself takes the fused one.
Paths, networks and fits have no such kernels.
Prints how many ended with other bytes in their results or metrics; exits 1 if any did.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # children are forked, which threads of a parent do not survive

import torch  # paid once, before the forks

from mlopt.cli.testing.runs import KINDS, results, small_run
from mlopt.core.testing.kills import check_kills
from mlopt.optimizers.fused.cache import kernels_in


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=math.inf, help="kill no more after that time")
    parser.add_argument("--of", choices=list(KINDS), default="search", help="what is run")
    parser.add_argument("--cold-cache", action="store_true", help="each run compiles its own kernels")
    arguments = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = check_kills(
            small_run(arguments.of, folder, arguments.cold_cache),
            results(arguments.of),
            folder,
            kills=arguments.kills,
            minutes=arguments.minutes,
        )
        kernels = kernels_in(folder / "whole-cache" / "kernels")
    compiled = f", {kernels} kernels compiled in each" if arguments.cold_cache else ""
    print(
        f"{arguments.of}: {told['runs']} runs, {told['killed']} killed, {told['different']} different{compiled}; "
        f"{time.monotonic() - began:.0f} s"
    )
    sys.exit(1 if told["different"] else 0)


if __name__ == "__main__":
    main()
