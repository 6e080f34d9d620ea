"""Whether records still hold when they are evaluated again, within what their potential itself repeats.

A deterministic potential has to give a stored energy again to rounding. One that computes in single precision on a GPU,
or that iterates to a tolerance, does not, and no fixed tolerance fits it. So a record that is missed is a reason to
evaluate the same structures some times more: what these differ by, tenfold, is allowed. This costs nothing where
everything repeats, and measures at the very structures that are to be stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlopt.core.errors import InputError

#: relative to 1 + |energy|: what rounding may do
ROUNDING = 1e-9
#: how many times the largest difference between repeats is allowed: two energies of few samples, one of them the lowest
_FACTOR = 10.0
#: structures that are evaluated again, where a record is missed
_STRUCTURES = 3


@dataclass(frozen=True)
class Reading:
    """One evaluation of one structure: energy, largest atomic force, and the energy without smearing where told."""

    energy: float
    max_force: float
    zero_width: float | None = None


@dataclass(frozen=True)
class Verification:
    """What a potential says about a stored record; ``reason`` is empty when ``ok``."""

    energy: float
    max_force: float
    ok: bool
    reason: str
    zero_width: float | None = None


@dataclass(frozen=True)
class Check:
    """What came of evaluating records again, in their order.

    tolerance: on energies, relative to 1 + |energy|. repeats: largest difference between evaluations of one structure,
    likewise, or None where there was no need to look. calls: force calls that all this took.
    """

    verifications: list[Verification]
    tolerance: float
    repeats: float | None
    calls: int

    @property
    def missed(self) -> list[int]:
        """Indices of the records that do not hold."""
        return [index for index, one in enumerate(self.verifications) if not one.ok]

    def within(self, energy: float) -> float:
        """The tolerance at an energy."""
        return self.tolerance * (1.0 + abs(energy))


def check_records(
    energies: Sequence[float],
    evaluate: Callable[[list[int]], list[Reading]],
    force_tolerance: float = math.inf,
    rounding: float = ROUNDING,
) -> Check:
    """Evaluate records again and compare their ``energies``.

    evaluate: takes indices of records, which may come several times, and evaluates them in one batch.
    """
    n = len(energies)
    told = [evaluate([index])[0] for index in range(n)]
    calls, tolerance, repeats, jitter = n, rounding, None, 0.0
    missed = [i for i in range(n) if not _judge(energies[i], told[i], tolerance, force_tolerance).ok]
    again = missed[:_STRUCTURES]
    if again:
        samples: dict[int, list[Reading]] = {index: [told[index]] for index in again}
        # alone and in company, since a batch may be computed by another kernel
        for batch in [[index] for index in again * 2] + [again * 2]:
            calls += len(batch)
            for index, reading in zip(batch, evaluate(batch), strict=True):
                samples[index].append(reading)
        repeats = max(_spread([one.energy for one in all_]) for all_ in samples.values())
        jitter = max(_range([one.max_force for one in all_]) for all_ in samples.values())
        tolerance = max(rounding, _FACTOR * repeats)
    limit = force_tolerance + _FACTOR * jitter
    found = [_judge(energies[i], told[i], tolerance, limit) for i in range(n)]
    return Check(found, tolerance, repeats, calls)


def _judge(stored: float, told: Reading, relative: float, force_tolerance: float) -> Verification:
    return judge(stored, told, relative * (1.0 + abs(stored)), force_tolerance)


def judge(stored: float, told: Reading, energy_tolerance: float, force_tolerance: float) -> Verification:
    """Compare a stored energy with what was told."""
    problems = []
    if not abs(told.energy - stored) <= energy_tolerance:
        problems.append(
            f"energy {told.energy!r} differs from the stored {stored!r} by more than {energy_tolerance:g}"
        )
    if not told.max_force <= force_tolerance:
        problems.append(f"largest force {told.max_force:g} exceeds {force_tolerance:g}")
    return Verification(told.energy, told.max_force, not problems, "; ".join(problems), told.zero_width)


def reading(energy: object, force: object, shape: tuple[int, ...]) -> Reading:
    """Energy and forces as a potential gave them, as a `Reading`.

    Raises:
        InputError: the forces have another shape.
    """
    import numpy as np

    array = np.asarray(force, dtype=np.float64)
    if array.shape != shape:
        raise InputError(f"verify(evaluate=...) must return forces of shape {shape}, got {array.shape}.")
    return Reading(float(energy), float(np.linalg.norm(array, axis=1).max()))  # type: ignore[arg-type]


def _spread(energies: list[float]) -> float:
    """The range of energies, relative to 1 + |energy|."""
    known = [energy for energy in energies if math.isfinite(energy)]
    return _range(known) / (1.0 + abs(known[0])) if known else 0.0


def _range(values: list[float]) -> float:
    """The largest finite value less the smallest; 0 where there is none."""
    known = [value for value in values if math.isfinite(value)]
    return max(known) - min(known) if known else 0.0
