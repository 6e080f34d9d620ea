"""Tables and figures of Learn2Hop (Merchant et al., ICML 2021): trained, run and printed beside the paper's numbers.

    python benchmarks/learn2hop.py fig3            # ES, ESMC and GA on 13 atoms, three seeds each
    python benchmarks/learn2hop.py table2          # Adam, FIRE, basin hopping, ESMC, GA on four systems; Fig. 5
    python benchmarks/learn2hop.py fig4            # sizes that were not trained on
    python benchmarks/learn2hop.py fig6            # how a learned one moves; with `--weights lj-small` no training
    python benchmarks/learn2hop.py table3          # which inputs matter
    python benchmarks/learn2hop.py table6          # from Lennard-Jones to silicon, and back
    python benchmarks/learn2hop.py fig7            # bimetallic clusters, convex hull of formation energies
    python benchmarks/learn2hop.py elsewhere       # the same weights on spins and on a band, which the paper has not

`--size small` (the default) takes minutes to half an hour on two cores; `--size paper` is the paper's: horizon 50,000,
1,000 meta-updates, 150 starts of 50,000 steps, days on two cores; `tiny` only shows that it runs. Everything is a run
of `mlopt` in a folder below `--out`: what is finished is not run again, what was stopped goes on. Prints Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Sequence

from learn2hop_runs import (
    ADAM,
    FIRE,
    MINIMA,
    PAPER_HOPPING,
    SIZES,
    TUNED,
    Work,
    learned,
    lj,
    metal,
    silicon,
    table,
    trained,
)

from mlopt.core.reporting import drawing


def fig3(work: Work) -> None:
    """Held-out loss and hits of ES, ESMC and GA against meta-updates: the mean over seeds, and the spread."""
    found: dict[str, list[list[dict[str, float]]]] = {}
    # at the small size: as `mlopt run learn2hop-lj13-small`, with shorter runs and fewer updates
    small = {
        "horizon": 3000,
        "truncation": {"kind": "log-uniform", "shortest": 600},
        "population": 120,
        "epochs": 200,
        "held_out": {"starts": 150},
    }
    task = small if work.size.horizon < 5000 else {}
    for trainer in ("es", "esmc", "ga"):
        for seed in range(3):
            results = work.train("LJ13 fig3", [lj(13)], trainer, seed, **task)
            history = json.loads((results / "history.json").read_text())
            found.setdefault(trainer, []).append([row for row in history if "held_out" in row])
    plt = drawing.pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.6), layout="constrained")
    colours = {"es": "#9a9a9a", "esmc": "#3b6ea5", "ga": "#b5532a"}
    for trainer, seeds in found.items():
        epochs = [row["epoch"] for row in seeds[0]]
        for axis, key in ((axes[0], "held_out"), (axes[1], "Ar13.hits")):
            columns = list(zip(*[[row[key] for row in one] for one in seeds], strict=True))
            axis.plot(epochs, [statistics.fmean(c) for c in columns], label=trainer, color=colours[trainer])
            axis.fill_between(
                epochs,
                [min(c) for c in columns],
                [max(c) for c in columns],
                color=colours[trainer],
                alpha=0.2,
            )
    axes[0].set(xlabel="meta-update", ylabel="held-out loss")
    axes[1].set(xlabel="meta-update", ylabel="hits of 150")
    axes[0].legend(frameon=False)
    file = work.folder / "fig3.svg"
    drawing.save(figure, file)
    rows = [
        [trainer, *(f"{one[-1]['held_out']:.4f}" for one in seeds), *(f"{one[-1]['Ar13.hits']:.0f}" for one in seeds)]
        for trainer, seeds in found.items()
    ]  # fmt: skip
    numbers = range(3)
    heads = [
        "estimator",
        *(f"loss, seed {s}" for s in numbers),
        *(f"hits of 150, seed {s}" for s in numbers),
    ]
    table(heads, rows)
    print(f"\nFigure: {file}")


#: mean and lowest energy in Table 2: Adam, FIRE, basin hopping, ESMC, GA
TABLE2 = {
    "Ar13": "-40.58/-44.33, -40.45/-44.33, -43.49/-44.33, -44.26/-44.33, -44.31/-44.33",
    "Ar75": "-380.52/-390.34, -380.23/-389.12, -381.49/-392.16, -390.33/-396.24, -390.92/-396.28",
    "Au55": "-179.94/-180.94, -180.94/-181.75, -181.38/-181.89, -181.51/-181.89, -181.61/-181.89",
    "si64": "-256.83/-260.08, -257.01/-261.44, -259.14/-261.64, -260.14/-262.95, -261.81/-264.17",
}


def table2(work: Work) -> None:
    """Four systems; each learned optimizer is trained on the system that it is run on, or `--weights` are run."""
    cases = [lj(13), lj(75), metal("Au55", "au55-paper", -181.889486), silicon(work)]
    printed = []
    for case in cases:
        name = str(case["system"].get("cluster", "si64"))
        if work.systems and name not in work.systems:
            continue
        contestants = [
            ADAM,
            FIRE,
            PAPER_HOPPING,
            {"label": "basin hopping, L-BFGS", "optimizer": {"name": "basin-hopping", **TUNED.get(name, {})}},
        ]
        estimators = ("esmc",) if work.weights else ("esmc", "ga")
        contestants += [learned(one, work.weights_of(name, [case], one)) for one in estimators]
        rows = work.contest(f"table2 {name}", [case], contestants)
        paper = dict(
            zip(
                ("Adam", "FIRE", "basin hopping (paper)", "esmc", "ga"), TABLE2[name].split(", "), strict=True
            )
        )
        printed += [
            [name, row["optimizer"], f"{row['mean']:.2f}", f"{row['min']:.4f}", row["hits"], f"{row['wall_s']:.0f}",
             paper.get(row["optimizer"])] for row in rows
        ]  # fmt: skip
    size = work.size
    table(
        ["system", "optimizer", "mean", "lowest", f"hits of {size.starts}", "s", "paper: mean/lowest"],
        printed,
    )


def fig4(work: Work) -> None:
    """Trained on some sizes, run on all."""
    paper = work.size.horizon > 10_000
    sizes = (13, 19, 31, 38, 55, 75) if paper else (13, 19, 31)
    tested = tuple(MINIMA) if paper else (10, 13, 16, 19, 25, 31, 38)
    weights = work.weights_of("LJ", [lj(n) for n in sizes])
    rows = work.contest("fig4", [lj(n) for n in tested], [ADAM, FIRE, learned("learned", weights)])
    by = {(row["system"], row["optimizer"]): row for row in rows}
    printed = []
    for n in tested:
        three = [by[f"Ar{n}", label] for label in ("Adam", "FIRE", "learned")]
        mark = "yes" if n in sizes else ""
        printed.append([n, mark, *(f"{one['mean']:.2f} / {one['min']:.2f}" for one in three), MINIMA[n]])
    table(["atoms", "trained on", "Adam: mean / lowest", "FIRE", "learned", "minimum"], printed)


def fig6(work: Work) -> None:
    """Energies of 13 atoms along the way, and the size of updates where atoms are held at the global minimum."""
    import torch

    from mlopt.core import AtomsLandscape, Stop, Systems
    from mlopt.core.batch.random import Stream, derive, problem_keys
    from mlopt.core.driver.driver import Driver
    from mlopt.core.plugins.plugin import build
    from mlopt.optimizers import BasinHopping, HarmonicStart
    from mlopt.optimizers.learned.step.optimizer import Learned
    from mlopt.potentials import LennardJones

    weights = work.weights_of("LJ13", [lj(13)])
    optimizer = build(Learned, {"weights": weights})
    runs, steps = 50, work.size.calls
    landscape = AtomsLandscape(Systems.cluster([18] * 13, runs), LennardJones())
    keys = problem_keys(0, torch.arange(runs))
    x = HarmonicStart(edge=2.0).sample(landscape.systems, landscape.diameter, derive(keys, Stream.START))
    energies, lengths = [], []
    with torch.no_grad():
        state = optimizer.init(landscape, x, keys)
        for _ in range(steps):
            seen = landscape.evaluate(x)
            energies.append(seen.energy.clone())
            x, state = optimizer.step(landscape, x, seen, state)
        one = AtomsLandscape(Systems.cluster([18] * 13), LennardJones())
        driver = Driver(one, BasinHopping(quench_tolerance=1e-9), Stop(20_000), 1, "fused")
        begun = HarmonicStart(edge=2.0).sample(one.systems, one.diameter, derive(keys[:1], Stream.START))
        bottom = driver.advance(driver.begin(begun, keys[:1])).outcome.tally.x
        state = optimizer.init(one, bottom, keys[:1])
        for _ in range(steps):
            there = one.evaluate(bottom)
            moved, state = optimizer.step(one, bottom, there, state)
            lengths.append(float((moved - bottom).norm(dim=-1).mean()))
    found = torch.stack(energies)
    plt = drawing.pyplot()
    figure, axes = plt.subplots(2, 1, figsize=(8.0, 5.0), sharex=True, layout="constrained")
    axes[0].plot(found.numpy(), color="#3b6ea5", alpha=0.08, linewidth=0.6)
    axes[0].plot(found[:, 0].numpy(), color="#1d3d5c", linewidth=0.6)
    axes[0].set(ylabel="energy", ylim=(-45.0, -25.0))
    axes[1].plot(lengths, color="#b5532a", linewidth=0.6)
    axes[1].set(xlabel="step", ylabel="mean step at the minimum")
    file = work.folder / "fig6.png"
    figure.savefig(file, dpi=130)
    drawing.save(figure, file)
    bottom_energy = found.amin(0)
    up = (found[1:] > found[:-1] + 1.0).sum(0).to(torch.float64)
    print(f"median lowest energy {float(bottom_energy.median()):.4f}; steps that rise by more than one well depth: "
          f"{float(up.mean()):.0f} of {steps} in a run; mean step at the minimum {statistics.fmean(lengths):.2e}, "
          f"largest {max(lengths):.2e} diameters")  # fmt: skip
    print(f"Figure: {file}")


#: Table 3 adds groups one after the other; its numbers: Delta from Adam of ESMC and GA
ABLATION = (
    ("gradient", "+0.2", "-0.8"), ("position", "+0.2", "-1.2"), ("moments", "-2.0", "-2.0"), ("adam", "-1.0", "-2.8"),
    ("number", "-1.0", "-2.9"), ("identity", "-0.5", "-2.4"), ("sines", "-2.3", "-3.6"), ("radial", "-3.4", "-4.4"),
)  # fmt: skip


def table3(work: Work) -> None:
    """The lowest energy on one size with more and more inputs, beside Adam: the median over seeds."""
    n = 75 if work.size.horizon > 10_000 else 19
    names = [name for name, *_ in ABLATION]
    adam = work.contest("table3 Adam", [lj(n)], [ADAM])[0]
    printed = []
    for number, (name, *paper) in enumerate(ABLATION, 1):
        inputs = {one: one in names[:number] for one in names}
        row = [name]
        for trainer in ("esmc", "ga"):
            lowest, means = [], []
            for seed in range(work.size.seeds):
                results = work.train(f"LJ{n} up to {name}", [lj(n)], trainer, seed, inputs)
                one = work.contest(
                    f"table3 {name} {trainer} {seed}", [lj(n)], [learned(name, trained(results))]
                )[0]
                lowest.append(one["min"] - adam["min"])
                means.append(one["mean"] - adam["mean"])
            row.append(f"{statistics.median(lowest):+.2f} / {statistics.median(means):+.2f}")
        printed.append([*row, " / ".join(paper)])
    print(f"LJ{n}; Adam: lowest {adam['min']:.2f}, mean {adam['mean']:.2f}\n")
    table(
        ["inputs up to", "ESMC: lowest / mean less Adam's", "GA", "paper (LJ75): lowest, ESMC / GA"], printed
    )


def table6(work: Work) -> None:
    """Trained on one potential, run on the other."""
    crystal, n = silicon(work), 75 if work.size.horizon > 10_000 else 13
    sizes = (13, 19, 31, 38, 55, 75) if n == 75 else (13, 19, 31)
    contestants = [
        ADAM, FIRE,
        learned("trained on Lennard-Jones", work.weights_of("LJ", [lj(one) for one in sizes])),
        learned("trained on silicon", trained(work.train("si64", [crystal]))),
    ]  # fmt: skip
    rows = work.contest("table6", [lj(n), crystal], contestants)
    table(
        ["system", "optimizer", "mean", "lowest"],
        [[row["system"], row["optimizer"], f"{row['mean']:.2f}", f"{row['min']:.2f}"] for row in rows],
    )


def fig7(work: Work) -> None:
    """38-atom AgAu (trained on six compositions) and PdPt (not trained on): formation energies and their hull."""
    paper = work.size.horizon > 10_000
    alloys = [metal(f"Ag{38 - m}Au{m}" if m < 38 else "Au38", "AgAu") for m in (3, 7, 15, 22, 30, 38)]
    weights = trained(work.train("AgAu", alloys, learnable={"species": ["Ag", "Au"]}))
    for (a, b), preset in ((("Ag", "Au"), "AgAu"), (("Pd", "Pt"), "PdPt")):
        contents = range(39) if paper else (0, 7, 15, 22, 30, 38)
        formulas = {m: (f"{a}{38 - m}" if m < 38 else "") + (f"{b}{m}" if m else "") for m in contents}
        network = learned("learned", weights, species=[a, b])
        cases = [metal(one, preset) for one in formulas.values()]
        rows = work.contest(f"fig7 {preset}", cases, [ADAM, FIRE, PAPER_HOPPING, network])
        by = {(row["system"], row["optimizer"]): row["min"] for row in rows}
        labels = list(dict.fromkeys(row["optimizer"] for row in rows))
        # formation energies over one pair of ends, the lowest that anybody found
        ends = [min(by[formulas[m], one] for one in labels) for m in (0, 38)]
        excess = {
            (m, one): by[formulas[m], one] - ((38 - m) * ends[0] + m * ends[1]) / 38 for m in contents for one in labels
        }  # fmt: skip
        printed = [[m, formulas[m], *(f"{excess[m, one]:.4f}" for one in labels)] for m in contents]
        table([b, "cluster", *(f"{one}: formation energy (eV)" for one in labels)], printed)
        for one in labels:
            hull = lower_hull([(float(m), min(excess[m, one], 0.0)) for m in contents])
            print(
                f"\n{preset}, {one}: hull through {b} = {', '.join(f'{x:.0f}' for x, _ in hull)}; area {area(hull):.4f}"
            )


def elsewhere(work: Work) -> None:
    """What was trained on 13 atoms, on 256 spins and on a band of theirs: beside FIRE and L-BFGS."""
    import torch

    from mlopt.cli.configs.sources import find
    from mlopt.core import minimize
    from mlopt.core.plugins.plugin import build
    from mlopt.optimizers import LBFGS, Fire
    from mlopt.optimizers.bands.initial import geodesic
    from mlopt.optimizers.experiments.path.experiment import Path as PathExperiment
    from mlopt.optimizers.learned.step.optimizer import Learned

    weights = work.weights_of("LJ13", [lj(13)])
    path = find("skyrmion16", []).experiment()
    assert isinstance(path, PathExperiment)
    spins, calls = path.landscape(20), 1000
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(spins.segments.n_rows, 3, generator=generator, dtype=torch.float64)
    x = x / x.norm(dim=-1, keepdim=True)
    start, end = path.model.state(path.initial), path.model.state(path.final)
    relaxed = minimize(path.landscape(2), LBFGS(), torch.cat([start, end]), fmax=1e-6, force_calls=2000).x
    band = path.band.make(path.landscape(1), relaxed[: len(start)], relaxed[len(start) :])
    laid = geodesic(band, path.start.axis)
    printed = []
    for label, optimizer in (
        ("learned", build(Learned, {"weights": weights})),
        ("FIRE", Fire()),
        ("L-BFGS", LBFGS()),
    ):
        found = minimize(spins, optimizer, x, force_calls=calls)
        relaxed_band = minimize(band, optimizer, laid, fmax=1e-4, force_calls=calls)
        energy = f"{float(found.energy.mean()):.2f} / {float(found.energy.min()):.2f}"
        printed.append([label, energy, f"{float(relaxed_band.fmax[0]):.1e}", int(relaxed_band.calls[0])])
    print(
        f"20 random states of 256 spins, and a band of 7 images of the skyrmion's collapse; {calls} evaluations\n"
    )
    heads = [
        "optimizer",
        "spins: mean / lowest energy (meV)",
        "band: largest force (meV)",
        "evaluations of the band",
    ]
    table(heads, printed)


def lower_hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The lower convex hull (Andrew 1979)."""
    hull: list[tuple[float, float]] = []
    for x, y in sorted(points):
        while len(hull) > 1 and (hull[-1][0] - hull[-2][0]) * (y - hull[-2][1]) <= (
            hull[-1][1] - hull[-2][1]
        ) * (x - hull[-2][0]):
            hull.pop()
        hull.append((x, y))
    return hull


def area(hull: Sequence[tuple[float, float]]) -> float:
    """Between the hull and zero."""
    return -sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(hull))


PARTS: dict[str, Callable[[Work], None]] = {
    one.__name__: one for one in (fig3, table2, fig4, fig6, table3, table6, fig7, elsewhere)
}


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--out", default="runs/learn2hop", help="folder of the runs")
    parser.add_argument("--weights", help="a name or a file, instead of training")
    parser.add_argument("--systems", nargs="*", choices=list(TABLE2), help="of table2; all if none is named")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    PARTS[arguments.part](Work(arguments))


if __name__ == "__main__":
    main()
