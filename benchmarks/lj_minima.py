"""Known Lennard-Jones global minima, found again from random starts by the recipes `lj2` to `lj150`.

    python benchmarks/lj_minima.py [--sizes 2-30 | --to 150] [--tries 3] [--minutes 1] [--keep FILE]

Up to 30 atoms recipes take basin hopping, beyond a learned hop whose one set of weights was learned on 38 and 75 atoms.
A try ends with the first hit, or after so many minutes; the next has the next seed. Prints one line a size: the energy
found, its difference from the known one, tries, force calls and seconds of all tries. FILE of ``--keep`` holds the
lines of sizes that are done, which another run with the same settings does not do again. Exits 1 if any size is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from mlopt.cli.configs.families import lennard_jones_minima
from mlopt.cli.configs.sources import find
from mlopt.optimizers.experiments.search.experiment import Search


def search(n_atoms: int, known: float, tries: int, minutes: float) -> dict[str, float]:
    """Search until a try has the known energy."""
    best, calls, began = float("inf"), 0, time.monotonic()
    for seed in range(tries):
        experiment = find(f"lj{n_atoms}", [f"seed={seed}", f"budget.minutes={minutes}"]).experiment()
        assert isinstance(experiment, Search)
        found = experiment.run().summary()
        best, calls = min(best, float(str(found["best_energy"]))), calls + int(str(found["force_calls"]))
        if abs(best - known) < 1e-5:
            break
    return {
        "n": n_atoms,
        "energy": best,
        "tries": seed + 1,
        "calls": calls,
        "seconds": time.monotonic() - began,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="2-30")
    parser.add_argument("--to", type=int, help="the same as --sizes 2-TO")
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=1.0, help="of each try")
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    low, high = (int(part) for part in arguments.sizes.split("-")) if not arguments.to else (2, arguments.to)
    known, done = lennard_jones_minima(), {}
    if arguments.keep is not None and arguments.keep.exists():
        lines = map(json.loads, arguments.keep.read_text().splitlines())
        done = {int(one["n"]): one for one in lines if one["of"] == [arguments.tries, arguments.minutes]}
    print(f"{'N':>4}{'found':>14}{'difference':>12}{'tries':>7}{'force calls':>14}{'seconds':>9}")
    missed = []
    for n_atoms in range(low, high + 1):
        one = done.get(n_atoms)
        if one is None:
            one = search(n_atoms, known[n_atoms], arguments.tries, arguments.minutes)
            if arguments.keep is not None:
                with arguments.keep.open("a") as file:
                    file.write(json.dumps(one | {"of": [arguments.tries, arguments.minutes]}) + "\n")
        off = one["energy"] - known[n_atoms]
        if abs(off) > 1e-5:
            missed.append(n_atoms)
        print(
            f"{n_atoms:4}{one['energy']:14.6f}{off:12.1e}{one['tries']:7}{one['calls']:14,}{one['seconds']:9.1f}",
            flush=True,
        )
    print(f"{high - low + 1 - len(missed)} of {high - low + 1} sizes have the known energy", end="")
    print(f"; missed: {', '.join(map(str, missed))}" if missed else "")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
