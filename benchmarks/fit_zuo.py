"""Fit moment tensor potentials to the data of Zuo et al. (J. Phys. Chem. A 124, 731 (2020)), beside published errors.

    python benchmarks/fit_zuo.py [--data FOLDER] [--elements Li Ni Mo Si] [--size small large]
    python benchmarks/fit_zuo.py --stresses FOLDER [--elements Li Mo Si]
    python benchmarks/fit_zuo.py --stresses FOLDER --curve docs/pictures/fit-sizes.svg

Published split. Cutoff and degrees are those with the largest evidence of the structures that are fitted to, among the
candidates that are printed; no structure of the test set is looked at before the choice. Errors are mean absolute ones,
in meV an atom, eV/angstrom and GPa (components), with their standard errors over structures, with and without test
structures that have a twin in the training set.

FOLDER of ``--data`` holds ``Li_train.xyz``, ``Li_test.xyz`` and so on. small: up to 300 functions; large: about 1,000.
FOLDER of ``--stresses`` holds ``Li/training.json`` and so on, of mlearn: stresses are fitted to with the weight 1.
``--cutoffs`` replaces the cutoffs of the candidates, and ``--smooth`` the power of the prior. With ``--folds`` the
error on ten left-out parts of those structures decides in place of the evidence. ``--curve`` fits
10 to 1,000 functions to lithium and draws their errors.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mlopt.core.reporting.drawing import pyplot, save
from mlopt.core.structures import LabelledFile
from mlopt.optimizers.experiments.fit import Fit
from mlopt.optimizers.experiments.fit.result import FitResult
from mlopt.optimizers.fitting.data import FitData
from mlopt.optimizers.fitting.least_squares import Weights
from mlopt.optimizers.fitting.prior import Prior
from mlopt.potentials import Mtp

#: MTP and linear ACE: meV/atom, eV/angstrom
PUBLISHED = {
    "Li": ((0.49, 0.01), (0.165, 0.005)),
    "Ni": ((0.48, 0.01), (0.34, 0.015)),
    "Mo": ((2.83, 0.09), (2.91, 0.097)),
    "Si": ((2.21, 0.06), (2.02, 0.066)),
}
#: settings that are the same, and those that the evidence decides between
Choice = tuple[dict[str, Any], dict[str, list[Any]]]
CANDIDATES: dict[str, dict[str, Choice]] = {
    "Li": {
        "small": ({"degrees": [15, 12], "angular_weight": 1.5}, {"cutoff": [6.5, 7.5, 8.5]}),
        "large": (
            {"angular_weight": 1.5, "pair_functions": 15},
            {"degrees": [[19, 15, 9], [21, 17]], "cutoff": [7.5, 8.5]},
        ),
    },
    "Ni": {
        "small": ({"degrees": [11, 10, 9], "pair_cutoff": 6.0}, {"cutoff": [4.5, 5.0]}),
        "large": (
            {"pair_cutoff": 6.0, "pair_functions": 15},
            {"degrees": [[15, 13, 11], [17, 14, 10]], "cutoff": [4.5, 5.0]},
        ),
    },
    "Mo": {
        "small": ({"degrees": [11, 10, 9], "pair_cutoff": 6.0}, {"cutoff": [4.5, 5.0, 5.5]}),
        "large": (
            {"pair_cutoff": 6.0, "pair_functions": 15},
            {"degrees": [[15, 13, 11], [17, 15, 11]], "cutoff": [4.6, 5.0]},
        ),
    },
    "Si": {
        "small": ({"level": 20, "pair_functions": 12, "pair_cutoff": 6.0}, {"cutoff": [4.5, 5.0, 5.5]}),
        "large": (
            {"degrees": [15, 13, 12], "pair_cutoff": 6.0, "pair_functions": 15},
            {"cutoff": [5.0, 5.5]},
        ),
    },
}
#: what the evidence took above, for fits to stresses as well
WITH_STRESSES: dict[str, Choice] = {
    "Li": ({"degrees": [21, 17], "angular_weight": 1.5, "pair_functions": 15, "cutoff": 8.5}, {}),
    "Mo": ({"degrees": [17, 15, 11], "pair_cutoff": 6.0, "pair_functions": 15, "cutoff": 4.6}, {}),
    "Si": ({"degrees": [15, 13, 12], "pair_cutoff": 6.0, "pair_functions": 15, "cutoff": 5.0}, {}),
}
#: bases of 10, 30, 104, 292 and 1,007 coefficients
SIZES: tuple[dict[str, Any], ...] = (
    {"degrees": [3.5, 3], "pair_functions": 6},
    {"degrees": [6, 6], "pair_functions": 10},
    {"degrees": [11, 9], "pair_functions": 12},
    {"degrees": [16, 12], "pair_functions": 12},
    {"degrees": [21, 17], "pair_functions": 15},
)
#: kbar in an eV/angstrom^3, and the places of Voigt's six in the order of mlearn
_KBAR, _VOIGT = 1602.1766208, [0, 1, 2, 4, 5, 3]


def fitted(
    files: dict[str, LabelledFile],
    choice: Choice,
    title: str,
    stress: float = 0.0,
    prior: Prior | None = None,
) -> FitResult:
    """Fit, and print what came out."""
    settings, scan = choice
    began = time.perf_counter()
    found = Fit(
        data=FitData(**files),
        potential=Mtp(**settings),
        scan=scan,
        weights=Weights(energy=30.0, stress=stress),
        prior=prior or Prior(),
    ).run()
    seconds, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"  {title}: {settings} with {scan}: {found.chosen.decides} takes "
        f"{found.chosen.settings}; {len(found.how.theta)} parameters, "
        f"lambda {found.how.strength:.1e}, {seconds:.0f} s for {len(found.candidates)} fits, {peak:.1f} GB"
    )
    if len(found.candidates) > 1:
        told = (f"{one.settings}: {one.evidence:.0f}, {one.left_out:.4g}" for one in found.candidates)
        print(f"    evidence and error on left-out folds, {'; '.join(told)}", flush=True)
    for row in found.rows:
        told = f"energy {1e3 * row['energy_mae']:.3f} +- {1e3 * row['energy_error']:.3f}, "
        told += f"force {row['force_mae']:.4f} +- {row['force_error']:.4f}, "
        told += f"largest component {row['force_max']:.2f}"
        if row["stress_mae"] is not None:
            told += f", stress {row['stress_mae']:.3f} +- {row['stress_error']:.3f}"
        print(f"    {row['set']:20s} {told}", flush=True)
    for warning in found.warnings:
        print(f"    ! {warning}", flush=True)
    return found


def of_mlearn(element: str, source: Path, folder: Path) -> dict[str, LabelledFile]:
    """The two sets of an element with stresses, written as files that mlopt reads."""
    files = {}
    for part, name in (("train", "training"), ("test", "test")):
        images = []
        for one in json.loads((source / element / f"{name}.json").read_text()):
            structure, outputs = one["structure"], one["outputs"]
            sites = structure["sites"]
            atoms = Atoms(
                [site["species"][0]["element"] for site in sites],
                positions=[site["xyz"] for site in sites],
                cell=structure["lattice"]["matrix"],
                pbc=True,
            )
            # kbar, positive under compression, xx yy zz xy yz xz
            stress = -np.array(outputs["virial_stress"])[_VOIGT] / _KBAR
            results = {"energy": outputs["energy"], "forces": outputs["forces"], "stress": stress}
            atoms.calc = SinglePointCalculator(atoms, **results)
            atoms.info["config_type"] = one["group"]
            images.append(atoms)
        path = folder / f"{element}_{part}.xyz"
        write(path, images, format="extxyz")
        files[part] = LabelledFile(file=str(path))
    return files


def draw(curve: list[FitResult], picture: Path) -> None:
    """Draw errors on the test set against the number of functions, with standard errors."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(9.0, 2.9), layout="constrained")
    counts = [len(one.how.theta) for one in curve]
    rows = [one.judged.row("") for one in curve]
    for axis, name, factor, label in zip(
        axes,
        ("energy", "force", "stress"),
        (1e3, 1.0, 1.0),
        ("energy (meV/atom)", "force (eV/angstrom)", "stress (GPa)"),
        strict=True,
    ):
        value, spread = ([factor * row[f"{name}_{kind}"] for row in rows] for kind in ("mae", "error"))
        axis.errorbar(counts, value, spread, fmt="o-", color="#3b6ea5", markersize=4, capsize=3)
        axis.set(xscale="log", yscale="log", xlabel="parameters", ylabel=f"{label}, MAE on the test set")
    save(figure, picture)


def main() -> None:
    """Print a line for each set of each fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/zuo2020"))
    parser.add_argument("--elements", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--size", nargs="+", default=["small", "large"], choices=["small", "large"])
    parser.add_argument("--cutoffs", type=float, nargs="+")
    parser.add_argument("--smooth", type=float, default=1.0)
    parser.add_argument("--folds", action="store_true")
    parser.add_argument("--stresses", type=Path)
    parser.add_argument("--curve", type=Path)
    arguments = parser.parse_args()
    strength = "cross-validation" if arguments.folds else "evidence"
    prior = Prior(smooth=arguments.smooth, strength=strength)
    with tempfile.TemporaryDirectory() as made:
        if arguments.curve is not None:
            files = of_mlearn("Li", arguments.stresses, Path(made))
            scan = {"cutoff": [6.0, 8.5]}
            found = [
                fitted(files, (settings | {"angular_weight": 1.5}, scan), "Li", 1.0) for settings in SIZES
            ]
            draw(found, arguments.curve)
            return
        for element in arguments.elements:
            if arguments.stresses is not None:
                if element in WITH_STRESSES:
                    files = of_mlearn(element, arguments.stresses, Path(made))
                    fitted(files, WITH_STRESSES[element], f"{element} with stresses", 1.0, prior)
                continue
            mtp, ace = PUBLISHED[element]
            print(f"{element}: published MTP {mtp[0]} {mtp[1]}, linear ACE {ace[0]} {ace[1]}")
            files = {
                part: LabelledFile(file=str(arguments.data / f"{element}_{part}.xyz"), forces="force")
                for part in ("train", "test")
            }
            for size in arguments.size:
                settings, scan = CANDIDATES[element][size]
                chosen = scan | ({"cutoff": arguments.cutoffs} if arguments.cutoffs else {})
                fitted(files, (settings, chosen), size, prior=prior)


if __name__ == "__main__":
    main()
