"""Paths beside ASE and Spirit: evaluations of images until the same threshold, and many bands at once.

    python benchmarks/paths.py pt --data FOLDER     # a platinum heptamer slides; eOn's endpoints (BSD-3), beside ASE
    python benchmarks/paths.py skyrmion             # the collapse of Spirit's regression test, by several optimizers
    python benchmarks/paths.py batch                # 64 bands in one batch beside one after another

FOLDER has `pt_heptamer_slide_reactant.con` and `..._product.con` (github.com/TheochemUI/eOn). Evaluations are those of
moving images while the band relaxes, in all programs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from mlopt.core import minimize
from mlopt.core.batch.random import problem_keys
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers import LBFGS, Fire, VelocityProjection
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.initial import geodesic, perturb
from mlopt.optimizers.bands.settings import BandSettings, PathStart, Saddle
from mlopt.optimizers.experiments.path.experiment import Path as PathRun
from mlopt.potentials import Morse
from mlopt.potentials.ase.calculator import MloptCalculator
from mlopt.potentials.models.atoms import AtomsModel
from mlopt.potentials.models.surfaces import MullerBrown
from mlopt.potentials.spins import Heisenberg, SpinLattice

PT = Morse(epsilon=0.7102, rho0=1.6047 * 2.8970, r0=2.8970, cutoff=9.5)


class Counted(MloptCalculator):
    """Counts what it computes."""

    calls = 0

    def calculate(self, *arguments: Any, **named: Any) -> None:
        """As the parent; ASE calls it only for positions that are new."""
        self.calls += 1
        super().calculate(*arguments, **named)


def platinum(folder: Path) -> None:
    """Ours and ASE's optimizers, with 5 and with 3 images."""
    ends = [folder / f"pt_heptamer_slide_{name}.con" for name in ("reactant", "product")]
    model = AtomsModel(system=SystemSpec(file=str(ends[0])), potential=PT)
    print("| program | images | fmax, eV/angstrom | force calls | barriers, eV |\n|---|---|---|---|---|")
    for images in (5, 3):
        for fmax in (0.01, 0.001):
            found = PathRun(
                model=model,
                initial={"file": str(ends[0])},
                final={"file": str(ends[1])},
                band=BandSettings(images=images, spring=0.1),
                optimizer=LBFGS(max_step=0.2),
                fmax=fmax,
                climb_below=0.5,
                saddle=Saddle(modes=0, connect=False),
            ).run()
            row(
                "mlopt, L-BFGS",
                images,
                fmax,
                found.gradient_evaluations,
                found.barrier_forward,
                found.barrier_reverse,
            )
            for name in ("FIRE", "LBFGS"):
                row(f"ASE, {name}", images, fmax, *ase_neb(ends, images, fmax, name))


def row(name: str, images: int, fmax: float, calls: int, forward: float, back: float) -> None:
    """Of the table."""
    print(f"| {name} | {images} | {fmax} | {calls} | {forward:.5f}, {back:.5f} |", flush=True)


def ase_neb(ends: list[Path], images: int, fmax: float, name: str) -> tuple[int, float, float]:
    """ASE's band: improved tangent, climbing image, the same potential; force calls of moving images, and barriers."""
    import ase.optimize
    from ase.mep import NEB

    from mlopt.core.structures.read import read_atoms

    first, last = (read_atoms(one)[0] for one in ends)
    chain = [first, *(first.copy() for _ in range(images)), last]
    counters = []
    for atoms in chain:
        counters.append(Counted(PT))
        atoms.calc = counters[-1]
    for atoms in (first, last):
        ase.optimize.LBFGS(atoms, logfile=None).run(fmax=0.1 * fmax)
    band = NEB(chain, k=0.1, climb=True, method="improvedtangent")
    band.interpolate(mic=True)
    before = sum(one.calls for one in counters[1:-1])
    getattr(ase.optimize, name)(band, logfile=None).run(fmax=fmax, steps=2000)
    calls = sum(one.calls for one in counters[1:-1]) - before
    energies = [atoms.get_potential_energy() for atoms in chain]
    return calls, max(energies) - energies[0], max(energies) - energies[-1]


def film() -> Heisenberg:
    """Spirit's."""
    lattice = SpinLattice(kind="cubic", repeat=[16, 16, 1], periodic=[True, True, False], moments=[2.0])
    return Heisenberg(lattice=lattice, exchange=[10.0], dmi=[6.0], field=[0.0, 0.0, 25.0])


def skyrmion() -> None:
    """Evaluations until the largest torque is 1e-6 meV."""
    print("| optimizer | evaluations of images | barrier, meV |\n|---|---|---|")
    optimizers = {
        "L-BFGS, memory 3, steps to pi/200 (as Spirit)": LBFGS(memory=3, max_step=torch.pi / 200),
        "L-BFGS, memory 3, steps to 0.05": LBFGS(memory=3, max_step=0.05),
        "L-BFGS, memory 8, steps to 0.05": LBFGS(memory=8, max_step=0.05),
        "velocity projection, dt 0.05": VelocityProjection(dt=0.05),
        "FIRE": Fire(dt=0.05, dt_max=0.2, max_step=0.05),
    }
    for name, optimizer in optimizers.items():
        found = PathRun(
            model=film(),
            initial={"kind": "skyrmion", "radius": 3.0, "helicity": 90.0},
            final={"kind": "ferromagnet"},
            start=PathStart(axis=[1.0, 0.0, 0.0]),
            band=BandSettings(images=7),
            optimizer=optimizer,
            fmax=1e-6,
            climb_below=0.05,
            evaluations=20_000,
            saddle=Saddle(modes=0, connect=False),
        ).run()
        short = "" if found.converged else " (not converged)"
        print(f"| {name} | {found.gradient_evaluations}{short} | {found.barrier_forward:.6f} |", flush=True)


def batch(count: int = 64) -> None:
    """Skyrmions that collapse, and paths over the surface of Müller and Brown, each disturbed in its own way."""
    model, surface = film(), MullerBrown()
    start = minimize(
        model.landscape(),
        LBFGS(),
        model.state({"kind": "skyrmion", "radius": 3.0, "helicity": 90.0}),
        fmax=1e-8,
    ).x
    near, far = (
        minimize(surface.landscape(), LBFGS(scale=5e-4), surface.state({"name": name}), fmax=1e-8).x
        for name in "AI"
    )
    quench = LBFGS(max_step=0.05, scale=5e-4)
    compare(
        "256 spins",
        count,
        model,
        start,
        model.state({"kind": "ferromagnet"}),
        LBFGS(max_step=0.05),
        1.0,
        1e-4,
    )
    compare("2 coordinates", count, surface, near, far, quench, 500.0, 1e-4)


def compare(
    what: str,
    count: int,
    model: Any,
    start: torch.Tensor,
    end: torch.Tensor,
    optimizer: Any,
    spring: float,
    fmax: float,
) -> None:
    """All bands in one batch, and one after another: seconds, and whether the bits are the same."""
    keys = problem_keys(0, torch.arange(count))

    def relax(chosen: torch.Tensor) -> Any:
        n = len(chosen)
        band = Band(model.landscape(n), start.repeat(n, 1), end.repeat(n, 1), 7, spring=spring)
        x = perturb(band, geodesic(band, [1.0, 0.0, 0.0]), keys[chosen], 0.02)
        return minimize(band, optimizer, x, fmax=fmax, force_calls=500, engine="eager")

    began = time.perf_counter()
    many = relax(torch.arange(count))
    together = time.perf_counter() - began
    began = time.perf_counter()
    alone = [relax(torch.tensor([k])) for k in range(count)]
    apart = time.perf_counter() - began
    same = torch.equal(many.x, torch.cat([one.x for one in alone]))
    print(
        f"{count} bands of 7 images of {what}, {int(many.calls.sum())} band evaluations: {together:.2f} s in one "
        f"batch, {apart:.2f} s one after another ({apart / together:.2f} x); bit for bit the same: {same}",
        flush=True,
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("pt", "skyrmion", "batch"))
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.what == "pt":
        platinum(arguments.data)
    elif arguments.what == "skyrmion":
        skyrmion()
    else:
        batch()


if __name__ == "__main__":
    main()
