"""Count the minima that relaxations on a potential learned on the way find again.

    python benchmarks/active_relax.py [--of au13 cu13 si66] [--starts 60] [--seeds 5] [--optimizer lbfgs]

The test of Podryabinkin & Shapeev, Comput. Mater. Sci. 140, 171 (2017). Minima are those that a search on the true
potential finds, the lowest first: of a cluster, and of silicon with two atoms too many. Each is shaken, by a normal
displacement of so many angstrom. The references are the ends of relaxations with the true potential, one start for
each distinct end. `active` relaxes the same starts on one potential, begun from labels of a few of them.

A reference is found where an end is the same structure and has its energy by the true potential, within 5 meV. Ends are
counted as they are, and after a further relaxation with the true potential. What another optimizer finds with the true
potential from the same starts is printed as well: it tells how many starts are near a divide.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from ase import Atoms
from pydantic import PrivateAttr

from mlopt.core import AtomsLandscape, Systems, minimize, problem_keys
from mlopt.core.atoms.elements import parse_formula
from mlopt.core.batch.random import Draws
from mlopt.core.landscapes.potential import Potential
from mlopt.core.minima.arrays import StructureArrays
from mlopt.core.minima.matching import same_structure
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.protocols.start import StartSampler
from mlopt.core.structures import SystemSpec
from mlopt.core.structures.crystal import Crystal
from mlopt.core.structures.write import write_extxyz
from mlopt.optimizers import LBFGS, BasinHopping, Fire
from mlopt.optimizers.experiments.active import Active, Asking, Beginning
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.optimizers.starts import HarmonicStart
from mlopt.potentials import AsePotential, Gupta, Mtp, StillingerWeber

OPTIMIZERS: dict[str, Optimizer] = {"lbfgs": LBFGS(), "fire": Fire()}
#: energies of one minimum agree within this, eV; atoms within this, angstrom
WITHIN, APART = 5e-3, 0.2
CALLS = 3000


@dataclass(frozen=True)
class Ends:
    """Structures with their energies and largest forces by the true potential, and the calls that they took."""

    systems: Systems
    energy: torch.Tensor
    fmax: torch.Tensor
    calls: int

    @classmethod
    def at(cls, true: Potential, systems: Systems) -> Ends:
        """Evaluate structures."""
        found = true.evaluate(systems)
        return cls(systems, found.energy, systems.segments.longest2(found.force).sqrt(), 0)

    def arrays(self) -> list[StructureArrays]:
        """Return what comparisons read."""
        return [StructureArrays.of(self.systems[place], float(one)) for place, one in enumerate(self.energy)]

    def distinct(self) -> list[int]:
        """Return the places of one of each minimum, the lowest first."""
        arrays, kept = self.arrays(), list[int]()
        for place in torch.argsort(self.energy, stable=True).tolist():
            sound = bool(torch.isfinite(self.energy[place])) and float(self.fmax[place]) < 0.1
            near = (one for one in kept if abs(arrays[one].energy - arrays[place].energy) <= WITHIN)
            if sound and not any(same_structure(arrays[one], arrays[place], WITHIN, APART) for one in near):
                kept.append(place)
        return kept


def relaxed(
    true: Potential, systems: Systems, fmax: float = 1e-3, optimizer: Optimizer = OPTIMIZERS["lbfgs"]
) -> Ends:
    """Relax with the true potential."""
    found = minimize(AtomsLandscape(systems, true), optimizer, systems.pos, force_calls=CALLS, fmax=fmax)
    return Ends(systems.with_pos(found.x), found.energy, found.fmax, int(found.calls.sum()))


@dataclass(frozen=True)
class Case:
    """A system with its true potential, and the basis that is fitted."""

    true: Potential
    basis: Mtp
    formula: str | None = None

    def empty(self, count: int) -> Systems:
        """Return systems of which searches begin."""
        if self.formula is not None:
            return Systems.cluster(parse_formula(self.formula)).repeat(count)
        crystal = Crystal(element="Si", repeat=[2, 2, 2]).load().to_atoms()[0]
        generator = np.random.default_rng(0)
        found = []
        for _ in range(count):
            more = crystal.copy()
            more.extend(Atoms("Si2"))
            more.positions[-2:] = generator.uniform(size=(2, 3)) @ crystal.cell.array
            found.append(Systems.from_atoms(more))
        return Systems.concatenate(found)

    def minima(self, most: int) -> Systems:
        """Return the lowest distinct minima of a search, the lowest first."""
        if self.formula is not None:
            systems = self.empty(8)
            x = HarmonicStart().sample(
                systems, self.basis.diameter(systems.z), problem_keys(0, torch.arange(8))
            )
            landscape = AtomsLandscape(systems, self.true)
            result = minimize(
                landscape, BasinHopping(temperature=0.8), x, force_calls=100 * most, keep=4 * most
            )
            n, keep = result.pool_energy.shape
            pos = result.pool_x.reshape(n, -1, keep, 3).transpose(1, 2).flatten(0, 1)
            pos = pos[torch.isfinite(result.pool_energy.flatten())]
            found = self.empty(len(pos)).with_pos(pos.reshape(-1, 3))
        else:
            found = self.empty(4 * most)
        ends = relaxed(self.true, found)
        return ends.systems.select(ends.distinct()[:most])


CASES = {
    "au13": Case(Gupta(), Mtp(level=16, cutoff=6.0), "Au13"),
    "cu13": Case(AsePotential(calculator="emt"), Mtp(level=16, cutoff=6.0), "Cu13"),
    "si66": Case(StillingerWeber(), Mtp(level=16, cutoff=4.5)),
}


class Listed(StartSampler):
    """The first of given positions, whatever the key."""

    _pos: Any = PrivateAttr()

    def draw(self, systems: Systems, diameter: torch.Tensor, draws: Draws) -> torch.Tensor:
        """See `StartSampler.draw`."""
        found: torch.Tensor = self._pos[: len(systems.pos)]
        return found


def starts(case: Case, count: int, shake: float) -> tuple[Systems, Ends]:
    """Return starts that relax to distinct minima with the true potential, and these minima, the lowest first."""
    minima = case.minima(2 * count)
    noise = torch.from_numpy(np.random.default_rng(1).normal(scale=shake, size=tuple(minima.pos.shape)))
    shaken = minima.with_pos(minima.pos + noise)
    ends = relaxed(case.true, shaken)
    kept = ends.distinct()[:count]
    there = shaken.select(kept)
    return there, relaxed(case.true, there)  # once more, for the calls of these alone


def learned(case: Case, there: Systems, settings: argparse.Namespace, seed: int) -> tuple[Ends, int]:
    """Relax on one learned potential; return the ends and the number of labels."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(there)))
    listed = Listed()
    listed._pos = there.select(order).pos
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "first.extxyz"
        write_extxyz(file, there[0].to_atoms())
        found = Active(
            system=SystemSpec(file=str(file)),
            potential=case.basis,
            labeller=PotentialLabeller(potential=case.true),
            optimizer=OPTIMIZERS[settings.optimizer],
            start=listed,
            walkers=len(there),
            force_calls=CALLS,
            fmax=settings.fmax,
            begin=Beginning(structures=min(settings.begin, len(there))),
            asking=Asking(save=settings.save, stop=settings.stop, ends=settings.ends),
            labels=settings.labels,
            seed=seed,
        ).run()
    for line in found.warnings:
        print(f"    {line}")
    return Ends.at(case.true, found.found.select(torch.argsort(order))), len(found.record.labels)


def found_again(references: Ends, ends: Ends) -> list[int]:
    """Return the places of references that are among the ends."""
    ours = ends.arrays()
    return [
        place
        for place, one in enumerate(references.arrays())
        if any(same_structure(one, other, WITHIN, APART) for other in ours)
    ]


def told(references: Ends, ends: Ends) -> str:
    """Return how many of the references are found."""
    places = found_again(references, ends)
    ours, theirs = ends.arrays(), references.arrays()
    own = sum(same_structure(a, b, WITHIN, APART) for a, b in zip(theirs, ours, strict=True))
    return f"{len(places)} of {len(theirs)} found ({own} from their own start)"


def main() -> None:
    """Print a block for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--of", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--starts", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shake", type=float, default=0.2, help="standard deviation, angstrom")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="lbfgs")
    parser.add_argument("--fmax", type=float, default=1e-2, help="of the learned potential, eV/angstrom")
    parser.add_argument("--begin", type=int, default=8, help="starts that are labelled first")
    parser.add_argument("--labels", type=int, default=1000, help="at most")
    parser.add_argument("--save", type=float, default=2.0)
    parser.add_argument("--stop", type=float, default=10.0)
    parser.add_argument("--ends", action=argparse.BooleanOptionalAction, default=True, help="label ends")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    for name in settings.of:
        case = CASES[name]
        there, references = starts(case, settings.starts, settings.shake)
        spread = references.energy - references.energy.min()
        print(
            f"{name}: {len(there)} starts, whose minima lie up to {float(spread.max()):.3f} eV above the lowest, "
            f"{float(references.energy.min()):.6f} eV; lbfgs with the true potential: {references.calls:,} calls"
        )
        for other in OPTIMIZERS:
            ends = relaxed(case.true, there, settings.fmax, OPTIMIZERS[other])
            print(f"  {other} with the true potential: {told(references, ends)}, {ends.calls:,} calls")
        for seed in range(settings.seeds):
            ends, labels = learned(case, there, settings, seed)
            after = relaxed(case.true, ends.systems)
            forces = ends.fmax.sort().values
            print(
                f"  seed {seed}: {labels} labels; {told(references, ends)}; largest true forces at the ends: median "
                f"{float(forces.median()):.3f}, largest {float(forces[-1]):.3f} eV/angstrom; after {after.calls:,} "
                f"more calls {told(references, after)}",
                flush=True,
            )
            for place in sorted(set(range(len(there))) - set(found_again(references, after))):
                print(
                    f"    not found: number {place}, {float(references.energy[place]):.4f} eV; its start led to "
                    f"{float(after.energy[place]):.4f} eV"
                )


if __name__ == "__main__":
    main()
