"""The two questions of a report on Amp: does annealing before the gradients help, and is BFGS or L-BFGS better?

    python benchmarks/amp_questions.py [--of slab ethanol] [--seeds 10] [--evaluations 500] [--figure F] [--data D]

slab: 300 images of 12 atoms of platinum with 2 adatoms of copper, shaken, labelled by ASE's EMT, and 100 to test on.
ethanol: 300 images of D/ethanol/train.xyz and 300 of test_MD.xyz (Kovacs et al., J. Chem. Theory Comput. 17, 7696
(2021)). Amp's default symmetry functions, networks of 10-10, Amp's loss with 0.04 for forces. Every way has the same
number of evaluations of the loss of every seed, those of annealing included. Annealing takes a fifth of them, from the
temperature at which 98 % of the moves are accepted. SciPy's two start where ours do.
Prints for each way the median loss, and errors on images that were not fitted to; for each question the mean
difference of the logarithm of losses, seed by seed, with a 95 % interval by the bootstrap.
"""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.io import read
from numpy.typing import NDArray

from mlopt.core import Dataset
from mlopt.core.reporting.drawing import pyplot, save
from mlopt.core.structures import labelled
from mlopt.optimizers import LBFGS, SimulatedAnnealing, Stage, Training
from mlopt.optimizers.fitting import Loss
from mlopt.optimizers.fitting.loss import LossLandscape
from mlopt.optimizers.fitting.metrics import Errors
from mlopt.optimizers.fitting.training import Trainer
from mlopt.optimizers.local.bfgs import BFGS
from mlopt.potentials import BehlerParrinello

LOSS = Loss(kind="amp", force_coefficient=0.04)
TRAIN, TEST = 300, 300
#: what each way is called, and the optimizers that follow each other
WAYS = ("L-BFGS", "BFGS", "annealing, L-BFGS", "annealing, BFGS", "SciPy L-BFGS-B", "SciPy BFGS")


def slab(count: int, seed: int) -> Dataset:
    """Shaken slabs with their EMT labels; the lowest layer moves least."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        atoms = fcc111("Pt", size=(2, 2, 3), vacuum=8.0)
        for offset in ((0, 0), (1, 1)):
            add_adsorbate(atoms, "Cu", 2.0, "fcc", offset=offset)
        size = np.where(atoms.get_tags() == 3, 0.3, 1.0) * random.uniform(0.02, 0.12)
        atoms.positions += size[:, None] * random.normal(size=(len(atoms), 3))
        atoms.calc = EMT()
        atoms.get_forces()
        images.append(atoms)
    return labelled(images)


def ethanol(folder: Path) -> tuple[Dataset, Dataset]:
    """Images to fit to and to test on; of every part, those at equal distances in the file."""
    found = []
    for name, count in (("train", TRAIN), ("test_MD", TEST)):
        images = read(folder / "ethanol" / f"{name}.xyz", ":")
        found.append(labelled(images[:: max(1, len(images) // count)][:count]))
    return found[0], found[1]


def stages(way: str, evaluations: int) -> list[Stage]:
    """The stages of one of mlopt's ways."""
    before = evaluations // 5 if "annealing" in way else 0
    found = []
    if before:
        annealing = SimulatedAnnealing(steps=before, step_size=0.02, calibration=max(1, before // 10))
        found.append(Stage(optimizer=annealing, evaluations=before))
    last = (
        BFGS(max_step=0.5)
        if way.endswith(" BFGS") or way == "BFGS"
        else LBFGS(memory=30, max_step=0.5, scale=0.05)
    )
    return [*found, Stage(optimizer=last, evaluations=evaluations - before)]


def trained(
    way: str, potential: BehlerParrinello, data: Dataset, seeds: int, evaluations: int
) -> tuple[torch.Tensor, NDArray[np.float64], list[int]]:
    """The last theta (k, p) of each seed, and losses (looks, k) after so many evaluations."""
    training = Training(
        stages=stages(way, evaluations),
        seeds=seeds,
        loss=LOSS,
        validation=0.0,
        every=max(1, evaluations // 50),
    )
    trainer = Trainer(training, potential, data, 0)
    while not trainer.done:
        trainer.advance()
    found = trainer.result()
    return found.theta, np.array([one.loss for one in found.looks]), [one.evaluations for one in found.looks]


def by_scipy(
    way: str, potential: BehlerParrinello, data: Dataset, seeds: int, evaluations: int
) -> tuple[torch.Tensor, NDArray[np.float64], list[int]]:
    """The same by SciPy, seed after seed; it is stopped after as many evaluations, and the best of these is taken."""
    from scipy.optimize import minimize

    landscape = LossLandscape(potential, [data], LOSS, 1)
    counts = list(range(max(1, evaluations // 50), evaluations + 1, max(1, evaluations // 50)))
    best, curves = [], []
    for seed in range(seeds):
        seen: list[float] = []
        lowest = [np.inf, potential.start(seed)]

        class Spent(Exception):
            pass

        def loss(
            x: NDArray[np.float64], seen: list[float] = seen, lowest: list = lowest
        ) -> tuple[float, NDArray]:
            if len(seen) == evaluations:
                raise Spent
            found = landscape.evaluate(torch.from_numpy(x.copy())[:, None])
            value = float(found.energy[0])
            if value < lowest[0]:
                lowest[:] = [value, torch.from_numpy(x.copy())]
            seen.append(lowest[0])
            return value, -found.force[:, 0].numpy()

        options = {"maxiter": 10 * evaluations, "gtol": 0.0}
        if way.endswith("B"):
            options |= {"maxfun": 10 * evaluations, "ftol": 0.0, "maxcor": 30}
        with suppress(Spent):
            minimize(loss, potential.start(seed).numpy(), jac=True, method=way.split()[1], options=options)
        curves.append([seen[min(one, len(seen)) - 1] for one in counts])
        best.append(lowest[1])
    return torch.stack(best), np.array(curves).T, counts


def interval(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean, and a 95 % interval by the bootstrap."""
    random = np.random.default_rng(0)
    means = random.choice(differences, (10_000, len(differences))).mean(1)
    return float(differences.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def main() -> None:
    """Print tables, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--of", nargs="+", default=["slab", "ethanol"], choices=["slab", "ethanol"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/molecules"))
    arguments = parser.parse_args()
    plt = pyplot()
    figure, axes = plt.subplots(
        1, len(arguments.of), figsize=(4.4 * len(arguments.of), 3.4), layout="constrained", squeeze=False
    )
    for axis, name in zip(axes[0], arguments.of, strict=True):
        train, test = (slab(TRAIN, 0), slab(100, 1)) if name == "slab" else ethanol(arguments.data)
        potential = BehlerParrinello(functions="amp", cutoff=6.5, hidden=[10, 10]).prepared(train)
        print(
            f"{name}: {len(train)} images, {3 * len(train.systems.pos):,} forces, "
            f"{len(potential.parameters)} parameters"
        )
        last = {}
        for way in WAYS:
            began = time.process_time()
            run = by_scipy if way.startswith("SciPy") else trained
            theta, curve, counts = run(way, potential, train, arguments.seeds, arguments.evaluations)
            last[way] = np.log10(curve.min(0))
            rows = [Errors.of(potential.with_theta(one), test).row("") for one in theta]
            middle = {
                key: float(np.median([one[key] for one in rows])) for key in ("energy_rmse", "force_rmse")
            }
            low, high = (10.0**quantile for quantile in np.quantile(last[way], (0.25, 0.75)))
            print(
                f"  {way:18s} loss {10 ** np.median(last[way]):.3e} [{low:.2e}, {high:.2e}], test RMSE "
                f"{1e3 * middle['energy_rmse']:.2f} meV/atom {middle['force_rmse']:.4f} eV/angstrom, "
                f"{(time.process_time() - began) / arguments.seeds:.1f} s of CPU a seed",
                flush=True,
            )
            axis.plot(
                counts, np.median(np.minimum.accumulate(curve), 1), "--" if "SciPy" in way else "-", label=way
            )
        for one, two in (("annealing, L-BFGS", "L-BFGS"), ("annealing, BFGS", "BFGS"), ("BFGS", "L-BFGS"),
                         ("L-BFGS", "SciPy L-BFGS-B"), ("BFGS", "SciPy BFGS")):  # fmt: skip
            mean, low, high = interval(last[one] - last[two])
            print(f"  log10 loss of {one} less that of {two}: {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
        axis.set_title(name)
        axis.set_yscale("log")
        axis.set_xlabel("evaluations of the loss")
        axis.set_ylabel("lowest loss so far, median of seeds")
        axis.legend(frameon=False, fontsize=7)
    if arguments.figure is not None:
        save(figure, arguments.figure)


if __name__ == "__main__":
    main()
