"""The baselines of Learn2Hop's Table 2 on LJ13, as recipes: 150 starts, 50,000 steps, then 1,000 of gradient descent.

    python benchmarks/paper_baselines.py

The last row is what the paper's comparison left out: basin hopping with an L-BFGS quench, at the same force calls.
The paper's numbers (Merchant et al. 2021, Table 2 and Fig. 5) stand beside ours; it gives no hits of basin hopping.
"""

from __future__ import annotations

from mlopt.cli.configs.sources import find

PAPER = {
    "paper-lj13-adam": "-40.58  about 20",
    "paper-lj13-fire": "-40.45  about 20",
    "paper-lj13-basin-hopping": "-43.49",
    "lj13": "",
}


def main() -> None:
    """Print the table."""
    print(f"{'recipe':28}{'mean':>9}{'min':>12}{'hits of 150':>13}{'seconds':>9}   paper: mean, hits")
    for recipe, paper in PAPER.items():
        changes = ["target.stop=never"] if recipe == "lj13" else []
        found = find(recipe, changes).experiment().run()
        energy = found.polished.energy
        hits = sum(hit is not None for hit in found.first_hits)
        print(
            f"{recipe:28}{float(energy.mean()):9.2f}{float(energy.min()):12.6f}{hits:13}{found.wall_s:9.0f}   {paper}",
            flush=True,
        )


if __name__ == "__main__":
    main()
