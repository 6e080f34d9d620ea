"""Count the true energies that a search needs: on a potential that is learned on the way, and without one.

    python benchmarks/active_search.py [--of cu13 au38 ...] [--seeds 20] [--plain-calls 20000]

Both search from random starts of one kind for the lowest energy that the learned search has found in this run. The
plain search is basin hopping on the true potential, at the best of some temperatures. Its calls to a hit count those
of starts that failed, and none after the hit. Labels of the learned search are counted in two ways: those until the
hit, likewise, and those of whole runs, which end by themselves. Both count the labels to begin with, and all of runs
that failed. Prints the ratios with bootstrap intervals of 95%.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from mlopt.core.atoms.elements import parse_formula
from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import minimize
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers import BasinHopping
from mlopt.optimizers.experiments.active import Active, Asking, Beginning
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.optimizers.starts import HarmonicStart
from mlopt.potentials import AsePotential, Gupta, Mtp

#: energies within this of the lowest are hits, eV
WITHIN = 2e-3
TEMPERATURES = (0.1, 0.4, 0.8)


@dataclass(frozen=True)
class Case:
    """A cluster and its true potential, and the settings of the learned search.

    level: of the moment tensors. calls: force calls of a walker in a round. begin: first structures. labels: of a
    round. lowest: minima among these. most: labels of a run.
    """

    formula: str
    true: Potential
    level: int = 8
    calls: int = 5_000
    begin: int = 4
    labels: int = 2
    lowest: int = 1
    most: int = 200


#: at 300 K many random starts of silicon do not converge; a label that fails counts like others
XTB = AsePotential(calculator="tblite", parameters={"method": "GFN2-xTB", "electronic_temperature": 3000.0})
CASES = {
    "cu13": Case("Cu13", AsePotential(calculator="emt")),
    "cu38": Case("Cu38", AsePotential(calculator="emt"), 10, 20_000, most=400),
    "au13": Case("Au13", Gupta()),
    "au38": Case("Au38", Gupta(), 10, 20_000, most=400),
    "si10": Case("Si10", XTB, 10, 1_000, begin=8, labels=4, lowest=2, most=150),
}


def learned(case: str, seed: int) -> tuple[np.ndarray, int]:
    """Return the energies of all labels of one run in their order, and the calls of the fitted potential."""
    about = CASES[case]
    found = Active(
        system=SystemSpec(cluster=about.formula),
        potential=Mtp(level=about.level, cutoff=5.0),
        labeller=PotentialLabeller(potential=about.true),
        optimizer=BasinHopping(temperature=0.4),
        walkers=8,
        force_calls=about.calls,
        begin=Beginning(structures=about.begin),
        asking=Asking(labels=about.labels, lowest=about.lowest),
        soften=3.0,
        labels=about.most,
        polish=1,
        seed=seed,
    ).run()
    n_atoms = len(parse_formula(about.formula))
    energies = [n_atoms * one["energy"] for one in found.record.labels]
    # failures have no place among the labels: they count as if they had come before all others
    return np.array([np.inf] * found.record.failed + energies), int(found.walk.used.sum())


def plain(
    case: str, temperature: float, starts: int, calls: int, target: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest energy of each start, and its calls to the target, -1 without a hit."""
    about = CASES[case]
    systems = Systems.cluster(parse_formula(about.formula)).repeat(starts)
    keys = problem_keys(0, torch.arange(starts))
    diameter = Mtp(level=2).diameter(systems.z)  # as the learned search has it
    x = HarmonicStart().sample(systems, diameter, keys)
    found = minimize(
        AtomsLandscape(systems, about.true),
        BasinHopping(temperature=temperature),
        x,
        force_calls=calls,
        target=target,
        target_tolerance=WITHIN,
        on_target="stop-start",
    )
    return found.energy.numpy(), np.where(found.first_hit.numpy() < 0, -1, found.first_hit.numpy())


def main() -> None:
    """Print a block for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--of", nargs="+", choices=list(CASES), default=["cu13"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--starts", type=int, default=8, help="of the plain search")
    parser.add_argument("--plain-calls", type=int, default=20_000, help="of each start")
    parser.add_argument(
        "--temperatures", type=float, nargs="+", default=list(TEMPERATURES), help="of the plain search"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for case in arguments.of:
        began = time.monotonic()
        runs = []
        for seed in range(arguments.seeds):
            runs.append(learned(case, seed))
            energies = runs[-1][0]
            print(
                f"{case} seed {seed}: {len(energies)} labels, lowest {energies.min():.6f} eV, "
                f"{time.monotonic() - began:.0f} s",
                flush=True,
            )
        lowest = min(energies.min() for energies, _ in runs)
        hits = {}
        for temperature in arguments.temperatures:
            energy, first = plain(case, temperature, arguments.starts, arguments.plain_calls, float(lowest))
            lower = "; it has gone lower, so raise --seeds" if energy.min() < lowest - WITHIN else ""
            print(f"{case} plain, temperature {temperature}: {(first >= 0).sum()} hits{lower}", flush=True)
            hits[temperature] = np.where(first < 0, arguments.plain_calls, first), first >= 0
        best = max(arguments.temperatures, key=lambda one: hits[one][1].sum() / hits[one][0].sum())
        used, hit = hits[best]
        ours = np.array([len(energies) for energies, _ in runs])
        good = np.array([energies.min() <= lowest + WITHIN for energies, _ in runs])
        first = [
            int(np.argmax(energies <= lowest + WITHIN)) + 1 if hit else len(energies)
            for (energies, _), hit in zip(runs, good, strict=True)
        ]
        print(f"{case}: lowest {lowest:.6f} eV")
        print(
            f"  plain, temperature {best}: {hit.sum()} of {len(hit)} starts, "
            f"{used.sum() / max(hit.sum(), 1):,.0f} calls a hit"
        )
        print(
            f"  learned: {good.sum()} of {len(ours)} runs, {np.sum(first) / max(good.sum(), 1):.1f} labels a hit, "
            f"whole runs {ours.sum() / max(good.sum(), 1):.1f}; medians: {np.median(first):.0f} and "
            f"{np.median(ours):.0f}, {np.median([calls for _, calls in runs]):,.0f} calls of the fitted potential"
        )
        for title, labels in (("until the hit", np.array(first)), ("whole runs", ours)):
            told = interval(used, hit, labels, good)
            if told is not None:
                print(f"  ratio, {title}: {told[1]:.0f} [{told[0]:.0f}, {told[2]:.0f}]", flush=True)


def interval(
    used: np.ndarray, hit: np.ndarray, labels: np.ndarray, good: np.ndarray
) -> tuple[float, float, float] | None:
    """Return 2.5%, 50% and 97.5% of calls a hit over labels a hit, None where no resampling has hits of both."""
    generator = np.random.default_rng(0)
    ratios = []
    for _ in range(2000):
        a, b = generator.integers(len(hit), size=len(hit)), generator.integers(len(good), size=len(good))
        if hit[a].any() and good[b].any():
            ratios.append((used[a].sum() / hit[a].sum()) / (labels[b].sum() / good[b].sum()))
    if not ratios:
        return None
    low, middle, high = np.percentile(ratios, [2.5, 50, 97.5])
    return float(low), float(middle), float(high)


if __name__ == "__main__":
    main()
