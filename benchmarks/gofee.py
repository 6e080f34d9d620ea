"""Count the energies that GOFEE of AGOX needs, for comparison with `active_search.py`.

    pip install agox
    python benchmarks/gofee.py [--formula Cu13] [--seeds 5] [--iterations 60] [--lowest 9.361358]

To be run in an environment of its own, with AGOX 3.11 and ASE 3.26; it does not import mlopt. The settings are those of
AGOX's own script for clusters with EMT: 10 candidates an iteration, kappa 2, one step of relaxation by EMT. Relaxations
on the surrogate take 100 steps instead of 5, which that script calls too few for a real search. Every call of EMT
counts. Prints for each seed the calls until an energy within 20 meV of ``--lowest``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

import matplotlib

matplotlib.use("Agg")

import numpy as np
from agox import AGOX
from agox.acquisitors import LowerConfidenceBoundAcquisitor
from agox.collectors import ParallelCollector
from agox.databases import Database
from agox.environments import Environment
from agox.evaluators import LocalOptimizationEvaluator
from agox.generators import RandomGenerator, RattleGenerator
from agox.models.descriptors.fingerprint import Fingerprint
from agox.models.GPR import GPR
from agox.models.GPR.kernels import RBF, Constant, Noise
from agox.models.GPR.priors import Repulsive
from agox.postprocessors import ParallelRelaxPostprocess
from agox.samplers import KMeansSampler
from ase import Atoms
from ase.calculators.emt import EMT

energies: list[float] = []


class CountingEMT(EMT):
    """EMT that writes down each energy that it computes."""

    def calculate(self, *args: object, **kwargs: object) -> None:
        """Compute, and note the energy."""
        super().calculate(*args, **kwargs)
        energies.append(float(self.results["energy"]))


def search(formula: str, width: float, seed: int, iterations: int) -> None:
    """Run GOFEE once in the current folder."""
    box = width + 8.0
    environment = Environment(
        template=Atoms("", cell=np.eye(3) * box),
        symbols=formula,
        confinement_cell=np.eye(3) * width,
        confinement_corner=np.full(3, 4.0),
    )
    database = Database(filename="gofee.db", order=5)
    descriptor = Fingerprint(environment=environment)
    share = 0.01
    short = Constant(share, (share, share)) * RBF()
    long = Constant(1 - share, (1 - share, 1 - share)) * RBF()
    kernel = Constant(5000, (1, 1e5)) * (short + long) + Noise(0.01, (0.01, 0.01))
    model = GPR(descriptor=descriptor, kernel=kernel, database=database, prior=Repulsive())
    confinement = environment.get_confinement()
    collector = ParallelCollector(
        generators=[RandomGenerator(**confinement), RattleGenerator(**confinement)],
        sampler=KMeansSampler(descriptor=descriptor, database=database, sample_size=10),
        environment=environment,
        num_candidates={0: [10, 0], 5: [3, 7]},
        order=1,
    )
    acquisitor = LowerConfidenceBoundAcquisitor(model=model, kappa=2, order=3)
    relaxer = ParallelRelaxPostprocess(
        model=acquisitor.get_acquisition_calculator(),
        constraints=environment.get_constraints(),
        optimizer_run_kwargs={"steps": 100},
        start_relax=8,
        order=2,
    )
    evaluator = LocalOptimizationEvaluator(
        CountingEMT(),
        gets={"get_key": "prioritized_candidates"},
        optimizer_kwargs={"logfile": None},
        optimizer_run_kwargs={"fmax": 0.05, "steps": 1},
        constraints=environment.get_constraints(),
        store_trajectory=True,
        order=4,
    )
    AGOX(collector, relaxer, acquisitor, evaluator, database, seed=seed).run(N_iterations=iterations)


def main() -> None:
    """Print one line for each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formula", default="Cu13")
    parser.add_argument("--width", type=float, default=8.0, help="of the box for the atoms, angstrom")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--lowest", type=float, default=9.361358)
    arguments = parser.parse_args()
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        energies.clear()
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            search(arguments.formula, arguments.width, seed, arguments.iterations)
        near = np.array(energies) <= arguments.lowest + 0.02
        told = f"{int(np.argmax(near)) + 1} calls" if near.any() else "not found"
        print(
            f"seed {seed}: {told} of {len(energies)}, lowest {min(energies):.6f} eV, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
