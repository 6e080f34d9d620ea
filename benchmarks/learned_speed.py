"""A step of the learned optimizer in the fused engine: a population in which every system has weights of its own.

    python benchmarks/learned_speed.py [--threads 2] [--population 240] [--dtype float64]

Microseconds for a system and a step, the best of eight repeats, for 13, 38 and 75 Lennard-Jones atoms; 48 inputs, two
hidden layers of 32. Prints Markdown.
"""

from __future__ import annotations

import argparse
import time

import torch

from mlopt.core import AtomsLandscape, Stop, Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.optimizers import HarmonicStart
from mlopt.optimizers.learned.step.optimizer import LearnedFamily
from mlopt.potentials import LennardJones

STEPS = {13: 300, 38: 100, 75: 50}


def step_seconds(n: int, population: int, dtype: torch.dtype, repeats: int = 8) -> float:
    """Seconds for a system and a step, compiled before."""
    family = LearnedFamily()
    systems = Systems.cluster([18] * n, population, dtype)
    landscape = AtomsLandscape(systems, LennardJones())
    keys = problem_keys(0, torch.arange(population))
    x = HarmonicStart(edge=2.0).sample(systems, landscape.diameter, keys).to(dtype)
    noise = torch.randn(population, len(family.start()), generator=torch.Generator().manual_seed(0))
    optimizer = family.optimizer(family.start() + 0.1 * noise.to(torch.float64))
    best = float("inf")
    for repeat in range(1 + repeats):  # the first compiles
        driver = Driver(landscape, optimizer, Stop(STEPS[n]), 1, "fused")
        progress = driver.begin(x, keys)
        began = time.perf_counter()
        driver.advance(progress)
        if repeat:
            best = min(best, time.perf_counter() - began)
    return best / (population * STEPS[n])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--population", type=int, default=240)
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| atoms | us a system and step |\n|---|---|")
    for n in STEPS:
        seconds = step_seconds(n, arguments.population, getattr(torch, arguments.dtype))
        print(f"| {n} | {seconds * 1e6:.2f} |", flush=True)


if __name__ == "__main__":
    main()
