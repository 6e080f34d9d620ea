"""Fit moment tensor potentials to the data of Zuo et al. (J. Phys. Chem. A 124, 731 (2020)), beside published errors.

    python benchmarks/fit_zuo.py [--data FOLDER] [--elements Li Ni Mo Si] [--size small large]

Published split. Cutoff and degrees are those with the largest evidence of the structures that are fitted to, among the
candidates that are printed; no structure of the test set is looked at before the choice. Errors are mean absolute ones,
in meV an atom and eV/angstrom (components), with and without test structures that have a twin in the training set.
FOLDER holds ``Li_train.xyz``, ``Li_test.xyz`` and so on. small: at most 300 functions; large: about 1,000.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

from mlopt.core.structures import LabelledFile
from mlopt.optimizers.experiments.fit import Fit
from mlopt.optimizers.fitting.data import FitData
from mlopt.optimizers.fitting.least_squares import Weights
from mlopt.potentials import Mtp

#: MTP and linear ACE: meV/atom, eV/angstrom
PUBLISHED = {
    "Li": ((0.49, 0.01), (0.165, 0.005)),
    "Ni": ((0.48, 0.01), (0.34, 0.015)),
    "Mo": ((2.83, 0.09), (2.91, 0.097)),
    "Si": ((2.21, 0.06), (2.02, 0.066)),
}
#: candidates: settings that are the same, and those that the evidence decides between
CANDIDATES: dict[str, dict[str, tuple[dict[str, Any], dict[str, list[Any]]]]] = {
    "Li": {
        "small": ({"degrees": [15, 12], "angular_weight": 1.5}, {"cutoff": [6.5, 7.5, 8.5]}),
        "large": ({"degrees": [21, 17], "angular_weight": 1.5, "pair_functions": 15}, {"cutoff": [7.5, 8.5]}),
    },
    "Ni": {
        "small": ({"degrees": [11, 10, 9], "pair_cutoff": 6.0}, {"cutoff": [4.5, 5.0]}),
        "large": (
            {"degrees": [15, 13, 11], "pair_cutoff": 6.0, "pair_functions": 15},
            {"cutoff": [4.5, 5.0]},
        ),
    },
    "Mo": {
        "small": ({"degrees": [11, 10, 9], "pair_cutoff": 6.0}, {"cutoff": [4.5, 5.0, 5.5]}),
        "large": (
            {"degrees": [17, 15, 11], "pair_cutoff": 6.0, "pair_functions": 15},
            {"cutoff": [5.0, 5.5]},
        ),
    },
    "Si": {
        "small": ({"degrees": [11, 10, 10], "pair_cutoff": 6.0}, {"cutoff": [4.5, 5.0, 5.5]}),
        "large": (
            {"degrees": [15, 13, 12], "pair_cutoff": 6.0, "pair_functions": 15},
            {"cutoff": [5.0, 5.5]},
        ),
    },
}


def main() -> None:
    """Print a line for each fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/zuo2020"))
    parser.add_argument("--elements", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--size", nargs="+", default=["small", "large"], choices=["small", "large"])
    arguments = parser.parse_args()
    for element in arguments.elements:
        mtp, ace = PUBLISHED[element]
        print(f"{element}: published MTP {mtp[0]} {mtp[1]}, linear ACE {ace[0]} {ace[1]}")
        files = {
            part: LabelledFile(file=str(arguments.data / f"{element}_{part}.xyz"), forces="force")
            for part in ("train", "test")
        }
        for size in arguments.size:
            settings, scan = CANDIDATES[element][size]
            began = time.perf_counter()
            found = Fit(
                data=FitData(**files), potential=Mtp(**settings), scan=scan, weights=Weights(energy=30.0)
            ).run()
            seconds = time.perf_counter() - began
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            chosen = max(found.candidates, key=lambda one: one.evidence).settings
            print(
                f"  {size}: {settings} with {scan}: evidence takes {chosen}; {len(found.how.theta)} parameters, "
                f"lambda {found.how.strength:.1e}, {seconds:.0f} s for {len(found.candidates)} fits, {peak:.1f} GB"
            )
            for row in found.rows:
                energy = f"energy {1e3 * row['energy_mae']:.3f} +- {1e3 * row['energy_error']:.3f}"
                force = f"force {row['force_mae']:.4f}, largest component {row['force_max']:.2f}"
                print(f"    {row['set']:20s} {energy}, {force}", flush=True)


if __name__ == "__main__":
    main()
