"""Learned optimizers against the best classical searches, at equal force calls: one table with 95% intervals.

    python benchmarks/contest.py [SYSTEM ...] [--starts 2000] [--force-calls 50000] [--threads 2] [--only TEXT]

SYSTEM: LJ13, LJ31, LJ38, LJ55, LJ75, LJ98, Au55; LJ13, LJ38, LJ55, LJ75 and Au55 if none is named. Every optimizer
meets the same starts, those of Learn2Hop; a start that hits ends there, for nothing is lower. Rows that are slow or hit
nothing, have fewer starts. At the end everyone gets the same descent (L-BFGS), and its calls are counted.
`basin hopping (paper)` is the baseline of Learn2Hop: 5,000 steps of Adam a hop, at zero temperature. The searches below
it are tuned: the best found of some ten settings for each system, see `benchmarks/first_encounter.py`. Prints Markdown.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import torch

from mlopt.core.plugins.plugin import build
from mlopt.optimizers.experiments.contest.experiment import Contest

LJ = "lennard-jones"
GOLD = {"name": "gupta", "preset": "au55-paper"}


@dataclass(frozen=True)
class System:
    """A cluster, its lowest known energy, and how many starts its row takes if nobody says."""

    cluster: str
    potential: Any
    target: float
    starts: int


SYSTEMS = {
    "LJ13": System("Ar13", LJ, -44.326801, 2000),
    "LJ31": System("Ar31", LJ, -133.586422, 500),
    "LJ38": System("Ar38", LJ, -173.928427, 2000),
    "LJ55": System("Ar55", LJ, -279.248470, 300),
    "LJ75": System("Ar75", LJ, -397.492331, 150),
    "LJ98": System("Ar98", LJ, -543.665361, 100),
    "Au55": System("Au55", GOLD, -181.889486, 150),
}
STANDARD = ("LJ13", "LJ38", "LJ55", "LJ75", "Au55")


#: weights, and what is set otherwise than in their training
HOPS: dict[str, dict[str, Any]] = {
    "hop-lj38": {"weights": "hop-lj38"},
    "hop-lj": {"weights": "hop-lj"},
    "hop-au55, tolerance 0.01": {"weights": "hop-au55", "quench_tolerance": 0.01},
}


def one_of(temperature: float, tolerance: float, **shares: dict[str, Any]) -> dict[str, Any]:
    """Basin hopping with one move a hop."""
    moves = [{"name": name, **settings} for name, settings in shares.items()]
    return {"name": "basin-hopping", "temperature": temperature, "quench_tolerance": tolerance, "combine": "one",
            "moves": moves}  # fmt: skip


def contestants(name: str) -> list[tuple[str, Any, int]]:
    """Label, optimizer, and by how much its starts are fewer: intervals are wide enough where nothing is hit."""
    paper = {
        "name": "basin-hopping", "temperature": 0.0, "quench": {"name": "adam", "step_size": 0.01},
        "quench_calls": 5000, "quench_tolerance": 0.0,
        "moves": [{"name": "displacement", "step": 0.2, "distribution": "normal"}],
    }  # fmt: skip
    plain: Any = "basin-hopping"
    clever = one_of(
        0.8, 0.03, displacement={"probability": 0.1, "step": 0.3}, symmetrise={"probability": 0.9}
    )
    if name in ("LJ75", "LJ98"):
        clever = one_of(0.8, 0.01, displacement={"probability": 0.3}, symmetrise={"probability": 0.5},
                        surface={"probability": 0.2})  # fmt: skip
    if name == "Au55":
        plain = {"name": "basin-hopping", "temperature": 0.25, "quench_tolerance": 0.03,
                 "moves": [{"name": "displacement", "step": 0.264}, "angular"]}  # fmt: skip
        clever = one_of(
            0.25, 0.03, displacement={"probability": 0.6, "step": 0.264}, surface={"probability": 0.4}
        )
    return [
        ("Adam", {"name": "adam", "step_size": 0.01}, 4),
        ("FIRE", "fire", 4),
        ("basin hopping (paper)", paper, 4),
        ("learned (lj-small)", {"name": "learned", "weights": "lj-small"}, 16 if name == "LJ38" else 4),
        ("basin hopping, L-BFGS", plain, 1),
        ("basin hopping, L-BFGS, " + ("surface" if name == "Au55" else "symmetrised"), clever, 1),
        *((f"learned-hopping ({one})", {"name": "learned-hopping", **hop}, 1) for one, hop in HOPS.items()),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument("--starts", type=int, help="instead of each system's own number")
    parser.add_argument("--force-calls", type=int, default=50_000, help="of each start")
    parser.add_argument("--only", help="rows whose optimizer has this in its name")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.systems if name not in SYSTEMS]
    if unknown:
        parser.error(f"unknown system {unknown[0]}; there are {', '.join(SYSTEMS)}")
    torch.set_num_threads(arguments.threads)
    heads = [
        "system",
        "optimizer",
        "starts",
        "hits",
        "calls to a hit",
        "mean",
        "lowest",
        "million calls",
        "s",
    ]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for name in arguments.systems or STANDARD:
        system = SYSTEMS[name]
        for label, optimizer, fewer in contestants(name):
            if arguments.only and arguments.only not in label:
                continue
            settings = {
                "systems": [
                    {"system": {"cluster": system.cluster}, "potential": system.potential, "target": system.target,
                     "start": {"name": "harmonic", "edge": 4.0 if name == "Au55" else 2.0}}
                ],
                "contestants": [{"label": label, "optimizer": optimizer}],
                "starts": arguments.starts or system.starts // fewer,
                "force_calls": arguments.force_calls,
                "seed": arguments.seed,
            }  # fmt: skip
            print(line(name, build(Contest, settings).run().rows[0]), flush=True)


def line(name: str, row: dict[str, Any]) -> str:
    """A row in Markdown."""
    share = f"{row['hit_rate']:.1%} [{row['hit_rate_low']:.1%}, {row['hit_rate_high']:.1%}]"
    if row["calls_to_hit"] is None:
        cost = f"> {row['calls_to_hit_low']:,.0f}"
    else:
        cost = f"{row['calls_to_hit']:,.0f} [{row['calls_to_hit_low']:,.0f}, {row['calls_to_hit_high']:,.0f}]"
    mean = f"{row['mean']:.3f} ± {1.96 * (row['mean_error'] or 0.0):.3f}"
    cells = [name, row["optimizer"], row["runs"], share, cost, mean, f"{row['min']:.6f}"]
    return (
        "| "
        + " | ".join(map(str, [*cells, f"{row['force_calls'] / 1e6:.1f}", f"{row['wall_s']:.0f}"]))
        + " |"
    )


if __name__ == "__main__":
    main()
