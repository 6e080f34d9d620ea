"""The picture of the README: how many of 500 starts have found the global minimum of LJ38 after so many force calls.

    python benchmarks/success_curve.py [--starts 500] [--out docs/pictures/lj38.svg]

Three searches from the same starts: one learned (weights `hop-lj38`), the best one tuned by hand, and plain basin
hopping. A start that hits ends there. Bands are 95 % Wilson intervals.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from mlopt.core.plugins.plugin import build
from mlopt.core.reporting.drawing import pyplot, save
from mlopt.core.reporting.statistics import wilson
from mlopt.optimizers.experiments.search.experiment import Search

CALLS = 50_000
SEARCHES: dict[str, tuple[str, Any]] = {
    "learned hops": ("#b4472e", {"name": "learned-hopping", "weights": "hop-lj38"}),
    "tuned by hand: symmetrising moves": (
        "#2e6f95",
        {
            "name": "basin-hopping",
            "temperature": 0.8,
            "quench_tolerance": 0.03,
            "combine": "one",
            "moves": [
                {"name": "displacement", "probability": 0.1, "step": 0.3},
                {"name": "symmetrise", "probability": 0.9},
            ],
        },
    ),
    "plain basin hopping": ("#777777", {"name": "basin-hopping", "temperature": 0.8}),
}


def first_hits(optimizer: Any, starts: int) -> list[int | None]:
    """Force calls until each start has hit; None where it has not."""
    settings = {
        "system": {"cluster": "Ar38"},
        "potential": "lennard-jones",
        "optimizer": optimizer,
        "start": {"name": "harmonic", "edge": 2.0},
        "starts": starts,
        "budget": {"force_calls": CALLS},
        "target": {"energy": -173.928427, "stop": "start"},
    }
    return build(Search, settings).run().first_hits


def main() -> None:
    """Draw the curves, and print where they end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/lj38.svg"))
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
    calls = [CALLS * k // 100 for k in range(101)]
    for label, (colour, optimizer) in SEARCHES.items():
        hits = first_hits(optimizer, arguments.starts)
        shares = [wilson(sum(hit is not None and hit <= limit for hit in hits), len(hits)) for limit in calls]
        axes.fill_between(
            calls,
            [100 * one.low for one in shares],
            [100 * one.high for one in shares],
            color=colour,
            alpha=0.2,
            lw=0,
        )
        axes.plot(calls, [100 * one.mean for one in shares], color=colour, lw=2, label=label)
        last = shares[-1]
        print(
            f"{label}: {last.mean:.1%} [{last.low:.1%}, {last.high:.1%}] of {len(hits)} starts in {CALLS:,} calls"
        )
    axes.set(
        xlim=(0, CALLS), ylim=(0, 100), xlabel="force calls of a start", ylabel="starts at the minimum, %"
    )
    axes.set_title("38 Lennard-Jones atoms from random starts", loc="left")
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{int(value):,}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save(figure, arguments.out)


if __name__ == "__main__":
    main()
