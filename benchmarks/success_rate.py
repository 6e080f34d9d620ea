"""How often basin hopping finds a Lennard-Jones global minimum within a budget, with 95% intervals.

python benchmarks/success_rate.py 38 --starts 150 --force-calls 50000 [--temperature 0.8] [--step 0.36]
"""

from __future__ import annotations

import argparse

from mlopt.core.reporting.statistics import mean_calls_to_hit, wilson
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers import Angular, BasinHopping, Displacement
from mlopt.optimizers.experiments.search.experiment import Search
from mlopt.optimizers.searches.settings import Budget, Target
from mlopt.potentials import LennardJones

TARGETS = {
    13: -44.326801,
    19: -72.659782,
    31: -133.586422,
    38: -173.928427,
    55: -279.248470,
    75: -397.492331,
    98: -543.665361,
}


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", type=int, choices=TARGETS)
    parser.add_argument("--starts", type=int, default=150)
    parser.add_argument("--force-calls", type=int, default=50_000)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--step", type=float, default=Displacement().step)
    parser.add_argument("--quench-tolerance", type=float, default=BasinHopping().quench_tolerance)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    search = Search(
        system=SystemSpec(cluster=f"Ar{arguments.size}"),
        potential=LennardJones(),
        optimizer=BasinHopping(
            temperature=arguments.temperature,
            moves=[Displacement(step=arguments.step), Angular()],
            quench_tolerance=arguments.quench_tolerance,
        ),
        starts=arguments.starts,
        budget=Budget(force_calls=arguments.force_calls),
        target=Target(energy=TARGETS[arguments.size], stop="never"),
        seed=arguments.seed,
    )
    found = search.run()
    hits = sum(hit is not None for hit in found.first_hits)
    rate, mean = (
        wilson(hits, arguments.starts),
        mean_calls_to_hit(found.first_hits, found.result.calls.tolist()),
    )
    energies = found.polished.energy
    quench = float(found.result.calls.sum()) / max(1, int(found.result.quenches.sum()))
    print(
        f"LJ{arguments.size} T={arguments.temperature} step={arguments.step}: {hits} of {arguments.starts} hit within "
        f"{arguments.force_calls:,} calls = {rate.mean:.1%} [{rate.low:.1%}, {rate.high:.1%}]; "
        f"mean calls to first hit {mean.mean:,.0f} [{mean.low:,.0f}, {mean.high:,.0f}]; "
        f"mean best {float(energies.mean()):.4f}, best {float(energies.min()):.6f}; "
        f"{quench:.0f} calls a quench; {found.wall_s:.0f} s"
    )


if __name__ == "__main__":
    main()
