"""Time moment tensor potentials: mlopt's compiled functions and its fused engine beside motep's C extension.

    python benchmarks/mtp_speed.py [--levels 8 12 16 20 22] [--atoms 864] [--potentials FOLDER]

One thread, energies, forces and stress in double precision, copper in a shaken fcc crystal of 864 atoms. Columns:
microseconds an atom of motep (``pip install motep``) through its ASE calculator with its list kept, of mlopt with
neighbours given, with a new list every call, through mlopt's ASE calculator, and of a step of gradient descent in the
fused engine. FOLDER holds ``LEVEL/pot.mtp``, such as those of MLIP's reference data; without it mlopt's own tables are
written as ``.mtp`` and read by both.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import all_changes

from mlopt.core import AtomsLandscape, Driver, Stop, Systems, problem_keys
from mlopt.optimizers import GradientDescent
from mlopt.potentials import MloptCalculator, Mtp


def crystal(atoms: int) -> Atoms:
    """Shaken fcc copper of about so many atoms."""
    cells = max(2, round((atoms / 4) ** (1 / 3)))
    made = bulk("Cu", cubic=True) * (cells, cells, cells)
    made.rattle(0.05, seed=0)
    return made


def potential_file(level: int, potentials: Path | None, folder: Path) -> Path:
    """A file of that level."""
    if potentials is not None:
        return potentials / f"{level:02d}" / "pot.mtp"
    made = Mtp(elements=["Cu"], level=level, shortest=2.0, cutoff=5.0, pair_functions=0)
    noise = torch.randn(
        made.basis.n_parameters, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    path = folder / f"{level}.mtp"
    made.with_theta(1e-3 * noise).write_mtp(str(path))
    return path


def best(call: Callable[[], Any], repeats: int = 7) -> float:
    """Seconds of the fastest call, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def of_motep(path: Path, atoms: Atoms) -> tuple[float, float, np.ndarray]:
    """Seconds of a call, energy and forces."""
    from motep.calculator import MTP
    from motep.io.mlip.mtp import read_mtp

    data = read_mtp(path)
    data.species = [29]
    calculator = MTP(data, engine="cext")
    copy = atoms.copy()
    copy.calc = calculator

    def call() -> None:
        calculator.results = {}
        calculator.calculate(copy, ["energy", "forces", "stress"], [])

    seconds = best(call)
    return seconds, float(calculator.results["energy"]), calculator.results["forces"]


def of_mlopt(path: Path, atoms: Atoms) -> tuple[list[float], float, np.ndarray]:
    """Seconds with neighbours given, with a new list, through ASE, and of a step of the fused engine."""
    potential, systems = Mtp(file=str(path), elements=["Cu"]), Systems.from_atoms(atoms)
    basis, theta = potential.basis, potential.parameters
    prepared = basis._prepared(systems)

    class Given(type(basis)):  # type: ignore[misc]
        """The same with a list that is there."""

        def _prepared(self, systems: Systems) -> Any:
            return prepared

    given = Given(basis.table, basis.species, basis.sets, basis.set_of, basis.place_of)
    with_list = best(lambda: given.evaluate(systems, theta, True))
    alone = best(lambda: potential.evaluate(systems, stress=True))
    copy = atoms.copy()
    copy.calc = MloptCalculator(potential)

    def through_ase() -> None:
        copy.calc.reset()
        copy.calc.calculate(copy, ["energy", "forces", "stress"], all_changes)

    by_ase = best(through_ase)
    steps = 20
    driver = Driver(
        AtomsLandscape(systems, potential), GradientDescent(step_size=1e-6), Stop(steps), 1, "fused"
    )
    key = problem_keys(0, torch.arange(1))

    def descend() -> None:
        driver.advance(driver.begin(systems.pos, key))

    fused = best(descend, 3) / steps
    found = potential.evaluate(systems)
    return [with_list, alone, by_ase, fused], float(found.energy), found.force.numpy()


def main() -> None:
    """Print a row for each level."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", type=int, nargs="+", default=[8, 12, 16, 20, 22])
    parser.add_argument("--atoms", type=int, default=864)
    parser.add_argument("--potentials", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    atoms = crystal(arguments.atoms)
    print(f"{len(atoms)} atoms, one thread; us an atom, and motep's time over ours")
    print("level  motep  given        new list     ASE          fused step   dE (eV)  dF (eV/angstrom)")
    with tempfile.TemporaryDirectory() as folder:
        for level in arguments.levels:
            path = potential_file(level, arguments.potentials, Path(folder))
            ours, energy, force = of_mlopt(path, atoms)
            try:
                theirs, other_energy, other_force = of_motep(path, atoms)
            except ImportError:
                theirs, other_energy, other_force = float("nan"), float("nan"), force * np.nan
            scale = 1e6 / len(atoms)
            told = "  ".join(f"{scale * one:6.1f} {theirs / one:4.1f}x" for one in ours)
            off = np.abs(force - other_force).max()
            print(
                f"{level:5d}  {scale * theirs:5.1f}  {told}  {abs(energy - other_energy):.0e}  {off:.0e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
