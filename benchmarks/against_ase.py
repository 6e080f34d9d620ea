"""The largest differences between mlopt and ASE's own tools, over random structures.

    python benchmarks/against_ase.py [--structures 200] [--hops 200] [--seed 0]

Structures: free clusters, slabs and skewed bulk cells of one to three of the metals that ASE's EMT knows. Compared are

- energies, forces and stresses: EMT through `AsePotential` in one batch beside EMT alone, in units of each structure's
  own numbers; Lennard-Jones of mlopt beside that of ASE; both again through `MloptCalculator`;
- distances: `Flat` beside ASE's search over all images (its shortcut for short vectors misses some), between random
  points, many cells apart, in cells that are skewed further;
- barriers: an atom hops on a slab, on a free cluster, or into a vacancy of a skewed cell; the experiment `path`, from
  files, beside `ase.mep.NEB`, both with the same springs, tangents and a climbing image;
- rates: those of the same runs, some atoms being isotopes, beside Vineyard's formula with frequencies of
  `ase.vibrations` at the same two points.

Every hop is drawn until one is found whose ends are two minima and whose band ASE relaxes; how many were drawn is said.
Exits with 1 where a difference is larger than the limit beside it.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import ase.optimize
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.constraints import FixAtoms
from ase.geometry.geometry import general_find_mic
from ase.io import write
from ase.mep import NEB
from ase.units import create_units
from ase.vibrations import Vibrations

from mlopt.core import Systems
from mlopt.core.errors import MloptError
from mlopt.core.landscapes.manifold import Flat
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers import LBFGS
from mlopt.optimizers.bands.settings import BandSettings, Ends, PathStart, Saddle
from mlopt.optimizers.experiments.path.experiment import Path as PathRun
from mlopt.potentials import AsePotential, LennardJones
from mlopt.potentials.ase.calculator import MloptCalculator
from mlopt.potentials.models.atoms import AtomsModel

#: those of CODATA 2018: a barrier over kT turns another digit of Boltzmann's constant into many
UNITS = create_units("2018")
METALS = ("Ni", "Cu", "Pd", "Ag", "Pt", "Au")
KINDS = ("free", "slab", "bulk")
#: of the Lennard-Jones atoms: distance where the pair's energy is 0, and cutoff, angstrom; depth, eV
SIGMA, CUTOFF, EPSILON = 2.3, 5.5, 0.1
#: displacement of ASE's vibrations, angstrom: EMT has a small step where a neighbour leaves its list, and one
#: as small as that of mlopt rarely meets it
DELTA = 5e-6
IMAGES, SPRING, TEMPERATURE = 3, 1.0, 300.0
LIMITS = defaultdict(lambda: 1e-8, {"rate, relative": 1e-6})


def species(rng: np.random.Generator, n: int) -> list[str]:
    """Draw ``n`` symbols of one to three metals, each of which occurs where there is room."""
    chosen = rng.choice(METALS, size=rng.integers(1, 4), replace=False)
    symbols = [*chosen, *rng.choice(chosen, size=n)][:n]
    return [str(one) for one in rng.permutation(symbols)]


def structure(kind: str, rng: np.random.Generator) -> Atoms:
    """Draw a structure whose atoms keep a distance."""
    if kind == "slab":
        atoms = fcc111("Cu", size=(2, 2, int(rng.integers(2, 4))), a=rng.uniform(3.7, 4.1), vacuum=6.0)
        atoms.pbc = (True, True, False)
    elif kind == "bulk":
        atoms = bulk("Cu", "fcc", a=rng.uniform(3.7, 4.1)).repeat(tuple(rng.integers(1, 4, size=3)))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.15, 0.15, (3, 3))), scale_atoms=True)
    else:
        ball = bulk("Cu", "fcc", a=rng.uniform(3.7, 4.1), cubic=True).repeat(3)
        distance = np.linalg.norm(ball.positions - ball.positions.mean(0) + rng.uniform(-1, 1, 3), axis=1)
        atoms = Atoms("Cu" * (n := int(rng.integers(2, 30))), ball.positions[np.argsort(distance)[:n]])
    atoms.rattle(0.1, rng=rng)
    atoms.set_chemical_symbols(species(rng, len(atoms)))
    return atoms


def relative(ours: Any, theirs: Any) -> float:
    """The largest difference, in units of the largest number where that exceeds 1."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


def compare_energies(images: list[Atoms], worst: dict[str, float]) -> None:
    """Energies, forces and stresses of both potentials, in one batch and through the calculator."""
    lennard_jones = LennardJones(epsilon=EPSILON, sigma=SIGMA, cutoff=CUTOFF, shift="energy")
    pairs = [
        ("EMT", AsePotential(calculator="emt"), EMT()),
        ("LJ", lennard_jones, AseLennardJones(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF)),
    ]
    for (name, potential, calculator), solid in itertools.product(pairs, (False, True)):
        some = [atoms for atoms in images if (atoms.cell.rank == 3) == solid]
        systems = Systems.from_atoms(some)
        found = potential.evaluate(systems, stress=solid)
        for index, atoms in enumerate(some):
            start, stop = systems.ptr[index : index + 2].tolist()
            theirs, ours = atoms.copy(), atoms.copy()
            theirs.calc, ours.calc = calculator, MloptCalculator(potential)
            rows = {
                "energy": (
                    float(found.energy[index]),
                    ours.get_potential_energy(),
                    theirs.get_potential_energy(),
                ),
                "force": (found.force[start:stop].numpy(), ours.get_forces(), theirs.get_forces()),
            }
            if solid:
                rows["stress"] = (
                    found.stress[index].numpy(),
                    ours.get_stress(voigt=False),
                    theirs.get_stress(voigt=False),
                )
            for what, (batch, alone, reference) in rows.items():
                key = f"{what}, {name}"
                worst[key] = max(worst[key], relative(batch, reference), relative(alone, reference))


def compare_distances(
    images: list[Atoms], rng: np.random.Generator, worst: dict[str, float], n: int = 50
) -> None:
    """Lengths of shortest vectors between ``n`` pairs of points in the cell of each structure."""
    for atoms in images:
        # another choice of lattice vectors, further from orthogonal than usual: the same lattice, the same distances
        shear = np.eye(3) + np.triu(rng.integers(-2, 3, size=(3, 3)), 1) * np.outer(atoms.pbc, atoms.pbc)
        cell = shear @ atoms.cell.array
        a, b = rng.normal(size=(2, n, 3)) * 8.0
        theirs = np.linalg.norm(b - a, axis=1)
        if atoms.pbc.any():
            _, theirs = general_find_mic(b - a, cell * atoms.pbc[:, None], atoms.pbc)
        rows = torch.tensor(cell).repeat(n, 1, 1), torch.tensor(atoms.pbc).repeat(n, 1)
        ours = Flat(*rows).distance(torch.tensor(a), torch.tensor(b))
        worst["distance"] = max(worst["distance"], relative(ours, theirs))


def hop(kind: str, rng: np.random.Generator) -> tuple[Atoms, Atoms]:
    """Draw the ends of a hop: only the atom that hops, the last one, and one more are free."""
    a = rng.uniform(3.75, 4.0)
    if kind == "slab":
        base = fcc111("Cu", size=(2, 2, 2), a=a, vacuum=8.0)
        base.pbc = (True, True, False)
        corner = base.positions[base.positions[:, 2] > base.positions[:, 2].mean()][0]
        along = base.cell.array[:2] / 2.0
        sites = [corner + part * (along[0] + along[1]) + [0.0, 0.0, 0.5 * a] for part in (1 / 3, 2 / 3)]
    elif kind == "bulk":
        base = bulk("Cu", "fcc", a=a).repeat(2)
        base.set_cell(base.cell.array @ (np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))), scale_atoms=True)
        sites = [base.positions[0], base.positions[1]]
        base = base[2:]
    else:
        octahedron = 0.5 * a * np.concatenate([np.eye(3), -np.eye(3)])
        base = Atoms("Cu6", octahedron)
        sites = [0.5 * a * np.array([1.0, 1.0, sign]) for sign in (1.0, -1.0)]
    base.info.clear()  # fcc111 describes its sites there, which a file cannot hold
    base.rattle(0.05, rng=rng)
    ends = []
    symbols = species(rng, len(base) + 1)
    loose = int(rng.integers(len(base)))
    masses = rng.uniform(0.9, 1.1, len(base) + 1)
    for site in sites:
        atoms = base + Atoms("Cu", [site])
        atoms.set_chemical_symbols(symbols)
        atoms.set_masses(atoms.get_masses() * masses)
        atoms.set_constraint(FixAtoms([k for k in range(len(base)) if k != loose]))
        ends.append(atoms)
    return ends[0], ends[1]


def ase_band(ends: tuple[Atoms, Atoms], fmax: float = 3e-6) -> float | None:
    """Barrier of ASE's band, whose ends it relaxes in place; None where there is no such hop."""
    for atoms in ends:
        atoms.calc = EMT()
        if not ase.optimize.LBFGS(atoms, logfile=None).run(fmax=0.01 * fmax, steps=500):
            return None
    away = ends[1].positions[-1] - ends[0].positions[-1]
    if not 0.5 < np.linalg.norm(away) < 4.0:
        return None  # one end slid into the other, or away
    chain = [ends[0], *(ends[0].copy() for _ in range(IMAGES)), ends[1]]
    for atoms in chain[1:-1]:
        atoms.calc = EMT()
    NEB(chain, method="improvedtangent").interpolate(mic=True)
    for climb, until, steps in ((False, 0.05, 500), (True, fmax, 3000)):
        band = NEB(chain, k=SPRING, climb=climb, method="improvedtangent")
        if not ase.optimize.MDMin(band, dt=0.1, logfile=None).run(fmax=until, steps=steps):
            return None
    energies = [atoms.get_potential_energy() for atoms in chain]
    return max(energies) - energies[0] if max(energies) not in (energies[0], energies[-1]) else None


def ase_rate(run: PathRun, found: Any, ends: tuple[Atoms, Atoms]) -> float:
    """Vineyard's rate by `ase.vibrations`, at the minimum and the saddle of ``found``."""
    frequencies, energies = [], []
    for point in (found.path[0], found.saddle):
        atoms = ends[0].copy()
        atoms.positions[:] = point.numpy()
        atoms.calc = EMT()
        free = np.setdiff1d(np.arange(len(atoms)), atoms.constraints[0].index)
        with tempfile.TemporaryDirectory() as folder:
            vibrations = Vibrations(atoms, indices=free, name=f"{folder}/v", delta=DELTA, nfree=4)
            vibrations.run()
            found_here = vibrations.get_frequencies() * 100.0 * UNITS["_c"]  # 1/s
        frequencies.append(found_here)
        energies.append(atoms.get_potential_energy())
    real = [values[np.abs(values.imag) < np.abs(values.real)].real for values in frequencies]
    if len(real[0]) != len(frequencies[0]) or len(real[1]) != len(frequencies[1]) - 1:
        raise MloptError("these points are no minimum and no saddle of first order")
    prefactor = math.exp(np.log(real[0]).sum() - np.log(real[1]).sum())
    return prefactor * math.exp(-(energies[1] - energies[0]) / (UNITS["kB"] * TEMPERATURE))


def compare_hop(kind: str, rng: np.random.Generator, worst: dict[str, float], folder: Path) -> bool:
    """Barrier and rate of one hop; False where ASE found none."""
    ends = hop(kind, rng)
    barrier = ase_band(ends)
    if barrier is None:
        return False
    # extxyz keeps eight digits, and what the fixed atoms lose would show in the barrier
    files = [folder / f"{name}.traj" for name in ("initial", "final")]
    for file, atoms in zip(files, ends, strict=True):
        plain = atoms.copy()
        write(file, plain)
    run = PathRun(
        model=AtomsModel(system=SystemSpec(file=str(files[0])), potential=AsePotential(calculator="emt")),
        initial={"file": str(files[0])},
        final={"file": str(files[1])},
        ends=Ends(fmax=1e-7, align="none"),
        start=PathStart(way="straight"),
        band=BandSettings(images=IMAGES, spring=SPRING),
        optimizer=LBFGS(max_step=0.1),
        fmax=1e-6,
        climb_below=0.05,
        saddle=Saddle(modes=2, connect=False, temperature=TEMPERATURE),
    )
    found = run.run()
    worst["barrier, eV"] = max(worst["barrier, eV"], abs(found.barrier_forward - barrier))
    if not found.converged or found.rate is None:
        raise MloptError(f"{kind}: {found.headline}; {found.note}")
    ours, theirs = found.rate.at(TEMPERATURE), ase_rate(run, found, ends)
    worst["rate, relative"] = max(worst["rate, relative"], abs(ours / theirs - 1.0))
    return True


def main() -> int:
    """Print the table; 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structures", type=int, default=200)
    parser.add_argument("--hops", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(arguments.seed)
    worst: dict[str, float] = defaultdict(float)
    images = [structure(KINDS[k % len(KINDS)], rng) for k in range(arguments.structures)]
    compare_energies(images, worst)
    compare_distances(images, rng, worst)
    drawn = done = 0
    with tempfile.TemporaryDirectory() as folder:
        while done < arguments.hops:
            done += compare_hop(KINDS[done % len(KINDS)], rng, worst, Path(folder))
            drawn += 1
    print(f"{arguments.structures} structures, {done} hops of {drawn} drawn, seed {arguments.seed}\n")
    print("| what | largest difference | limit |\n|---|---|---|")
    for what, difference in worst.items():
        print(f"| {what} | {difference:.1e} | {LIMITS[what]:.0e} |")
    return int(any(not difference <= LIMITS[what] for what, difference in worst.items()))


if __name__ == "__main__":
    sys.exit(main())
