"""The result of a fit, and the files that it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.errors import InputError
from mlopt.core.files import atomic
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.core.reporting.summary import Card, Gallery, Structure, Summary
from mlopt.core.runs.experiment import Experiment
from mlopt.core.structures.write import write_extxyz
from mlopt.optimizers.experiments.fit import page
from mlopt.optimizers.experiments.fit.candidate import Candidate
from mlopt.optimizers.fitting.checks import doubts
from mlopt.optimizers.fitting.data import twins
from mlopt.optimizers.fitting.deviations import Deviations, energy_deviation
from mlopt.optimizers.fitting.least_squares import Solution, Triangle, covariance_root, solve
from mlopt.optimizers.fitting.metrics import Errors
from mlopt.optimizers.fitting.training import Trained

#: structures with the largest errors that a report shows
_WORST = 5
#: shares of the folds that the learning curve looks at
_SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)


@dataclass(frozen=True)
class FitResult:
    """The outcome of a fit.

    potential: the fitted potential.
    how: its coefficients, or the training where it is not linear in its parameters.
    errors: the errors on ``train`` and ``test`` by these names. ``test without twins`` is added where structures to
        test on repeat some that were fitted to.
    curve: the learning curve, as numbers of structures with the errors on the tested ones; empty for a training.
    seeds: errors on the tested structures for each seed of a training.
    deviations: standard deviations of energies, from the covariance of the coefficients; None for a training.
    """

    experiment: Experiment
    potential: FittablePotential
    how: Solution | Trained
    errors: dict[str, Errors]
    candidates: list[Candidate]
    curve: list[tuple[int, Errors]]
    warnings: list[str]
    seconds: float
    seeds: list[Errors] = field(default_factory=list)
    deviations: Deviations | None = None

    @classmethod
    def of(
        cls,
        potential: FittablePotential,
        solution: Solution,
        parts: Sequence[Triangle],
        *,
        train: Dataset,
        test: Dataset,
        candidates: list[Candidate],
        experiment: Experiment,
        seconds: float,
        smooth: float = 1.0,
    ) -> FitResult:
        """Evaluate the fitted potential on all structures; ``smooth`` is the power of the prior, as in the fit."""
        fitted = potential.with_theta(solution.theta)
        errors = _errors(fitted, train, test)
        judged = "test" if len(test) else "train"
        curve = []
        for share in _SHARES[:-1]:
            taken = max(1, round(share * len(parts)))
            part = solve(
                Triangle.merged(parts[:taken]),
                potential.roughness(),
                strength=solution.strength,
                smooth=smooth,
            )
            structures = round(taken / len(parts) * len(train))
            curve.append((structures, Errors.of(potential.with_theta(part.theta), errors[judged].data)))
        curve.append((len(train), errors[judged]))
        degrees = potential.roughness()
        root = covariance_root(Triangle.merged(parts), solution, degrees, smooth=smooth)
        told = Deviations(*(energy_deviation(potential, one, root) for one in (train, test)))
        warnings = doubts(errors["train"], len(solution.theta), sum(one.rows for one in parts))
        warnings += told.doubts(test) + potential.doubts(train)
        return cls(
            experiment, fitted, solution, errors, candidates, curve, warnings, seconds, deviations=told
        )

    @classmethod
    def of_training(
        cls,
        potential: FittablePotential,
        trained: Trained,
        *,
        train: Dataset,
        test: Dataset,
        candidates: list[Candidate],
        experiment: Experiment,
        seconds: float,
    ) -> FitResult:
        """Evaluate the best seed's potential on all structures, and the others on those to test on."""
        fitted = potential.with_theta(trained.theta[trained.best])
        errors = _errors(fitted, train, test)
        judged = errors.get("test", errors["train"])
        seeds = [
            judged if one == trained.best else Errors.of(potential.with_theta(theta), judged.data)
            for one, theta in enumerate(trained.theta)
        ]
        # a network has enough parameters, and what limits them is where training stops
        warnings = doubts(errors["train"], 0, 0) + potential.doubts(train)
        return cls(experiment, fitted, trained, errors, candidates, [], warnings, seconds, seeds)

    @property
    def parameters(self) -> int:
        """Number of parameters of the potential."""
        return int(self.how.theta.shape[-1])

    @property
    def chosen(self) -> Candidate:
        """The candidate that was taken."""
        return max(self.candidates, key=lambda one: one.merit)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Errors by set, by group and by element, ready for ``pandas.DataFrame``."""
        found = [one.row(name) for name, one in self.errors.items()]
        for name in ("train", "test"):
            if name in self.errors:
                errors = self.errors[name]
                found += [one.row(f"{name}: {group}") for group, one in errors.groups()]
                found += [one.row(f"{name}: element {symbol}") for symbol, one in errors.elements()]
        return found

    @property
    def judged(self) -> Errors:
        """Errors on the structures to test on; on all where there are none."""
        return self.errors.get("test", self.errors["train"])

    def summary(self) -> Summary:
        """Return the numbers that ``mlopt run --json`` prints, and the content of the report."""
        rows, name = self.rows, "test" if "test" in self.errors else "train"
        row = next(one for one in rows if one["set"] == name)
        energy, force = row["energy_mae"], row["force_mae"]
        told = [f"{1e3 * energy:.3g} meV/atom"] if energy is not None else []
        told += [f"{force:.3g} eV/angstrom"] if force is not None else []
        headline = f"{name} errors (MAE): {', '.join(told)}; {self.parameters:,} parameters"
        numbers = {
            "parameters": self.parameters,
            **self._told(),
            "chosen": self.chosen.settings,
            "rows": rows,
            "scan": [one.plain() for one in self.candidates],
            "wall_s": round(self.seconds, 3),
            "units": "eV, angstrom; stress in GPa",
        }
        linear, scanned = isinstance(self.how, Solution), len(self.candidates) > 1
        figures = page.figures(name=name, linear=linear, scanned=scanned, deviations=self.deviations)
        places = self.judged.worst(_WORST)
        worst = [Structure("worst.extxyz", at, self._label(place)) for at, place in enumerate(places)]
        text = f"The structures of the set {name} with the largest errors."
        return Summary(
            numbers | ({"warnings": self.warnings} if self.warnings else {}),
            headline=headline,
            cards=[*page.cards(row, name), Card("parameters", self.parameters), self._card()],
            tables=[
                page.errors_table(rows),
                *([page.scan_table(self.candidates, linear)] if scanned else []),
                *([page.seeds_table(self._told()["seeds"], name)] if self.seeds else []),
            ],
            figures=[*figures, Gallery("Largest errors", worst, text)],
            remarks=self.warnings,
        )

    def _told(self) -> dict[str, Any]:
        """Return the part of the summary about the origin of the parameters."""
        how = self.how
        if isinstance(how, Solution):
            found: dict[str, Any] = {
                "lambda": how.strength,
                "evidence": how.evidence,
                "deviation": how.deviation,
            }
            told = self.deviations
            if told is not None and len(told.test):
                # a structure to test on is extrapolated to if the data determine its energy much worse than theirs
                largest = float(told.relative(told.test).max())
                found["extrapolation"] = {"structures": int(told.outside.sum()), "largest": largest}
            return found
        rows = [one.row(str(index)) for index, one in enumerate(self.seeds)]
        names = ("energy_mae", "force_mae", "force_max", "stress_mae")
        return {
            "evaluations": how.evaluations,
            "seed": how.best,
            "seeds": [
                {"loss": loss, "held_back": held, **{name: row[name] for name in names}}
                for loss, held, row in zip(how.loss.tolist(), how.held_back.tolist(), rows, strict=True)
            ],
        }

    def _card(self) -> Card:
        if isinstance(self.how, Solution):
            return Card("prior", f"{self.how.strength:.1e}", note="its strength, relative")
        return Card("evaluations", self.how.evaluations, note=f"of the loss; {len(self.how.theta)} seeds")

    def _label(self, place: int) -> str:
        return self.judged.data.source[place] or f"structure {place}"

    def write(self, folder: Path) -> None:
        """Write the potential with its card, its ``.mtp`` where that can hold it, errors, and the worst structures."""
        forms: dict[str, Callable[[str], None]] = {
            "safetensors": lambda path: self.potential.save(path, self.training())
        }
        write_mtp = getattr(self.potential, "write_mtp", None)
        if write_mtp is not None:
            forms["mtp"] = write_mtp
        for ending, form in forms.items():
            try:
                form(str(folder / f"potential.{ending}"))
            except InputError as error:  # a form that cannot hold this potential
                atomic.write_text(folder / f"no-{ending}.txt", f"{error}\n")
        atomic.write_json(folder / "errors.json", self.rows)
        for name in ("train", "test"):
            if name in self.errors:
                atomic.write_text(
                    folder / f"{name}.csv", page.structures_csv(self.errors[name], self.deviations, name)
                )
        worst = self.judged.data.select(self.judged.worst(_WORST))
        write_extxyz(folder / "worst.extxyz", worst.systems.to_atoms())

    def training(self) -> dict[str, Any]:
        """Return the facts about the fit for the card of the potential."""
        config = self.experiment.config()
        return {
            "task_family": config["data"],
            "horizon": len(self.errors["train"].data),
            "estimator": (
                {name: config[name] for name in ("prior", "weights", "radial")}
                | {"strength": self.how.strength}
                if isinstance(self.how, Solution)
                else config["training"]
            ),
            "seeds": [config["seed"]],
            "cost": {"seconds": round(self.seconds, 1)},
            "results": {one["set"]: {k: v for k, v in one.items() if k != "set"} for one in self.rows},
            "command": "mlopt run, with the `config.resolved.yaml` of this fit",
        }


def _errors(fitted: FittablePotential, train: Dataset, test: Dataset) -> dict[str, Errors]:
    """Errors by the name of a set; see `FitResult`."""
    found = {"train": Errors.of(fitted, train)}
    if len(test):
        found["test"] = Errors.of(fitted, test)
        twin = twins(test, train)
        if bool(twin.any()) and not bool(twin.all()):
            found["test without twins"] = found["test"].select(torch.nonzero(~twin).flatten())
    return found
