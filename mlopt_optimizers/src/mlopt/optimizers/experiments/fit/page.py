"""The report of a fit: its tables and figures, with their captions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mlopt.core.reporting.summary import Card, Column, Figure, Table
from mlopt.optimizers.experiments.fit.candidate import Candidate
from mlopt.optimizers.fitting.deviations import Deviations
from mlopt.optimizers.fitting.metrics import Errors

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
#: what the error of a candidate is
_LINEAR = "each of the folds, under a fit to the others"
_TRAINED = "the structures that were held back"


def cards(row: dict[str, Any], name: str) -> list[Card]:
    """Return the cards of the errors ``row`` of the set ``name``."""
    energy, stress, largest = row["energy_mae"], row["stress_mae"], row["force_max"]
    told = "unknown" if largest is None else f"{largest:.3g}"
    return [
        Card("energy MAE", None if energy is None else 1e3 * energy, "meV/atom", f"on the set {name}"),
        Card("force MAE", row["force_mae"], "eV/angstrom", f"largest component {told}"),
        Card("stress MAE", stress, "GPa", "" if stress is not None else "no stresses"),
    ]


def errors_table(rows: list[dict[str, Any]]) -> Table:
    """Return the table of errors; columns that are empty in all ``rows`` are left out."""
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
        "the energy's MAE over structures. Rows of an element count the forces on its atoms alone.",
    )


def scan_table(candidates: Sequence[Candidate], linear: bool) -> Table:
    """Return the table of the candidates of a scan: what decided, errors and costs."""
    names = list(candidates[0].settings)
    # of linear candidates the error is a column beside what decides; of others it is what decides
    decides = [Column("log evidence", decimals=1)] if linear else [Column("loss, held back", decimals=6)]
    return Table(
        "Scan",
        [
            *(Column(name) for name in names),
            Column("parameters"),
            *decides,
            Column("error", "weighted", 5),
            Column("cost", "microseconds/atom", 2),
        ],
        [
            [
                *(str(one.settings[name]) for name in names),
                one.parameters,
                one.evidence if linear else one.held_back,
                one.error,
                None if one.seconds is None else 1e6 * one.seconds,
            ]
            for one in candidates
        ],
        f"No structure to test on was looked at. The {candidates[0].decides} decides. The error is the root "
        f"mean square of weighted residuals on {_LINEAR if linear else _TRAINED}.",
    )


def seeds_table(seeds: list[dict[str, Any]], name: str) -> Table:
    """Return the table of the seeds of a training, with their errors on the set ``name``."""
    rows = [
        [
            str(index),
            one["loss"],
            one["held_back"],
            None if one["energy_mae"] is None else 1e3 * one["energy_mae"],
            one["force_mae"],
            one["force_max"],
        ]
        for index, one in enumerate(seeds)
    ]
    columns = [
        Column("seed"),
        Column("loss", decimals=6),
        Column("held back", decimals=6),
        Column("energy MAE", "meV/atom", 3),
        Column("force MAE", "eV/angstrom", 4),
        Column("largest component", "eV/angstrom", 3),
    ]
    told = f"Errors are those on the set {name}. The lowest loss on structures that were held back decides."
    return Table("Seeds", columns, rows, told)


def figures(*, name: str, linear: bool, scanned: bool, deviations: Deviations | None) -> list[Figure]:
    """Return the figures that `pictures.write` draws; ``name`` is the set by which the fit is judged."""
    found = [
        Figure(
            "Parity",
            "parity.svg",
            "Predicted against labelled energies, components of forces and of stresses.",
        ),
        Figure("Residuals", "residuals.svg", "How errors are distributed; the counts are logarithmic."),
    ]
    if deviations is not None and len(deviations.test):
        text = (
            "Error of the energy of each structure against the deviation that the fit predicts for it, in units of the "
            "largest of the structures to fit to. The shaded ones lie outside of what was fitted to."
        )
        found.append(Figure("Extrapolation", "extrapolation.svg", text))
    if linear:
        text = f"Errors on the set {name} of fits to parts of the data."
        found.append(Figure("Learning curve", "learning.svg", text))
    else:
        text = "The loss of each seed, and on structures that are held back (dashed)."
        found.append(Figure("Training", "training.svg", text))
    if scanned:
        text = "What decided, against the number of parameters; the highest is taken."
        found.append(Figure("Scan", "scan.svg", text))
        text = (
            f"Root mean square of weighted residuals on {_LINEAR if linear else _TRAINED}, against the time of energy "
            f"and forces on this machine. The line joins candidates that no other beats in both; the one that was "
            f"taken is red."
        )
        found.append(Figure("Error and cost", "cost.svg", text))
    return found


def structures_csv(errors: Errors, deviations: Deviations | None, which: str) -> str:
    """Return one line a structure of the set ``which``: origin, energies, largest error of a force, deviation."""
    deviation = None if deviations is None else getattr(deviations, which)
    lines = ["structure,source,group,atoms,energy,predicted_energy,largest_force_error"]
    if deviations is not None:
        lines[0] += ",energy_deviation,relative_deviation"
    size = errors.force.norm(dim=-1)
    for index, (start, stop) in enumerate(pairwise(errors.data.systems.ptr.tolist())):
        words = (errors.data.source[index], errors.data.group[index])
        quoted = ",".join('"' + one.replace('"', '""') + '"' for one in words)
        largest = float(size[start:stop].max()) if stop > start else float("nan")
        energy, predicted = float(errors.data.energy[index]), float(errors.predicted.energy[index])
        line = f"{index},{quoted},{stop - start},{energy:.12g},{predicted:.12g},{largest:.6g}"
        if deviations is not None and deviation is not None:
            own = deviation[index]
            line += f",{float(own):.6g},{float(deviations.relative(own)):.6g}"
        lines.append(line)
    return "\n".join(lines) + "\n"
