"""Cost of a FIRE step on Lennard-Jones clusters: mlopt's eager engine beside ASE and TorchSim, in one run.

    pip install -r benchmarks/requirements.txt
    python benchmarks/speed_eager.py [--batch 150] [--threads 1]

Every program makes the same calls: one energy and forces and one FIRE step for each system, float64, all pairs, from
the same relaxed-apart random starts. The best of several repeats is printed, in microseconds per system and step.
TorchSim 0.3.0 is what pip gives for Python 3.11; without it, its column stays empty.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
from collections.abc import Callable

import torch

from mlopt.core import AtomsLandscape, Systems, minimize
from mlopt.core.batch.random import problem_keys
from mlopt.optimizers import Fire, HarmonicStart
from mlopt.potentials import LennardJones

SIGMA = 2.0 ** (-1.0 / 6.0)  # r0 = 1


def best_of(repeats: int, run: Callable[[], int]) -> float:
    """Least microseconds per unit of work; ``run`` returns how much it did."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        done = run()
        times.append((time.perf_counter() - began) / done * 1e6)
    return min(times)


def starts(n_atoms: int, batch: int) -> Systems:
    """Soft-sphere starts, so that nobody spends the run on overlapping atoms."""
    systems = Systems.cluster([18] * n_atoms, batch)
    keys = problem_keys(0, torch.arange(batch))
    return systems.with_pos(
        HarmonicStart().sample(systems, torch.ones(len(systems.z), dtype=torch.float64), keys)
    )


def time_mlopt(systems: Systems, steps: int) -> float:
    """`minimize` as a user calls it, driver and bookkeeping included."""
    landscape = AtomsLandscape(systems, LennardJones())

    def run() -> int:
        minimize(landscape, Fire(), systems.pos, force_calls=steps)
        return steps * len(systems)

    return best_of(5, run)


def time_ase(systems: Systems, steps: int) -> float:
    """ASE's FIRE and LennardJones, one system; ASE has no batches."""
    from ase.calculators.lj import LennardJones as AseLennardJones
    from ase.optimize import FIRE

    def run() -> int:
        atoms = systems[0].to_atoms()[0]
        atoms.calc = AseLennardJones(sigma=SIGMA, epsilon=1.0, rc=1e3, smooth=False)
        FIRE(atoms, logfile=None).run(fmax=0.0, steps=steps)
        return steps

    return best_of(3, run)


def time_torchsim(systems: Systems, steps: int) -> float | None:
    """TorchSim's FIRE on the whole batch, without a neighbour list (faster for clusters than with one)."""
    try:
        import torch_sim
        from torch_sim.models.lennard_jones import LennardJonesModel
        from torch_sim.optimizers import fire
    except ImportError:
        return None
    model = LennardJonesModel(SIGMA, 1.0, dtype=torch.float64, use_neighbor_list=False, cutoff=1e3)
    structures = systems.to_atoms()
    for atoms in structures:
        atoms.cell = [100.0] * 3  # TorchSim wants a cell
    state = torch_sim.io.atoms_to_state(structures, torch.device("cpu"), torch.float64)
    init, update = fire(model)

    def run() -> int:
        moving = init(state.clone())
        for _ in range(steps):
            moving = update(moving)
        return steps * len(systems)

    return best_of(2, run)


def version(name: str) -> str:
    """Installed version, for the header."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1)  # more are no faster at this size
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names = ", ".join(f"{name} {version(name)}" for name in ("torch", "ase", "torch-sim-atomistic"))
    print(
        f"{names}; batch {arguments.batch}, {arguments.threads} threads, float64, FIRE; us per system and step"
    )
    print(f"{'system':8}{'mlopt':>9}{'ASE':>10}{'TorchSim':>10}{'ASE/mlopt':>11}{'TorchSim/mlopt':>16}")
    for n_atoms in (13, 38, 75):
        systems = starts(n_atoms, arguments.batch)
        ours = time_mlopt(systems, 200)
        ase = time_ase(systems, 300)
        other = time_torchsim(systems, 10)
        shown = ("", "") if other is None else (f"{other:.1f}", f"{other / ours:.0f} x")
        print(
            f"LJ{n_atoms:<6}{ours:9.2f}{ase:10.1f}{shown[0]:>10}{ase / ours:>9.0f} x{shown[1]:>16}",
            flush=True,
        )


if __name__ == "__main__":
    main()
