"""Active learning on lithium, as Podryabinkin & Shapeev, Comput. Mater. Sci. 140, 171 (2017), on a surrogate.

    python benchmarks/active_md.py [--of strategies failures temperatures on-the-fly] [--data FOLDER] [--keep FOLDER]

Labels are those of a moment tensor potential that was fitted to lithium of Zuo et al. (2020): the truth. A
smaller basis, of level 16 with the cutoff 5, is fitted to them. All dynamics are Langevin's: 54 atoms of bcc lithium,
steps of 2 fs. FOLDER of ``--keep`` holds trajectories of the truth for the next run.

strategies: frames at 300 K. For each seed 100 labels are chosen among some of them, and errors are those on all frames.
failures: dynamics on these potentials, until two atoms are nearer than 1.5 angstrom or energies explode. Radial
functions begin at 1.6 angstrom, as in MLIP's potentials of that time, or where mlopt lets them begin by default: a
little below the shortest distance of the labels, with a repulsion of nuclei below.
temperatures: labels of one temperature, errors and grades at others.
on-the-fly: the experiment `active`. Seconds are those of CPU of its parts, by a profiler.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.stats import rankdata, spearmanr

from mlopt.core import AtomsLandscape, Dataset, Driver, Reason, Stop, Systems, problem_keys
from mlopt.core.atoms.neighbours import find_neighbours
from mlopt.core.reporting import kaplan_meier, mean_calls_to_hit
from mlopt.core.structures import LabelledFile, SystemSpec
from mlopt.optimizers import Langevin
from mlopt.optimizers.experiments.active import Active, Asking, Beginning
from mlopt.optimizers.experiments.md import MolecularDynamics
from mlopt.optimizers.fitting.least_squares import Weights, solve, triangle
from mlopt.optimizers.fitting.metrics import GPA
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.optimizers.querying import DOptimal, Grader, Passive, Random
from mlopt.potentials import Mtp

LITHIUM = SystemSpec(crystal={"element": "Li", "repeat": [3, 3, 3]})
TRUTH = Mtp(degrees=[13, 11], angular_weight=1.5, cutoff=6.5)
#: distances of the paper's potentials, angstrom
SHORTEST, CUTOFF, FAILED = 1.6, 5.0, 1.5
#: of energies, forces and stresses in fits, and in the rows of qs2
WEIGHTS = Weights(stress=1.0)
STRATEGIES = {
    "passive": Passive(),
    "random": Random(),
    "qs1": DOptimal(rows="qs1", fill=True),
    "qs2": DOptimal(rows="qs2", weights=WEIGHTS, fill=True),
    "qs3": DOptimal(rows="qs3", fill=True),
}
TEMPERATURES = (300.0, 450.0, 900.0)
_ATOMS = 8192


def fitted(potential: Mtp, data: Dataset) -> Mtp:
    """Fit with the strength of the prior that has the largest evidence."""
    prepared = potential.prepared(data)
    found = solve(triangle(prepared, data, WEIGHTS), prepared.roughness())
    return prepared.with_theta(found.theta)


def langevin(temperature: float) -> Langevin:
    """The integrator of all parts."""
    return Langevin(time_step=2.0, temperature=temperature, friction=0.01)


@dataclass(frozen=True)
class Pools:
    """Labelled frames of dynamics on the true potential."""

    truth: Mtp
    keep: Path | None

    def of(self, temperature: float, walkers: int, frames: int, every: int, settle: int) -> Dataset:
        """Return ``frames`` of each walker, one walker after the other, ``every`` steps apart."""
        name = f"Li-{temperature:.0f}K-{walkers}x{frames}-every-{every}-after-{settle}.pt"
        file = None if self.keep is None else self.keep / name
        systems = LITHIUM.load().repeat(walkers)
        if file is not None and file.exists():
            found = torch.load(file, weights_only=True)
        else:
            stop = Stop(settle + every * frames + 2)
            landscape = AtomsLandscape(systems, self.truth)
            driver = Driver(landscape, langevin(temperature), stop, 0, "fused")
            progress = driver.begin(systems.pos, problem_keys(int(temperature), torch.arange(walkers)))
            points = []
            for number in range(1, frames + 1):
                driver.advance(progress, until=settle + every * number)
                points.append(progress.tally.x.reshape(walkers, -1, 3).clone())
            found = torch.stack(points, 1)
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                torch.save(found, file)
        many = LITHIUM.load().repeat(walkers * frames).with_pos(found.reshape(-1, 3))
        labeller = PotentialLabeller(potential=self.truth)
        blocks = many.segments.blocks(_ATOMS)
        return Dataset.concatenate(
            [labeller.label(many.select(torch.arange(first, stop))) for first, stop in blocks]
        )

    def at_300(self) -> Dataset:
        """The pool of strategies and failures: 6,000 frames of 20 walkers, 20 fs apart, after 1 ps."""
        return self.of(300.0, 20, 300, 10, 500)


def chosen(name: str, basis: Mtp, pool: Dataset, count: int, seed: int, candidates: int) -> torch.Tensor:
    """Return places of ``count`` frames that a strategy chooses among so many random ones, in order of time."""
    order = np.random.default_rng(seed).choice(len(pool), candidates, replace=False)
    places = torch.from_numpy(np.sort(order))
    places = torch.roll(
        places, -(seed % 20) * candidates // 20
    )  # passive begins with another walker each time
    there, key = pool.systems.select(places), problem_keys(seed, torch.arange(1))[0]
    return places[STRATEGIES[name].select(there, pool.select([]), basis, count, key).indices]


def errors(basis: Mtp, thetas: torch.Tensor, pool: Dataset) -> np.ndarray:
    """Return root mean square and largest errors of energies (meV an atom), forces and stresses, (k, 6)."""
    squares, largest, counts = torch.zeros(3, len(thetas)), torch.zeros(3, len(thetas)), torch.zeros(3, 1)
    for first, stop in pool.systems.segments.blocks(_ATOMS):
        part = pool.select(list(range(first, stop)))
        rows = basis.design(part.systems, force=True, stress=True)
        atoms = part.systems.segments.counts[:, None]
        fixed = [
            0.0 if one is None else one for one in (rows.fixed_energy, rows.fixed_force, rows.fixed_stress)
        ]
        known = (part.energy - fixed[0], part.force - fixed[1], part.stress - fixed[2])
        off = [
            1000.0 * (rows.energy @ thetas.T - known[0][:, None]) / atoms,
            (rows.force @ thetas.T - known[1][..., None]).flatten(0, 1),
            GPA * (rows.stress @ thetas.T - known[2][..., None]).flatten(0, 2),
        ]
        for place, one in enumerate(off):
            squares[place] += one.square().sum(0)
            largest[place] = torch.maximum(largest[place], one.abs().amax(0).to(largest))
            counts[place] += len(one)
    return torch.stack([(squares / counts).sqrt(), largest], 2).transpose(0, 1).flatten(1).numpy()


def mean_error(values: np.ndarray) -> str:
    """A mean with its standard error."""
    spread = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{values.mean():.4g} +- {spread:.1g}"


def strategies(pools: Pools, seeds: int, labels: int, candidates: int) -> None:
    """Compare strategies by the errors on all frames."""
    pool = pools.at_300()
    basis = student(SHORTEST)
    print(f"strategies: {len(pool)} frames, {candidates} candidates, {len(basis.parameters)} functions")
    thetas, names = [fitted(basis, pool).parameters], ["all"]
    times: dict[str, float] = {}
    for name in STRATEGIES:
        began = time.process_time()
        for seed in range(seeds):
            places = chosen(name, basis, pool, labels, seed, candidates)
            thetas.append(fitted(basis, pool.select(places)).parameters)
            names.append(name)
        times[name] = (time.process_time() - began) / seeds
    found = errors(basis, torch.stack(thetas), pool)
    print("root mean square and largest errors: mean of seeds +- its standard error (worst seed)")
    for name in ("all", *STRATEGIES):
        rows = found[[place for place, one in enumerate(names) if one == name]]
        told = [f"{mean_error(rows[:, column])} ({rows[:, column].max():.3g})" for column in range(6)]
        for place, what in enumerate(("energy meV/atom", "force eV/angstrom", "stress GPa")):
            both = f"{told[2 * place]:26s} max {told[2 * place + 1]}"
            print(f"  {name:8s} {what:18s} rms {both}")
        if name in times:
            print(f"  {name:8s} {times[name]:.1f} s of CPU a seed", flush=True)


def student(shortest: float | None, level: int = 16) -> Mtp:
    """The basis that is fitted."""
    return Mtp(level=level, cutoff=CUTOFF, pair_functions=0, shortest=shortest, elements=["Li"])


def lives(
    potential: Mtp, temperature: float, walkers: int, steps: int, seed: int
) -> tuple[list[int], list[Reason]]:
    """Return how many steps each walker lived, and why it ended."""
    found = MolecularDynamics(
        system=LITHIUM, potential=potential, integrator=langevin(temperature), steps=steps, walkers=walkers,
        every=5, min_distance=FAILED, trajectories=False, seed=seed, engine="fused",
    ).run()  # fmt: skip
    return found.lived.tolist(), found.reasons


def survival(title: str, lived: Sequence[int], reasons: Sequence[Reason], steps: int) -> None:
    """Print how many failed, the curve and the mean time to a failure. Times are in ps."""
    ps = [0.002 * one for one in lived]
    failed = [one.is_failure for one in reasons]
    events = [time if bad else None for time, bad in zip(ps, failed, strict=True)]
    curve, mean = kaplan_meier(events, ps), mean_calls_to_hit(events, ps)
    at = [
        max(place for place, one in enumerate(curve.calls) if one <= part) for part in (1, 3, 0.002 * steps)
    ]
    alive = ", ".join(
        f"{1 - curve.fraction[place]:.2f} [{1 - curve.high[place]:.2f}, {1 - curve.low[place]:.2f}]"
        for place in at
    )
    half = curve.quantile(0.5)
    told = "none" if half is None else f"{half:.2f} ps"
    why = {one.name.lower() for one in reasons if one.is_failure}
    print(
        f"  {title:28s} {sum(failed):3d} of {len(failed)} failed {sorted(why)}; "
        f"alive after 1, 3, {0.002 * steps:g} ps: {alive}; half-life {told}; "
        f"mean {mean.mean:.3g} [{mean.low:.3g}, {mean.high:.3g}] ps",
        flush=True,
    )


def failures(
    pools: Pools, of: Sequence[float], seeds: int, walkers: int, steps: int, labels: int, candidates: int
) -> None:
    """Compare strategies by how long dynamics last."""
    pool = pools.at_300()
    print(
        f"failures: {seeds} potentials, {walkers} walkers on each, at most {steps} steps of 2 fs; then censored"
    )
    basis = student(SHORTEST)
    names = ("all", "random", "qs1", "qs3")
    choices = {
        name: [chosen(name, basis, pool, labels, seed, candidates) for seed in range(seeds)]
        for name in names[1:]
    }
    for guard, shortest in (("from 1.6", SHORTEST), ("mlopt's", None)):
        models = {"all": [fitted(student(shortest), pool)] * seeds}
        for name, places in choices.items():
            models[name] = [fitted(student(shortest), pool.select(one)) for one in places]
        for temperature in of:
            for name in names:
                lived, reasons = [], []
                for seed, model in enumerate(models[name]):
                    more, why = lives(model, temperature, walkers, steps, seed)
                    lived, reasons = lived + more, reasons + why
                survival(f"{guard} {temperature:.0f} K {name}", lived, reasons, steps)


def area(signal: np.ndarray, bad: np.ndarray) -> float:
    """Return the area under the curve of a classifier: how often a bad one has the larger signal."""
    ranks, n_bad = rankdata(signal), bad.sum()
    if n_bad in (0, len(bad)):
        return np.nan
    return float((ranks[bad].sum() - n_bad * (n_bad + 1) / 2) / n_bad / (len(bad) - n_bad))


def temperatures(pools: Pools, labels: int) -> None:
    """Train at one temperature, predict at another, and see what grades say."""
    sets = {one: pools.of(one, 10, 50, 10, 1500) for one in TEMPERATURES[1:]}
    sets = {TEMPERATURES[0]: pools.at_300().select(list(range(0, 6000, 12)))} | sets
    halves = {
        one: (data.select(list(range(0, len(data), 2))), data.select(list(range(1, len(data), 2))))
        for one, data in sets.items()
    }
    for guard, shortest in (("from 1.6", SHORTEST), ("mlopt's", None)):
        print(f"temperatures: {labels} of 250 frames by qs3, functions {guard}; errors on 250 others")
        for own, (pool, _) in halves.items():
            key = problem_keys(0, torch.arange(1))[0]
            places = (
                STRATEGIES["qs3"]
                .select(pool.systems, pool.select([]), student(SHORTEST), labels, key)
                .indices
            )
            data = pool.select(places)
            model = fitted(student(shortest), data)
            grader = Grader.of(model, data.systems)
            told, grades, off, of_system, worst = [], [], [], [], []
            for other, (_, rest) in halves.items():
                away = (model.evaluate(rest.systems).force - rest.force).norm(dim=1)
                # of components
                rms, size = float((away**2).mean() / 3) ** 0.5, float(rest.force.square().mean()) ** 0.5
                told.append(f"{other:.0f} K {rms:.4f} ({100 * rms / size:.1f} %)")
                found = grader.grade(rest.systems)
                grades.append(found.row.numpy())
                off.append(away.numpy())
                of_system.append(found.system.numpy())
                worst.append(rest.systems.segments.max(away).numpy())
            usual = np.median(off[list(halves).index(own)])
            signal, size = np.concatenate(grades), np.concatenate(off)
            whole, most = np.concatenate(of_system), np.concatenate(worst)
            bad, spoiled = size > 5 * usual, most > 5 * np.median(worst[list(halves).index(own)])
            print(
                f"  trained at {own:.0f} K: force RMS at {', '.join(told)}; atoms beyond 5 medians {bad.mean():.1%}, "
                f"AUROC {area(signal, bad):.3f}, Spearman {spearmanr(signal, size)[0]:.2f}; structures "
                f"{spoiled.mean():.1%}, {area(whole, spoiled):.3f}, {spearmanr(whole, most)[0]:.2f}; grades "
                f"{', '.join(f'{np.median(one):.2g}' for one in of_system)} (medians of structures)",
                flush=True,
            )


def nearest(systems: Systems) -> float:
    """Return the shortest distance of two atoms."""
    return float(find_neighbours(systems, 4.0).differences(systems).norm(dim=0).min())


def on_the_fly(pools: Pools, levels: Sequence[int], steps: int, every: int) -> None:
    """Learn while walking, and count labels and time."""
    print(f"on-the-fly: 4 walkers, {steps} steps of 2 fs, grades every {every} steps")
    for level in levels:
        for place, temperature in enumerate((TEMPERATURES[0], *TEMPERATURES)):
            run = Active(
                system=LITHIUM,
                potential=student(None, level),
                labeller=PotentialLabeller(potential=pools.truth),
                optimizer=langevin(temperature),
                begin=Beginning(structures=4, displacement=0.05),
                asking=Asking(every=every),
                walkers=4,
                force_calls=20 if place == 0 else steps,
                labels=2000,
                engine="fused",
            )
            profile, began = cProfile.Profile(time.process_time), time.process_time()
            found = profile.runcall(run.run)
            total = time.process_time() - began
            if place == 0:  # compiles kernels
                continue
            spent = {"walk": 0.0, "grade": 0.0, "fit": 0.0, "label": 0.0}
            parts = {
                ("journey.py", "_grades"): "grade",
                ("learned.py", "extended"): "fit",
                ("learned.py", "begun"): "fit",
                ("sitting.py", "_taken"): "fit",
                ("driver.py", "advance"): "walk",
                ("sitting.py", "_labelled"): "label",
            }
            stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
            for (source, _, name), (_, _, _, seconds, _) in stats.items():
                part = parts.get((Path(source).name, name))
                if part is not None:
                    spent[part] += seconds
            m = found.record.rounds[-1]["parameters"]
            counts = [one["round"] for one in found.record.labels]
            late = sum(one.get("calls", 0) > steps // 2 for one in found.record.labels)
            work = total - spent["label"]
            closest = min(nearest(found.found), nearest(found.learned.data.systems))
            lost = sum(one.is_failure for one in found.reasons)
            print(
                f"  level {level}, m = {m}, {temperature:.0f} K: {len(counts)} labels ({len(counts) / m:.2f} m, {late} "
                f"in the second half), {len(found.record.rounds) - 1} rounds, {lost} of 4 failed, shortest distance "
                f"{closest:.2f}; {work:.1f} s without labels: walk {spent['walk']:.1f}, grades {spent['grade']:.1f}, "
                f"fits {spent['fit']:.1f}; {1 - spent['walk'] / work:.0%} not the walk; labels {spent['label']:.1f} s",
                flush=True,
            )


def main() -> None:
    """Print the numbers of each part."""
    parts = ["strategies", "failures", "temperatures", "on-the-fly"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--of", nargs="+", choices=parts, default=parts)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/zuo2020"))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--seeds", type=int, default=20, help="of strategies")
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--potentials", type=int, default=4, help="of failures, of each strategy")
    parser.add_argument("--walkers", type=int, default=5, help="of failures, on each potential")
    parser.add_argument("--steps", type=int, default=2500, help="of failures")
    parser.add_argument(
        "--temperatures", type=float, nargs="+", default=list(TEMPERATURES), help="of failures"
    )
    parser.add_argument("--levels", type=int, nargs="+", default=[8, 12, 16], help="of on-the-fly")
    parser.add_argument("--long", type=int, default=2000, help="steps of on-the-fly")
    parser.add_argument("--every", type=int, default=10, help="of on-the-fly: steps between looks")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    file = LabelledFile(file=str(arguments.data / "Li_train.xyz"), forces="force")
    data = file.read()
    prepared = TRUTH.prepared(data)
    truth = prepared.with_theta(solve(triangle(prepared, data, Weights()), prepared.roughness()).theta)
    pools = Pools(truth, arguments.keep)
    print(f"truth: {len(truth.parameters)} functions, fitted to {len(data)} structures", flush=True)
    size = (arguments.labels, arguments.candidates)
    if "strategies" in arguments.of:
        strategies(pools, arguments.seeds, *size)
    if "failures" in arguments.of:
        failures(
            pools, arguments.temperatures, arguments.potentials, arguments.walkers, arguments.steps, *size
        )
    if "temperatures" in arguments.of:
        temperatures(pools, arguments.labels)
    if "on-the-fly" in arguments.of:
        on_the_fly(pools, arguments.levels, arguments.long, arguments.every)


if __name__ == "__main__":
    main()
