"""What learning a band's step, spring and tangent brings: the paper's experiment, bent paths, and transfer.

    python benchmarks/band_learning.py paper [--plot fig2.svg]      # Bushuev & Lobanov 2020: their parameters and ours
    python benchmarks/band_learning.py transfer                     # learned on one spin, used elsewhere

Parameters are (gamma, mu, beta): step of gradient descent, spring, sharpness of the tangent. ``learned`` are those of
`mlopt run meta-neb` (give others with --learned gamma mu beta). `paper` prints the error of the barrier relative to
that at the beginning, after 5 iterations on nearly ideal paths and after up to 60 on bent ones. `transfer` rescales
them by the curvature and the barrier of each landscape, and counts iterations until the largest force of the band is a
thousandth of that at the beginning, beside the best of a grid of steps and springs tuned by hand for that landscape.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch

from mlopt.core import minimize
from mlopt.optimizers import GradientDescent
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.profile import highest_point
from mlopt.optimizers.bands.springs import ConstantSpring
from mlopt.optimizers.bands.tangents import SigmoidTangent
from mlopt.optimizers.training.tasks.band import BandTask
from mlopt.potentials.models.surfaces import MullerBrown
from mlopt.potentials.spins import Anisotropy, Heisenberg, SpinLattice

LEARNED = (0.205, 0.873, 6.31)
SETS = {"start (0.01, 1, 3)": (0.01, 1.0, 3.0), "paper (0.077, 1, 3)": (0.077, 1.0, 3.0)}
PERCENTILES = (0, 10, 25, 50, 75, 90, 100)


def biaxial(**changes: Any) -> BandTask:
    """One spin, easy axis x, hard axis z."""
    axes = [Anisotropy(axis=[1, 0, 0], k=1.0), Anisotropy(axis=[0, 0, 1], k=-2.0)]
    model = Heisenberg(lattice=SpinLattice(kind="chain", repeat=[1]), units="reduced", anisotropy=axes)
    return BandTask(model=model, **turning([1, 0, 0]), **changes)


def turning(direction: list[int]) -> dict[str, Any]:
    """States along a direction and against it, turned about z or x."""
    back = [-one for one in direction]
    return {
        "initial": {"kind": "ferromagnet", "direction": direction},
        "final": {"kind": "ferromagnet", "direction": back},
        "axis": [0.0, 0.0, 1.0] if direction[2] == 0 else [1.0, 0.0, 0.0],
    }


def history(
    task: BandTask, parameters: tuple[float, ...], band: Band, x: torch.Tensor, steps: int
) -> torch.Tensor:
    """Errors of the barrier (steps + 1, paths)."""
    gamma, mu, beta = parameters
    band = band.replace(tangent=SigmoidTangent(beta=beta), spring=ConstantSpring(k=mu))
    found, descent = [], GradientDescent(step_size=gamma)
    state = descent.init(band, x, torch.zeros(band.segments.n_problems, dtype=torch.int64))
    with torch.no_grad():
        for step in range(steps + 1):
            top = highest_point(band, x, calls=40).energy
            found.append((top - band.at_start.energy - task.relaxed.barrier).clamp(min=0.0))
            if step < steps:
                x, state = descent.step(band, x, band.evaluate(x), state)
    return torch.stack(found)


def paper(learned: tuple[float, ...], plot: Path | None) -> None:
    """Two tables, and the figure."""
    sets = SETS | {f"learned ({', '.join(f'{one:.4g}' for one in learned)})": learned}
    task = biaxial()
    band, x = task.disturbed(10**6, 0, 1000)
    print("D5 / D0 on 1000 paths of 8 to 14 images, disturbed by 5 % of their length\n")
    print("| parameters | " + " | ".join(f"{p} %" for p in PERCENTILES) + " |\n|" + "---|" * 8)
    medians = []
    for name, parameters in sets.items():
        errors = history(task, parameters, band, x, 5)
        ratio = (errors[-1] / errors[0])[errors[0] > 1e-12]  # a path may begin with an image on the saddle
        medians.append(float(ratio.median()))
        print(f"| {name} | " + " | ".join(f"{ratio.quantile(p / 100):.2e}" for p in PERCENTILES) + " |")
    print(f"\nmedian error at the start's parameters over that at the paper's: {medians[0] / medians[1]:.1f}")
    bent = biaxial(bend=0.8, disturbance=0.02)
    band, x = bent.disturbed(10**6, 0, 100)
    print("\nerrors of the barrier on 100 bent paths (up to 0.8 radians sideways), in units of K1\n")
    print("| parameters | iterations | " + " | ".join(f"{p} %" for p in PERCENTILES) + " |\n|" + "---|" * 9)
    curves = {}
    for name, parameters in sets.items():
        curves[name] = history(bent, parameters, band, x, 60)
        for step in (0, 5, 10, 20, 60):
            row = curves[name][step]
            print(
                f"| {name} | {step} | "
                + " | ".join(f"{row.quantile(p / 100):.1e}" for p in PERCENTILES)
                + " |"
            )
    if plot is not None:
        draw(curves, plot)


def draw(curves: dict[str, torch.Tensor], file: Path) -> None:
    """The paper's Fig. 2: rate and error against iterations, and error against the error before."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(curves), 3, figsize=(11, 3.0 * len(curves)), layout="constrained")
    for row, (name, errors) in zip(axes, curves.items(), strict=True):
        kept = errors.clamp(min=1e-16)
        rate = (kept[1:] / kept[:-1]).where(errors[:-1] > 1e-14, math.nan)
        steps = range(1, len(errors))
        for q, style in ((0.0, "r-"), (0.1, "y-"), (0.9, "y-"), (1.0, "r-")):
            row[0].plot(steps, rate.nanquantile(q, dim=1), style, linewidth=0.9)
        row[0].plot(steps, rate.nanmean(dim=1), "k:")
        row[0].set(xlabel="iteration", ylabel="rate of convergence", ylim=(0, 1.6), title=name)
        for q in range(11):
            row[1].semilogy(range(len(errors)), kept.quantile(q / 10, dim=1), color="#3b6ea5", linewidth=0.8)
        row[1].set(xlabel="iteration", ylabel="error of the barrier")
        row[2].loglog(kept[:-1].flatten(), kept[1:].flatten(), ".", markersize=1.5, color="#3b6ea5")
        row[2].plot([1e-16, 10], [1e-16, 10], "r:")
        row[2].set(xlabel="error", ylabel="error of the next iteration")
    figure.savefig(file)


def transfer(learned: tuple[float, ...]) -> None:
    """A table of iterations."""
    here = biaxial()
    theta = (torch.tensor(learned, dtype=torch.float64) * here._scales).log()
    easy = [Anisotropy(axis=[0, 0, 1], k=0.1), Anisotropy(axis=[1, 0, 0], k=-0.05)]
    chain = Heisenberg(
        lattice=SpinLattice(kind="chain", repeat=[20]), units="reduced", exchange=[1.0], anisotropy=easy
    )
    film = Heisenberg(
        lattice=SpinLattice(kind="cubic", repeat=[16, 16, 1], periodic=[True, True, False], moments=[2.0]),
        exchange=[10.0],
        dmi=[6.0],
        field=[0.0, 0.0, 25.0],
    )
    skyrmion = {
        "initial": {"kind": "skyrmion", "radius": 3.0, "helicity": 90.0},
        "final": {"kind": "ferromagnet"},
        "axis": [1.0, 0.0, 0.0],
    }
    few: dict[str, Any] = {"images": [8, 8], "disturbance": 0.02}
    cases = {
        "one spin": biaxial(**few),
        "chain of 20 spins, a wall goes through": BandTask(model=chain, **turning([0, 0, 1]), **few),
        "skyrmion, 16 x 16 spins": BandTask(model=film, **skyrmion, **few),
        "Müller-Brown, A to I": BandTask(
            model=MullerBrown(), initial={"name": "A"}, final={"name": "I"}, **few
        ),
    }
    print(
        "| landscape | learned, rescaled: gamma, mu, beta | iterations | best by hand: gamma, mu | iterations |"
    )
    print("|" + "---|" * 5)
    for name, task in cases.items():
        gamma, mu, beta = task.named(theta).values()
        ours = iterations(task, gamma, mu, beta)
        curvature = task.relaxed.curvature
        grid = {
            (g / curvature, m * curvature): iterations(task, g / curvature, m * curvature, None)
            for g in (0.3, 0.6, 0.9, 1.2, 1.5, 1.8)
            for m in (0.01, 0.1, 0.3)
        }
        best = min(grid, key=lambda key: grid[key])
        print(
            f"| {name} | {gamma:.3g}, {mu:.3g}, {beta:.3g} | {ours:.0f} | {best[0]:.3g}, {best[1]:.3g} | "
            f"{grid[best]:.0f} |",
            flush=True,
        )


def iterations(task: BandTask, gamma: float, mu: float, beta: float | None, paths: int = 8) -> float:
    """Mean over some paths; the improved tangent where there is no beta."""
    band, x = task.disturbed(10**6, 0, paths)
    band = band.replace(
        spring=ConstantSpring(k=mu), **({} if beta is None else {"tangent": SigmoidTangent(beta=beta)})
    )
    with torch.no_grad():
        force = band.evaluate(x).force
    size = float(band.segments.longest2(force).sqrt().min())
    found = minimize(
        band, GradientDescent(step_size=gamma), x, fmax=1e-3 * size, force_calls=3000, engine="eager"
    )
    calls = found.calls.to(torch.float64)
    return float(calls.mean()) if bool(found.converged.all()) else math.inf


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("paper", "transfer"))
    parser.add_argument("--learned", nargs=3, type=float, default=LEARNED, metavar=("GAMMA", "MU", "BETA"))
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    learned = tuple(arguments.learned)
    if arguments.what == "paper":
        paper(learned, arguments.plot)
    else:
        transfer(learned)


if __name__ == "__main__":
    main()
