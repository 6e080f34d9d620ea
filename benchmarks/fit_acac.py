"""Fit acetylacetone at one temperature, and test at others and along a turn: several species, far from what was seen.

    python benchmarks/fit_acac.py [--data FOLDER] [--network]

FOLDER holds ``train_300K.xyz``, ``test_MD_300K.xyz``, ``test_MD_600K.xyz`` and ``test_dihedral.xyz`` (Batatia et al.,
arXiv:2205.06643). Degrees and cutoff are those with the largest evidence of the structures that are fitted to, of the
candidates that are printed. --network: a Behler-Parrinello potential besides, trained from three seeds.
Prints root mean squares and means of errors: energies of a molecule in meV, forces in meV/angstrom.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from mlopt.core.protocols.fittable import FittablePotential
from mlopt.core.structures import read_dataset
from mlopt.optimizers import Fit, Stage, Training
from mlopt.optimizers.fitting import FitData, Weights
from mlopt.optimizers.fitting.metrics import Errors
from mlopt.potentials import BehlerParrinello, Mtp

SCAN: dict[str, list[Any]] = {"degrees": [[7, 6], [8, 7, 5]], "cutoff": [4.0, 5.0]}
SETS = ("test_MD_300K", "test_MD_600K", "test_dihedral")
ATOMS = 15


def table(potential: FittablePotential, folder: Path) -> None:
    """Print a line for each set."""
    for name in SETS:
        row = Errors.of(potential, read_dataset(folder / f"{name}.xyz")).row(name)
        energy = f"energy {1e3 * ATOMS * row['energy_rmse']:.1f} (MAE {1e3 * ATOMS * row['energy_mae']:.1f})"
        force = "no forces"
        if row["force_rmse"] is not None:
            force = f"force {1e3 * row['force_rmse']:.1f} (MAE {1e3 * row['force_mae']:.1f})"
        print(f"    {name:14s} {row['structures']} structures: {energy}, {force}", flush=True)


def main() -> None:
    """Print a table for each potential."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/molecules/acac"))
    parser.add_argument("--network", action="store_true")
    arguments = parser.parse_args()
    data = FitData(train=str(arguments.data / "train_300K.xyz"), leave_out=0.0)
    began = time.perf_counter()
    found = Fit(data=data, potential=Mtp(pair_functions=8), scan=SCAN, weights=Weights(energy=30.0)).run()
    print(
        f"mtp: of {SCAN} the evidence takes {found.chosen.settings}; {found.parameters} parameters, "
        f"{time.perf_counter() - began:.0f} s"
    )
    table(found.potential, arguments.data)
    if arguments.network:
        began = time.perf_counter()
        network = BehlerParrinello(cutoff=5.0, functions="amp", hidden=[20, 20])
        training = Training(stages=[Stage(evaluations=2000)], seeds=3)
        found = Fit(data=data, potential=network, training=training).run()
        print(f"behler-parrinello: {found.parameters} parameters, {time.perf_counter() - began:.0f} s")
        table(found.potential, arguments.data)


if __name__ == "__main__":
    main()
