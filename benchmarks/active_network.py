"""Active learning with networks: copper at 1000 K (EMT), beside a moment tensor potential.

    python benchmarks/active_network.py

Four walkers of 32 atoms go 500 steps of 2 fs by Langevin's equation on a potential that is learned on the way. For each
potential, and each way to grade, it prints the labels, those to begin with included, the rounds, the evaluations of the
loss for each seed, and errors of forces where the walkers end.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from mlopt.core.structures import SystemSpec
from mlopt.optimizers.dynamics import Langevin
from mlopt.optimizers.experiments.active import Active, Asking
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.potentials import BehlerParrinello, Mtp
from mlopt.potentials.ase import AsePotential

EMT = AsePotential(calculator="emt")
NETWORK = BehlerParrinello(cutoff=5.0, functions="amp", hidden=[8])
RUNS = {
    "mtp, level 12": (Mtp(level=12, cutoff=5.0), Asking()),
    "network, committee": (NETWORK, Asking()),
    "network, neighbourhoods": (NETWORK, Asking(by="neighbourhoods")),
}


def main() -> None:
    """Print a line for each run."""
    print(
        f"{'potential, grades':24} {'labels':>6} {'rounds':>6} {'loss':>5} {'RMS error':>9} {'largest':>8}  eV/angstrom"
    )
    for name, (potential, asking) in RUNS.items():
        found = Active(
            system=SystemSpec(crystal={"element": "Cu", "repeat": [2, 2, 2]}),
            potential=potential,
            labeller=PotentialLabeller(potential=EMT),
            optimizer=Langevin(time_step=2.0, temperature=1000.0, friction=0.01),
            walkers=4,
            force_calls=500,
            labels=100,
            asking=asking,
        ).run()
        there, rounds = found.found, found.record.rounds
        off = found.potential.evaluate(there).force - EMT.evaluate(there).force
        spent = sum(one.get("evaluations", 0) for one in rounds)
        rms, largest = float(off.square().mean().sqrt()), float(off.norm(dim=-1).max())
        print(
            f"{name:24} {len(found.record.labels):6} {len(rounds) - 1:6} {spent:5} {rms:9.4f} {largest:8.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
