"""Energy drift of dynamics at constant energy on a fitted potential: velocity Verlet, silicon.

    python benchmarks/nve.py [--steps 10000] [--temperature 600] [--step 1.0]

Moment tensor potentials are fitted to 60 strained and shaken cells that Stillinger and Weber's potential has labelled.
On each, 64 atoms of crystal move from thermal velocities. The drift is the slope of the total energy by least squares;
its standard error comes from ten parts of the run. The second derivative of radial functions jumps at the cutoff, as in
MLIP's files: one cutoff lies between shells of neighbours, the other at the second shell, where atoms cross it all the
time. For comparison the same is done on the potential that has labelled.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from ase.build import bulk

from mlopt.core import AtomsLandscape, Driver, Potential, Stop, Systems, problem_keys
from mlopt.optimizers import VelocityVerlet
from mlopt.optimizers.fitting.data import DrawnStructures
from mlopt.optimizers.fitting.least_squares import Weights, solve, triangle
from mlopt.optimizers.fitting.metrics import Errors
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.potentials import Mtp, StillingerWeber

#: steps before the energy is looked at: the crystal takes up heat
_SETTLE = 2_000


def fitted(cutoff: float) -> Mtp:
    """Silicon by Stillinger and Weber, fitted."""
    labeller = PotentialLabeller(potential=StillingerWeber())
    data = DrawnStructures(crystal="Si", count=60, labeller=labeller).draw(0)
    potential = Mtp(degrees=[11, 10, 9], cutoff=cutoff).prepared(data)
    found = potential.with_theta(solve(triangle(potential, data, Weights()), potential.roughness()).theta)
    row = Errors.of(found, data).row("")
    print(
        f"fitted with the cutoff {cutoff:g}: {len(found.parameters)} parameters, "
        f"{1e3 * row['energy_mae']:.3f} meV/atom, "
        f"{row['force_mae']:.4f} eV/angstrom on the {len(data)} structures that were fitted to"
    )
    return found


def energies(potential: Potential, steps: int, temperature: float, femtoseconds: float) -> np.ndarray:
    """Total energies an atom (steps,), eV: velocity Verlet from a thermal start."""
    systems = Systems.from_atoms(bulk("Si", cubic=True) * (2, 2, 2))
    landscape, n = AtomsLandscape(systems, potential), len(systems.pos)
    noise = torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # half of it goes into the springs
    thermal = 2.0 * landscape.boltzmann * temperature
    velocity = (noise - noise.mean(0)) * (thermal / landscape.inertia[:, None]).sqrt()
    verlet = VelocityVerlet(time_step=femtoseconds, initial_temperature=2.0 * temperature)
    driver = Driver(landscape, verlet, Stop(steps + 1), 0, "fused")
    progress = driver.begin(systems.pos, problem_keys(0, torch.arange(1)))
    progress.state = progress.state.moving(velocity)
    total = np.zeros(steps)
    for step in range(steps):
        driver.advance(progress, until=step + 1)
        total[step] = float(progress.state.conserved) / n
    return total


def main() -> None:
    """Print the drift on both potentials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--temperature", type=float, default=600.0)
    parser.add_argument("--step", type=float, default=1.0, help="fs")
    arguments = parser.parse_args()
    potentials = {
        "cutoff 5": fitted(5.0), "cutoff 4": fitted(4.0), "Stillinger-Weber": StillingerWeber()
    }  # fmt: skip
    for name, potential in potentials.items():
        total = energies(potential, _SETTLE + arguments.steps, arguments.temperature, arguments.step)[
            _SETTLE:
        ]
        time = 1e-3 * arguments.step * np.arange(len(total))  # ps
        slope = np.polyfit(time, total, 1)[0]
        parts = total[: len(total) // 10 * 10].reshape(10, -1).mean(1)
        tenth = time[-1] / 10.0
        off = parts - np.polyval(np.polyfit(range(10), parts, 1), range(10))
        error = np.sqrt((off**2).sum() / 8.0 / 82.5) / tenth  # of a slope through ten points
        print(
            f"{name}: {len(total)} steps of {arguments.step:g} fs, drift {slope:.1e} +- {error:.1e} eV/atom/ps, "
            f"fluctuation {total.std():.1e} eV/atom",
            flush=True,
        )


if __name__ == "__main__":
    main()
