"""Compare query strategies at equal numbers of labels, on structures of Zuo et al. (J. Phys. Chem. A 124, 731 (2020)).

    python benchmarks/query_strategies.py --data FOLDER [--element Li] [--seeds 20] [--labels 18 38]
        [--strategies passive random qs1 qs2 qs3]

FOLDER holds ``Li_train.xyz``, ``Li_test.xyz`` and so on. For each seed a random 30 % of all structures is held out, and
labels are chosen from the rest, offline, with an unfitted basis; strategies that need labels begin with a third of
them at random. The fit is linear, with the prior of the largest evidence. Errors are root mean squares and the largest
ones, on what is held out and, of forces, on everything that was not chosen: the mean over seeds, and the worst seed.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from mlopt.core import Dataset, problem_keys
from mlopt.core.protocols import QueryStrategy
from mlopt.core.structures import LabelledFile
from mlopt.optimizers import querying
from mlopt.optimizers.fitting import Weights
from mlopt.optimizers.fitting.least_squares import solve, triangle
from mlopt.potentials import Mtp

BASES: dict[str, dict[str, Any]] = {
    "Li": {"level": 16, "cutoff": 6.5},
    "Si": {"level": 16, "cutoff": 5.0},
    "Mo": {"level": 16, "cutoff": 5.0},
    "Ni": {"level": 16, "cutoff": 4.5},
}
STRATEGIES: dict[str, QueryStrategy] = {
    "passive": querying.Passive(),
    "random": querying.Random(),
    "qs1": querying.DOptimal(rows="qs1", fill=True),
    "qs2": querying.DOptimal(rows="qs2", weights=Weights(stress=1.0), fill=True),
    "qs3": querying.DOptimal(rows="qs3", fill=True),
    "optimality-I": querying.Optimality(criterion="I"),
    "variance": querying.Variance(),
    "committee": querying.CommitteeDisagreement(),
    "model-change": querying.ModelChange(),
    "error-reduction": querying.ErrorReduction(),
    "farthest-point": querying.FarthestPoint(),
}


def chosen(strategy: QueryStrategy, basis: Mtp, pool: Dataset, count: int, seed: int) -> torch.Tensor:
    """Places of ``count`` structures of the pool."""
    key = problem_keys(seed, torch.arange(1))[0]
    if not strategy.needs_labels:
        return strategy.select(pool.systems, pool.select([]), basis, count, key).indices
    first = querying.Random().select(pool.systems, pool.select([]), basis, max(2, count // 3), key).indices
    known = pool.select(first)
    fitted = basis.with_theta(solve(triangle(basis, known, Weights()), basis.roughness()).theta)
    rest = torch.tensor([place for place in range(len(pool)) if place not in set(first.tolist())])
    more = strategy.select(pool.systems.select(rest), known, fitted, count - len(first), key).indices
    return torch.cat([first, rest[more]])


def errors(basis: Mtp, fitted: Dataset, held: Dataset, others: Dataset) -> list[float]:
    """Energy RMS (meV/atom), force RMS and largest force error on ``held``, largest on ``others`` (eV/angstrom)."""
    theta = solve(triangle(basis, fitted, Weights()), basis.roughness()).theta
    model = basis.with_theta(theta)
    found = model.evaluate(held.systems)
    off = 1000.0 * (found.energy - held.energy) / held.systems.segments.counts
    away = found.force - held.force
    far = model.evaluate(others.systems).force - others.force
    rms = [float(off.square().mean().sqrt()), float(away.square().mean().sqrt())]
    return [*rms, float(away.abs().max()), float(far.abs().max())]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--element", default="Li", choices=sorted(BASES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--labels", type=int, nargs="+", default=[18, 38])
    parser.add_argument("--strategies", nargs="+", default=["passive", "random", "qs1", "qs2", "qs3"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    files = [arguments.data / f"{arguments.element}_{part}.xyz" for part in ("train", "test")]
    every = Dataset.concatenate([LabelledFile(file=str(file), forces="force").read() for file in files])
    basis = Mtp(elements=[arguments.element], **BASES[arguments.element]).prepared(every)
    print(f"{arguments.element}: {len(every)} structures, {len(basis.parameters)} coefficients")
    print("labels strategy         E rms meV  F rms   F max (worst)   F max of all not chosen (worst)    s")
    for count in arguments.labels:
        for name in arguments.strategies:
            told, began = [], time.perf_counter()
            for seed in range(arguments.seeds):
                order = torch.from_numpy(np.random.default_rng(seed).permutation(len(every)))
                left = round(0.3 * len(every))
                held, pool = every.select(order[:left]), every.select(order[left:].sort().values)
                places = chosen(STRATEGIES[name], basis, pool, count, seed)
                others = [place for place in range(len(pool)) if place not in set(places.tolist())]
                unseen = Dataset.concatenate([held, pool.select(others)])
                told.append([len(places), *errors(basis, pool.select(places), held, unseen)])
            number, energy, force, top, far = np.mean(told, 0)
            worst = np.max(told, 0)
            print(
                f"{number:6.1f} {name:16s} {energy:9.2f}  {force:.4f}  {top:.3f} ({worst[3]:.3f})   "
                f"{far:.3f} ({worst[4]:.3f})  {(time.perf_counter() - began) / arguments.seeds:17.1f}"
            )


if __name__ == "__main__":
    main()
