"""Read very many damaged files and configurations: each has to be read, or refused in a line that a person can read.

    python benchmarks/fuzz.py [structures] [configurations] [assignments] [--count N] [--seed 1] [--first 0]

Structure files (all formats, OVF and npy too), configurations (all recipes and the template) and `-s` assignments are
mutated, as a function of the seed and an index, and tried in processes of their own with a limit of time each. Prints a
table; exits 1 if there was another exception than ours, a hang, a process that died, or a message of more than 1,000
characters a line or with control characters. `--first K --count 1 --show` shows what becomes of one input.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # children are forked, which threads of a parent do not survive

from mlopt.cli.terminal.output import table
from mlopt.cli.testing.fuzzing import command_lines, configurations, structure_files
from mlopt.core.testing.fuzz import fuzz, try_inputs

SUBJECTS = {
    "structures": (structure_files, 35_000),
    "configurations": (configurations, 2_500),
    "assignments": (command_lines, 2_500),
}
HEADS = [
    "inputs of",
    "inputs",
    "accepted",
    "refused",
    "foreign",
    "unreadable",
    "hangs",
    "died",
    "longest line",
    "MiB",
    "s",
]


def main() -> None:
    """Print the table, and the first faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], default=[], help="default: all")
    parser.add_argument("--count", type=int, help="inputs of each; default: 35,000, 2,500 and 2,500")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="index of the first input")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=float, default=20.0, help="seconds for one input")
    parser.add_argument("--show", action="store_true", help="try here, and show the exceptions")
    arguments = parser.parse_args()
    rows, faults = [HEADS], []
    for name in arguments.subjects or SUBJECTS:
        make, usual = SUBJECTS[name]
        count = usual if arguments.count is None else arguments.count
        with tempfile.TemporaryDirectory() as folder:
            attempt = make(arguments.seed, Path(folder))
            if arguments.show:
                for index in range(arguments.first, arguments.first + count):
                    attempt(index)
                continue
            try_inputs(attempt, range(20))  # what is imported here is not counted as memory of the inputs
            began = time.monotonic()
            told = fuzz(
                attempt, count, processes=arguments.processes, limit=arguments.limit, first=arguments.first
            )
        numbers = (
            told.inputs,
            told.accepted,
            told.refused,
            told.foreign,
            told.unreadable,
            told.hangs,
            told.died,
        )
        rows.append([name, *(f"{one:,}" for one in (*numbers, told.longest, told.grown))])
        rows[-1].append(f"{time.monotonic() - began:.0f}")
        faults += [f"{name} {index}: {what}" for index, what in told.faults]
    print(table(rows))
    print("\n".join(faults[:100]))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
