"""Force calls and seconds to the first hit of hard global minima, with 95% intervals; one row for each set of moves.

    python benchmarks/first_encounter.py [SYSTEM ...] [--threads 2] [--seed 0]
    python benchmarks/first_encounter.py --fixed Au55 Si64 Si64-paper     # 50,000 calls a start: means beside a paper's

SYSTEM: LJ38, LJ75, LJ98, Au55, Si64, Si64-paper; all of them if none is named. Starts are random, and stop at the
target or at their budget; the mean is all calls spent divided by hits. Seconds are wall time of all starts side by side
on that many threads, after compilation, divided by hits. Prints Markdown.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import torch

from mlopt.core import AtomsLandscape, Stop, Systems
from mlopt.core.batch.random import Stream, derive, problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.reporting.statistics import mean_calls_to_hit, wilson
from mlopt.optimizers import (
    Angular,
    BasinHopping,
    BoxStart,
    Displacement,
    SphereStart,
    Surface,
    Symmetrise,
    Twist,
)
from mlopt.potentials import Gupta, LennardJones, StillingerWeber

SI_EDGE = 10.86


@dataclass(frozen=True)
class Case:
    """A system, its global minimum (or the lowest known), and what the searches of it are called."""

    n: int
    z: int
    potential: Any
    target: float
    starts: int
    budget: int
    searches: dict[str, BasinHopping]
    tolerance: float = 1e-3
    edge: float | None = None

    def systems(self, starts: int) -> Systems:
        """Without positions yet."""
        if self.edge is None:
            return Systems.cluster([self.z] * self.n, starts)
        from ase import Atoms

        return Systems.from_atoms([Atoms([self.z] * self.n, cell=[self.edge] * 3, pbc=True)]).repeat(starts)

    def begin(self, systems: Systems, keys: torch.Tensor) -> tuple[AtomsLandscape, torch.Tensor]:
        """Random positions: in a ball, or anywhere in the cell."""
        landscape = AtomsLandscape(systems, self.potential)
        start = SphereStart() if self.edge is None else BoxStart()
        return landscape, start.sample(systems, landscape.diameter, derive(keys, Stream.START))


def one_of(temperature: float, **shares: float) -> BasinHopping:
    """One move a hop, with these shares."""
    known = {"displace": Displacement, "symmetrise": Symmetrise, "surface": Surface, "twist": Twist}
    moves = [known[name](probability=share) for name, share in shares.items()]
    return BasinHopping(temperature=temperature, moves=moves, combine="one")


def silicon(preset: str, target: float) -> Case:
    """64 atoms in the cell of the crystal."""
    searches = {
        f"displacement {step}, T {t} eV": BasinHopping(
            temperature=t, moves=[Displacement(step=step)], quench_calls=500
        )
        for t, step in ((0.2, 0.2), (0.5, 0.36))
    }
    return Case(64, 14, StillingerWeber(preset=preset), target, 100, 200_000, searches, 1e-2, SI_EDGE)  # type: ignore[arg-type]


CASES = {
    "LJ38": Case(
        38,
        18,
        LennardJones(),
        -173.928427,
        100,
        4_000_000,
        {
            "displacement, angular (no symmetry)": BasinHopping(),
            "+ 30 % surface": one_of(0.8, displace=0.7, surface=0.3),
            "+ 30 % twist": one_of(0.8, displace=0.7, twist=0.3),
            "half displacement, half symmetrise": one_of(0.8, displace=0.5, symmetrise=0.5),
            "20 % displacement, 80 % symmetrise": one_of(0.8, displace=0.2, symmetrise=0.8),
            "10 % short displacement, 90 % symmetrise, loose quench": BasinHopping(
                moves=[Displacement(step=0.3, probability=0.1), Symmetrise(probability=0.9)],
                combine="one",
                quench_tolerance=0.03,
            ),
        },
    ),
    "LJ75": Case(
        75,
        18,
        LennardJones(),
        -397.492331,
        48,
        4_000_000,
        {
            "20 % displacement, 80 % symmetrise": one_of(0.8, displace=0.2, symmetrise=0.8),
            "20 % displacement, 40 % symmetrise, 40 % surface": one_of(
                0.8, displace=0.2, symmetrise=0.4, surface=0.4
            ),
        },
    ),
    "LJ98": Case(
        98,
        18,
        LennardJones(),
        -543.665361,
        48,
        1_500_000,
        {
            "20 % displacement, 60 % symmetrise, 20 % surface, T 1.5": one_of(
                1.5, displace=0.2, symmetrise=0.6, surface=0.2
            ),
        },
    ),
    "Au55": Case(
        55,
        79,
        Gupta(preset="au55-paper"),
        -181.889486,
        100,
        500_000,
        {
            "displacement, angular": BasinHopping(
                temperature=0.25, moves=[Displacement(step=0.264), Angular()], quench_tolerance=0.03
            ),
            "60 % displacement, 40 % surface": BasinHopping(
                temperature=0.25,
                moves=[Displacement(step=0.264, probability=0.6), Surface(probability=0.4)],
                combine="one",
                quench_tolerance=0.03,
            ),
        },
    ),
    "Si64": silicon("lammps", -277.542400),
    "Si64-paper": silicon("paper", -277.196684),
}


def search(
    case: Case, optimizer: BasinHopping, starts: int, budget: int, seed: int, on_target: str
) -> tuple[Any, float]:
    """All starts side by side: what became of them, and the seconds that took once compiled."""
    for count, calls in ((1, 2), (starts, budget)):  # the first compiles
        keys = problem_keys(seed, torch.arange(count))
        landscape, x = case.begin(case.systems(count), keys)
        stop = Stop(calls, target=case.target, target_tolerance=case.tolerance, on_target=on_target)  # type: ignore[arg-type]
        driver = Driver(landscape, optimizer, stop, keep=1, engine="fused")
        progress = driver.begin(x, keys)
        began = time.perf_counter()
        progress = driver.advance(progress)
    return progress.outcome, time.perf_counter() - began


def first_hits(name: str, arguments: argparse.Namespace) -> None:
    """A row for each set of moves."""
    case = CASES[name]
    starts, budget = arguments.starts or case.starts, arguments.force_calls or case.budget
    for label, optimizer in case.searches.items():
        if arguments.moves and arguments.moves not in label:
            continue
        outcome, seconds = search(case, optimizer, starts, budget, arguments.seed, "stop-start")
        hits = [None if hit < 0 else hit for hit in outcome.tally.first_hit.tolist()]
        calls = outcome.calls.tolist()
        count = sum(hit is not None for hit in hits)
        mean = mean_calls_to_hit(hits, calls)
        each = f"{seconds / count:.2f}" if count else f"> {seconds:.0f}"
        print(
            f"| {name} | {label} | {count} of {starts} | {mean.mean:,.0f} [{mean.low:,.0f}, {mean.high:,.0f}] | "
            f"{each} | {float(outcome.tally.energy.mean()):.3f} | {float(outcome.tally.energy.min()):.6f} | "
            f"{seconds / sum(calls) * 1e6:.2f} |",
            flush=True,
        )


def fixed(name: str, arguments: argparse.Namespace) -> None:
    """A row for each set of moves, after the same force calls for every start."""
    case = CASES[name]
    starts, budget = arguments.starts or 150, arguments.force_calls or 50_000
    for label, optimizer in case.searches.items():
        if arguments.moves and arguments.moves not in label:
            continue
        outcome, seconds = search(case, optimizer, starts, budget, arguments.seed, "continue")
        energy = outcome.tally.energy
        rate = wilson(int((outcome.tally.first_hit >= 0).sum()), starts)
        error = float(energy.std()) / starts**0.5
        print(
            f"| {name} | {label} | {float(energy.mean()):.3f} ± {error:.3f} | {float(energy.min()):.6f} | "
            f"{rate.mean:.1%} [{rate.low:.1%}, {rate.high:.1%}] | {seconds:.0f} |",
            flush=True,
        )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=", ".join(CASES))
    parser.add_argument("--fixed", action="store_true", help="all starts use the same force calls")
    parser.add_argument("--starts", type=int, help="instead of each system's own number")
    parser.add_argument("--force-calls", type=int, help="of each start")
    parser.add_argument("--moves", help="only rows whose name has this in it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.systems if name not in CASES]
    if unknown:
        parser.error(f"unknown system {unknown[0]}; there are {', '.join(CASES)}")
    torch.set_num_threads(arguments.threads)
    if arguments.fixed:
        head = ["system", "moves", "mean energy", "lowest", "hits", "seconds"]
    else:
        head = [
            "system",
            "moves",
            "hits",
            "calls to first hit",
            "seconds",
            "mean best",
            "lowest",
            "us a call",
        ]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name in arguments.systems or CASES:
        (fixed if arguments.fixed else first_hits)(name, arguments)


if __name__ == "__main__":
    main()
