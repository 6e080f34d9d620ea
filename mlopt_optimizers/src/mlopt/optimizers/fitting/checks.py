"""What looks wrong with labels or with a fit, said in sentences: repeats, units, signs, too few rows."""

from __future__ import annotations

from mlopt.core.lazy import torch
from mlopt.optimizers.fitting.least_squares import Solution
from mlopt.optimizers.fitting.metrics import GPA, Errors

#: a slope of predicted against labelled stresses near one of these tells what the labels are
_STRESSES = {-1.0: "of the other sign", GPA: "in GPa", -GPA: "in GPa and of the other sign", 10.0 * GPA: "in kbar",
             -10.0 * GPA: "in kbar and of the other sign, as VASP prints them"}  # fmt: skip
#: how far a slope may be from that
_NEAR = 0.3


def doubts(train: Errors, solution: Solution, rows: int) -> list[str]:
    """Return what a user should know before trusting a fit, one sentence or two each."""
    found = []
    repeated = len(train.data) - len(set(train.data.keys()))
    if repeated:
        found.append(
            f"{repeated} of {len(train.data)} structures to fit to are repeats of others; they count as often"
        )
    free = len(solution.theta)
    if rows < free:
        found.append(
            f"there are {rows:,} rows of labels for {free:,} parameters: the prior decides the rest. Take a lower "
            f"level or degree, or more structures"
        )
    wrong = stress_slope(train)
    if wrong is not None:
        found.append(wrong)
    force = train.force[torch.isfinite(train.force)]
    if force.numel() > 1 and float(force.abs().max()) > 30.0 * float(force.abs().mean()) + 1.0:
        place = train.worst(1)[0]
        found.append(
            f"one force is off by {float(force.abs().max()):.3g} eV/angstrom, more than thirty times the mean error: "
            f"look at {train.data.source[place] or f'structure {place}'}"
        )
    return found


def stress_slope(train: Errors) -> str | None:
    """Say so if labelled stresses are, by the fit's own stresses, of another unit or sign.

    Energies and forces alone determine the stress of a fit; where stresses had a weight nothing is said.
    """
    known = train.data.with_stress
    if int(known.sum()) < 3:
        return None
    labelled = train.data.stress[known]
    predicted = labelled + train.stress[known] / GPA
    both = labelled - labelled.mean(0), predicted - predicted.mean(0)
    size = [float((one * one).sum()) for one in both]
    if min(size) == 0.0:
        return None
    shared = float((both[0] * both[1]).sum())
    if abs(shared) < 0.5 * (size[0] * size[1]) ** 0.5:
        return None
    slope = shared / size[1]  # labelled per predicted
    for factor, words in _STRESSES.items():
        if abs(slope / factor - 1.0) < _NEAR:
            return (
                f"the labelled stresses seem to be {words}: they are {slope:.3g} times those of the fit. mlopt takes "
                f"eV/angstrom^3, positive under tension"
            )
    return None
