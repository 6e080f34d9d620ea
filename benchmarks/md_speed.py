"""Time molecular dynamics on moment tensor potentials: the fused engine, the eager one, and ASE with motep.

    python benchmarks/md_speed.py [--levels 12 16] [--atoms 512] [--steps 100] [--temperature 300]

One thread, double precision. Potentials of each level are fitted to silicon by Stillinger and Weber. Rows are
integrators; numbers are microseconds of CPU an atom and step, after 20 steps to warm up. motep (``pip install motep``)
has its C extension and its own neighbour list, inside `ase.md`; forces of both agree to the last column.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.langevin import Langevin as AseLangevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet as AseVerlet

from mlopt.core import AtomsLandscape, Driver, Stop, Systems, problem_keys
from mlopt.optimizers import Bussi, Langevin, NoseHoover, VelocityVerlet
from mlopt.optimizers.dynamics import Integrator
from mlopt.optimizers.fitting.data import DrawnStructures
from mlopt.optimizers.fitting.least_squares import Weights, solve, triangle
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.potentials import Mtp, StillingerWeber

_WARM = 20


def fitted(level: int) -> Mtp:
    """Silicon by Stillinger and Weber, as an MTP of that level."""
    labeller = PotentialLabeller(potential=StillingerWeber())
    data = DrawnStructures(crystal="Si", count=40, labeller=labeller).draw(0)
    potential = Mtp(elements=["Si"], level=level, cutoff=5.0, pair_functions=0).prepared(data)
    return potential.with_theta(solve(triangle(potential, data, Weights()), potential.roughness()).theta)


def integrators(temperature: float) -> dict[str, Integrator]:
    """All of them, with a time step of 1 fs."""
    return {
        "velocity-verlet": VelocityVerlet(time_step=1.0, initial_temperature=temperature),
        "langevin": Langevin(time_step=1.0, temperature=temperature, friction=0.01),
        "bussi": Bussi(time_step=1.0, temperature=temperature, relaxation_time=100.0),
        "nose-hoover": NoseHoover(time_step=1.0, temperature=temperature, relaxation_time=100.0),
    }


def of_mlopt(integrator: Integrator, potential: Mtp, atoms: Atoms, engine: Any, steps: int) -> float:
    """Seconds of CPU of ``steps`` steps."""
    systems = Systems.from_atoms(atoms)
    driver = Driver(AtomsLandscape(systems, potential), integrator, Stop(steps + _WARM + 9), 0, engine)
    progress = driver.begin(systems.pos, problem_keys(0, torch.arange(1)))
    driver.prepare(progress)
    driver.advance(progress, until=_WARM)
    began = time.process_time()
    driver.advance(progress, until=_WARM + steps)
    return time.process_time() - began


def of_motep(name: str, path: Path, atoms: Atoms, temperature: float, steps: int) -> tuple[float, np.ndarray]:
    """Seconds of CPU of ``steps`` steps of ASE, and forces at the start."""
    from motep.calculator import MTP
    from motep.io.mlip.mtp import read_mtp

    data = read_mtp(path)
    data.species = [14]
    copy = atoms.copy()
    copy.calc = MTP(data, engine="cext")
    force = copy.get_forces()
    thermalize_momenta(copy, temperature_K=temperature, rng=np.random.default_rng(0))
    if name == "langevin":
        rng = np.random.default_rng(0)
        friction = 0.01 / units.fs
        dynamics: Any = AseLangevin(
            copy, units.fs, temperature_K=temperature, friction=friction, rng=rng, fixcm=False
        )
    else:
        dynamics = AseVerlet(copy, units.fs)
    dynamics.run(_WARM)
    began = time.process_time()
    dynamics.run(steps)
    return time.process_time() - began, force


def main() -> None:
    """Print a row for each level and integrator."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", type=int, nargs="+", default=[12, 16])
    parser.add_argument("--atoms", type=int, default=512)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=300.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = max(2, round((arguments.atoms / 8) ** (1 / 3)))
    atoms = bulk("Si", cubic=True) * (cells, cells, cells)
    atoms.rattle(0.02, seed=0)
    scale = 1e6 / len(atoms) / arguments.steps
    print(f"{len(atoms)} atoms, one thread; us an atom and step")
    print("level  integrator       fused  eager  motep in ASE  dF (eV/angstrom)")
    with tempfile.TemporaryDirectory() as folder:
        for level in arguments.levels:
            potential, path = fitted(level), Path(folder) / f"{level}.mtp"
            potential.write_mtp(str(path))
            force = potential.evaluate(Systems.from_atoms(atoms)).force.numpy()
            for name, integrator in integrators(arguments.temperature).items():
                ours = [
                    scale * of_mlopt(integrator, potential, atoms, engine, arguments.steps)
                    for engine in ("fused", "eager")
                ]
                theirs, off = "", ""
                if name in ("velocity-verlet", "langevin"):
                    try:
                        seconds, other = of_motep(name, path, atoms, arguments.temperature, arguments.steps)
                        theirs, off = f"{scale * seconds:.1f}", f"{np.abs(force - other).max():.0e}"
                    except ImportError:
                        theirs = "no motep"
                print(
                    f"{level:5d}  {name:15s} {ours[0]:6.1f} {ours[1]:6.1f}  {theirs:>12s}  {off}", flush=True
                )


if __name__ == "__main__":
    main()
