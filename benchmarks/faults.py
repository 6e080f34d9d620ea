"""Damage real runs of mlopt, and see that each goes on to the same bytes or is refused in one message.

    python benchmarks/faults.py [--only TEXT ...] [--tries 8] [--seed 0] [--quick]

Checkpoints, kept inputs, any file of a run, compiled kernels, potentials of plugins, standard streams, the size of
files, and the life of the process. Prints one table in Markdown; exits 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # children are forked, which threads of a parent do not survive

import torch  # paid once, before the forks

from mlopt.cli.testing.damaged import Bench
from mlopt.cli.testing.faults import faults


def main() -> None:
    """Print the table, row by row, and then what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="faults with one in their names"
    )
    parser.add_argument("--tries", type=int, default=8, help="of each fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="the few that the tests try")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    named = [one for one in faults() if any(text in one.name for text in arguments.only)]
    chosen = [one for one in named if one.quick or not arguments.quick]
    print("| fault | tries | held | wrong | seconds |\n|---|---:|---:|---:|---:|")
    complaints = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for one in chosen:
            began = time.monotonic()
            told = one.attempts(bench, arguments.tries, arguments.seed)
            wrong = [what for what in told if what]
            numbers = (
                f"{len(told)} | {len(told) - len(wrong)} | {len(wrong)} | {time.monotonic() - began:.1f}"
            )
            print(f"| {one.name} | {numbers} |", flush=True)
            complaints += [f"{one.name}: {what}" for what in wrong]
    print("\n".join(["", *complaints]))
    sys.exit(1 if complaints or not chosen else 0)


if __name__ == "__main__":
    main()
