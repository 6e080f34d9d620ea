"""Checks of labels and of fits, which find repeats, wrong units or signs, and too few rows."""

from __future__ import annotations

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.fitting.least_squares import Weights, solve, triangle
from mlopt.optimizers.fitting.metrics import GPA, Errors
from mlopt.optimizers.labelling.units import unit_of_slope

#: a slope of predicted against labelled stresses near one of these tells what the labels are
_STRESSES = {-1.0: "of the other sign", GPA: "in GPa", -GPA: "in GPa and of the other sign", 10.0 * GPA: "in kbar",
             -10.0 * GPA: "in kbar and of the other sign, as VASP prints them"}  # fmt: skip
#: energies must go with forces so closely to be compared
_ALIKE = 0.9
#: structures that a comparison takes at least
_FEW = 5
#: energies of one structure that differ by less are one, eV
_SAME = 1e-6
#: how far a slope may be from that
_NEAR = 0.3


def doubts(train: Errors, free: int, rows: int) -> list[str]:
    """Return warnings about a fit, of one or two sentences each."""
    found = []
    repeated = _repeats(train.data)
    if repeated is not None:
        found.append(repeated)
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


def _repeats(data: Dataset) -> str | None:
    """Say how many structures are repeats of others, and whether their labels are."""
    seen: dict[str, int] = {}
    apart, place, repeated = 0.0, 0, 0
    for index, key in enumerate(data.keys()):
        first = seen.setdefault(key, index)
        if first == index:
            continue
        repeated += 1
        off = abs(float(data.energy[index] - data.energy[first]))
        if off > apart:  # never where one has no energy
            apart, place = off, index
    if not repeated:
        return None
    if apart > _SAME:
        other = data.source[seen[data.keys()[place]]] or "another"
        return (
            f"{repeated} of {len(data)} structures to fit to are repeats of others with other labels: the energy of "
            f"{data.source[place] or f'structure {place}'} is off by {apart:.3g} eV from that of {other}, which has "
            f"the same positions. Keep one of them"
        )
    return f"{repeated} of {len(data)} structures to fit to are repeats of others; they count as often"


def check_stresses(potential: FittablePotential, data: Dataset, weights: Weights, most: int = 40) -> None:
    """Refuse stresses that seem to have another unit or sign, judged by a fit to energies and forces alone.

    most: number of structures that are checked at most.

    Raises:
        InputError: the message says which unit or sign the stresses seem to have.
    """
    some = _spread(data, data.with_stress, most)
    alone = weights.replace(stress=0.0)
    if not weights.stress or not bool((some.with_force if weights.force else some.with_energy).any()):
        return
    found = solve(triangle(potential, some, alone), potential.roughness())
    wrong = stress_slope(Errors.of(potential.with_theta(found.theta), some))
    if wrong is not None:
        raise InputError(f"fit: {wrong}. Convert them, or set `weights.stress: 0`")


def check_energies(potential: FittablePotential, data: Dataset, weights: Weights, most: int = 40) -> None:
    """Refuse energies that seem to have another unit or sign than the forces, judged by a fit to forces alone.

    The zero of energies does not matter, because the mean over each composition's atoms is taken out of both.

    most: number of structures that are checked at most.

    Raises:
        InputError: the message says which unit or sign the energies seem to have.
    """
    some = _spread(data, data.with_energy & data.with_force, most)
    if not (weights.energy and weights.force) or len(some) < _FEW:
        return
    found = solve(triangle(potential, some, Weights(energy=0.0)), potential.roughness())
    systems = some.systems
    predicted = potential.with_theta(found.theta).evaluate(systems).energy
    species = torch.unique(systems.z)
    counts = torch.stack([systems.segments.sum((systems.z == z).double()[:, None]) for z in species], 1)
    both = torch.stack([some.energy, predicted], 1)
    both = both - counts @ torch.linalg.lstsq(counts, both).solution
    shared, size = float(both[:, 0] @ both[:, 1]), both.norm(dim=0)
    if float(size.min()) <= 1e-12 or abs(shared) < _ALIKE * float(size.prod()):
        return
    slope = shared / float(size[1]) ** 2  # labelled per predicted
    words = unit_of_slope(slope)
    if words is None:
        return
    raise InputError(
        f"fit: the labelled energies are {slope:.3g} times those that the labelled forces add up to: {words}. mlopt "
        f"takes eV and eV/angstrom"
    )


def _spread(data: Dataset, known: torch.Tensor, most: int) -> Dataset:
    """Return some of the structures that are known (n,) bool, from all over the data."""
    places = torch.nonzero(known).flatten()
    return data.select(places[:: max(1, -(-len(places) // most))])


def stress_slope(train: Errors) -> str | None:
    """Return a sentence if labelled stresses seem to have another unit or sign than the fit's own stresses.

    The stress of a fit must follow from energies and forces alone, so nothing is said where stresses had a weight.
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
