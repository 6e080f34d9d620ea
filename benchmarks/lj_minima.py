"""Known Lennard-Jones global minima, found again from random starts.

    python benchmarks/lj_minima.py [--sizes 2-30] [--data ../shared/data]

Prints one line a size: the energy found, the table's, their difference, and what it took; exits 1 if any is missed.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from pathlib import Path

from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers import BasinHopping
from mlopt.optimizers.experiments.search.experiment import Search
from mlopt.optimizers.searches.settings import Budget, Target
from mlopt.potentials import LennardJones


def table(data: Path) -> dict[int, float]:
    """Energies of the Cambridge Cluster Database by size."""
    with (data / "clusters" / "lj_global_minima.csv").open() as file:
        return {int(row["n"]): float(row["energy"]) for row in csv.DictReader(file)}


def search(n_atoms: int, target: float) -> dict[str, object]:
    """Until one of 32 starts has the energy."""
    found = Search(
        system=SystemSpec(cluster=f"Ar{n_atoms}"),
        potential=LennardJones(),
        optimizer=BasinHopping(),
        starts=32,
        budget=Budget(force_calls=50_000),
        target=Target(energy=target, tolerance=1e-3),
    ).run()
    return found.summary()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="2-30")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MLOPT_DATA", "../shared/data")))
    arguments = parser.parse_args()
    low, high = (int(part) for part in arguments.sizes.split("-"))
    known, missed = table(arguments.data), 0
    print(f"{'N':>4}{'found':>14}{'table':>14}{'difference':>12}{'force calls':>13}{'seconds':>9}")
    for n_atoms in range(low, high + 1):
        found = search(n_atoms, known[n_atoms])
        energy = float(str(found["best_energy"]))
        missed += abs(energy - known[n_atoms]) > 1e-6
        print(
            f"{n_atoms:4}{energy:14.6f}{known[n_atoms]:14.6f}{energy - known[n_atoms]:12.1e}"
            f"{found['force_calls']:>13,}{found['wall_s']:>9}",
            flush=True,
        )
    print(f"{high - low + 1 - missed} of {high - low + 1} sizes agree to 1e-6")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
