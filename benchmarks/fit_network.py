"""Train Behler-Parrinello potentials to silicon of Zuo et al. (J. Phys. Chem. A 124, 731 (2020)), published split.

    python benchmarks/fit_network.py [--data FOLDER] [--seeds 5] [--evaluations 600 1500] [--optimizer lbfgs]

FOLDER holds ``Si_train.xyz`` and ``Si_test.xyz``. A tenth of the training set is held back and decides where each seed
ends and which is taken. Prints for each number of evaluations the errors of all seeds on the test set, their mean and
deviation, and the seconds of CPU for each, symmetry functions included. Published beside it: PyXtal_FF 9.25 meV/atom
and 0.120 eV/angstrom (Yanxon et al., 2020).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from mlopt.core.plugins import build
from mlopt.core.structures import LabelledFile
from mlopt.optimizers import Fit, Training
from mlopt.optimizers.fitting import FitData, Stage
from mlopt.potentials import BehlerParrinello

#: settings of the optimizers for losses, whose curvatures are larger than those of atoms
OPTIMIZERS = {
    "lbfgs": {"name": "lbfgs", "memory": 30, "max_step": 0.5, "scale": 0.05},
    "bfgs": {"name": "bfgs", "max_step": 0.5, "scale": 0.05},
}


def main() -> None:
    """Print a table for each number of evaluations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/zuo2020"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[600, 1500])
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="lbfgs")
    parser.add_argument("--hidden", type=int, nargs="+", default=[16, 16])
    parser.add_argument("--cutoff", type=float, default=5.0)
    arguments = parser.parse_args()
    files = {
        part: LabelledFile(file=str(arguments.data / f"Si_{part}.xyz"), forces="force")
        for part in ("train", "test")
    }
    for evaluations in arguments.evaluations:
        stage = build(Stage, {"optimizer": OPTIMIZERS[arguments.optimizer], "evaluations": evaluations})
        training = Training(stages=[stage], seeds=arguments.seeds)
        potential = BehlerParrinello(cutoff=arguments.cutoff, hidden=arguments.hidden)
        began = time.process_time()
        found = Fit(data=FitData(**files), potential=potential, training=training).run()
        seconds = (time.process_time() - began) / arguments.seeds
        rows = [one.row("") for one in found.seeds]
        told = f"{evaluations} evaluations, {found.parameters} parameters, {seconds:.0f} s of CPU a seed"
        print(f"{arguments.optimizer}, {told}")
        for seed, row in enumerate(rows):
            taken = ", taken" if seed == found.summary()["seed"] else ""
            print(
                f"  seed {seed}: {1e3 * row['energy_mae']:.2f} meV/atom, {row['force_mae']:.4f} eV/angstrom, largest "
                f"{row['force_max']:.2f}{taken}"
            )
        for name, factor, unit in (("energy_mae", 1e3, "meV/atom"), ("force_mae", 1.0, "eV/angstrom")):
            values = [factor * row[name] for row in rows]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            print(f"  {name}: {statistics.mean(values):.4f} +- {spread:.4f} {unit}", flush=True)


if __name__ == "__main__":
    main()
