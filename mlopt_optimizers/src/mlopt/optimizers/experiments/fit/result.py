"""What a fit returns, and the files that it leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.errors import InputError
from mlopt.core.files import atomic
from mlopt.core.files.atomic import JSON
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.core.reporting.summary import Card, Column, Figure, Gallery, Structure, Summary, Table
from mlopt.core.runs.experiment import Experiment
from mlopt.core.structures.write import write_extxyz
from mlopt.optimizers.fitting.checks import doubts
from mlopt.optimizers.fitting.data import twins
from mlopt.optimizers.fitting.least_squares import Solution, Triangle, solve
from mlopt.optimizers.fitting.metrics import Errors
from mlopt.optimizers.fitting.training import Trained

#: structures with the largest errors that a report shows
_WORST = 5
#: shares of the folds that the learning curve looks at
_SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)
#: columns of the table of errors: name in `Errors.row`, heading, unit, factor, decimals
_COLUMNS = (
    ("energy_mae", "energy MAE", "meV/atom", 1e3, 3),
    ("energy_error", "+-", "meV/atom", 1e3, 3),
    ("energy_rmse", "energy RMSE", "meV/atom", 1e3, 3),
    ("force_mae", "force MAE", "eV/angstrom", 1.0, 4),
    ("force_rmse", "force RMSE", "eV/angstrom", 1.0, 4),
    ("force_max", "largest component", "eV/angstrom", 1.0, 3),
    ("force_vector_max", "largest vector", "eV/angstrom", 1.0, 3),
    ("stress_mae", "stress MAE", "GPa", 1.0, 3),
)


@dataclass(frozen=True)
class Candidate:
    """One choice of a scan.

    settings: the choice. evidence: its logarithm; strength: of the prior; None where a potential is not linear.
    held_back: the loss on structures that training did not learn from; None where it is.
    """

    settings: dict[str, Any]
    parameters: int
    evidence: float | None = None
    strength: float | None = None
    held_back: float | None = None

    @property
    def merit(self) -> float:
        """What decides between candidates: the larger, the better."""
        return self.evidence if self.evidence is not None else -float(self.held_back or 0.0)

    def plain(self) -> JSON:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class FitResult:
    """Outcome of a fit.

    potential: the fitted one. how: its coefficients, or the training where it is not linear in these.
    errors: by the name of a set: ``train``, ``test``, and ``test without twins`` where structures to test on have one
    among those that were fitted to.
    curve: number of structures, and the errors on what is tested, of fits to parts of the data; none of a training.
    seeds: errors on what is tested under the parameters of each seed of a training.
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
        """Evaluate the fitted potential on all structures; smooth: the power of the prior, as in the fit."""
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
        warnings = doubts(errors["train"], len(solution.theta), sum(one.rows for one in parts))
        warnings += potential.doubts(train)
        return cls(experiment, fitted, solution, errors, candidates, curve, warnings, seconds)

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
        """Errors by set and by group, ready for ``pandas.DataFrame``."""
        found = [one.row(name) for name, one in self.errors.items()]
        for name in ("train", "test"):
            if name in self.errors:
                found += [one.row(f"{name}: {group}") for group, one in self.errors[name].groups()]
        return found

    @property
    def judged(self) -> Errors:
        """Errors on the structures to test on; on all where there are none."""
        return self.errors.get("test", self.errors["train"])

    def summary(self) -> Summary:
        """The numbers that ``mlopt run --json`` prints, and what the report shows."""
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
        figures: list[Figure | Gallery] = [
            Figure(
                "Parity",
                "parity.svg",
                "Predicted against labelled energies, components of forces and of stresses.",
            ),
            Figure("Residuals", "residuals.svg", "How errors are distributed; the counts are logarithmic."),
        ]
        if isinstance(self.how, Trained):
            text = "The loss of each seed, and on structures that are held back (dashed)."
            figures.append(Figure("Training", "training.svg", text))
        else:
            text = f"Errors on the set {name} of fits to parts of the data."
            figures.append(Figure("Learning curve", "learning.svg", text))
        if len(self.candidates) > 1:
            figures.append(
                Figure(
                    "Scan",
                    "scan.svg",
                    "What decided, against the number of parameters; the highest is taken.",
                )
            )
        worst = [
            Structure("worst.extxyz", k, self._worst_label(k)) for k in range(len(self.judged.worst(_WORST)))
        ]
        figures.append(
            Gallery("Largest errors", worst, f"The structures of the set {name} with the largest errors.")
        )
        unit = "meV/atom"
        return Summary(
            numbers | ({"warnings": self.warnings} if self.warnings else {}),
            headline=headline,
            cards=[
                Card("energy MAE", None if energy is None else 1e3 * energy, unit, f"on the set {name}"),
                Card("force MAE", force, "eV/angstrom", f"largest component {_spelled(row['force_max'])}"),
                Card(
                    "stress MAE",
                    row["stress_mae"],
                    "GPa",
                    "" if row["stress_mae"] is not None else "no stresses",
                ),
                Card("parameters", self.parameters),
                self._card(),
            ],
            tables=[
                self._table(rows),
                *([self._scanned()] if len(self.candidates) > 1 else []),
                *([self._seeds()] if self.seeds else []),
            ],
            figures=figures,
            remarks=self.warnings,
        )

    def _told(self) -> dict[str, Any]:
        """What the summary says of how the parameters came about."""
        how = self.how
        if isinstance(how, Solution):
            return {"lambda": how.strength, "evidence": how.evidence, "deviation": how.deviation}
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

    def _seeds(self) -> Table:
        """Each seed of a training, with its errors where the potential is tested."""
        name = "test" if "test" in self.errors else "train"
        rows = [
            [
                str(index),
                one["loss"],
                one["held_back"],
                None if one["energy_mae"] is None else 1e3 * one["energy_mae"],
                one["force_mae"],
                one["force_max"],
            ]
            for index, one in enumerate(self._told()["seeds"])
        ]
        columns = [
            Column("seed"),
            Column("loss", decimals=6),
            Column("held back", decimals=6),
            Column("energy MAE", "meV/atom", 3),
            Column("force MAE", "eV/angstrom", 4),
            Column("largest component", "eV/angstrom", 3),
        ]
        told = (
            f"Errors are those on the set {name}. The lowest loss on structures that were held back decides."
        )
        return Table("Seeds", columns, rows, told)

    def _worst_label(self, place: int) -> str:
        index = self.judged.worst(_WORST)[place]
        return self.judged.data.source[index] or f"structure {index}"

    def _table(self, rows: list[dict[str, Any]]) -> Table:
        shown = [one for one in _COLUMNS if any(row[one[0]] is not None for row in rows)]
        return Table(
            "Errors",
            [
                Column("set"),
                Column("structures"),
                *(Column(title, unit, decimals) for _, title, unit, _, decimals in shown),
            ],
            [
                [
                    row["set"],
                    row["structures"],
                    *(None if row[name] is None else factor * row[name] for name, _, _, factor, _ in shown),
                ]
                for row in rows
            ],
            "Errors of forces and stresses are of components, but for the largest vector. +- is the standard error of "
            "the energy's MAE over structures.",
        )

    def _scanned(self) -> Table:
        names, linear = list(self.candidates[0].settings), isinstance(self.how, Solution)
        return Table(
            "Scan",
            [
                *(Column(name) for name in names),
                Column("parameters"),
                Column("log evidence" if linear else "loss, held back", decimals=1 if linear else 6),
            ],
            [
                [
                    *(str(one.settings[name]) for name in names),
                    one.parameters,
                    one.evidence if linear else one.held_back,
                ]
                for one in self.candidates
            ],
            "No structure to test on was looked at: all that decided are structures to fit to.",
        )

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
                atomic.write_text(folder / f"{name}.csv", _structures_csv(self.errors[name]))
        worst = self.judged.data.select(self.judged.worst(_WORST))
        write_extxyz(folder / "worst.extxyz", worst.systems.to_atoms())

    def training(self) -> dict[str, Any]:
        """What the card of the potential tells of the fit."""
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


def _spelled(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _structures_csv(errors: Errors) -> str:
    """One line a structure: where it comes from, labelled and predicted energy, largest error of a force."""
    lines = ["structure,source,group,atoms,energy,predicted_energy,largest_force_error"]
    size = errors.force.norm(dim=-1)
    for index, (start, stop) in enumerate(pairwise(errors.data.systems.ptr.tolist())):
        words = (errors.data.source[index], errors.data.group[index])
        quoted = ",".join('"' + one.replace('"', '""') + '"' for one in words)
        largest = float(size[start:stop].max()) if stop > start else float("nan")
        energy, predicted = float(errors.data.energy[index]), float(errors.predicted.energy[index])
        lines.append(f"{index},{quoted},{stop - start},{energy:.12g},{predicted:.12g},{largest:.6g}")
    return "\n".join(lines) + "\n"
