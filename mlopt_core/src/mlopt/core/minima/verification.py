"""Verification of records by evaluating them again, with the scatter of their potential as the tolerance.

A deterministic potential repeats a stored energy to rounding. A potential in single precision on a GPU, or one that
iterates to a tolerance, does not, and no fixed tolerance fits it. If a record is missed, the same structures are
evaluated a few more times. Ten times the scatter of these energies is then allowed. A deterministic potential costs no
additional evaluations, and the scatter is measured at the structures that are stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlopt.core.errors import InputError

#: tolerance for rounding, relative to 1 + |energy|
ROUNDING = 1e-9
#: how many times the largest difference between repeats is allowed: two energies of few samples, one of them the lowest
_FACTOR = 10.0
#: structures that are evaluated again, where a record is missed
_STRUCTURES = 3


@dataclass(frozen=True)
class Reading:
    """One evaluation of one structure: energy, largest atomic force, and the energy without smearing if available."""

    energy: float
    max_force: float
    zero_width: float | None = None


@dataclass(frozen=True)
class Verification:
    """The comparison of a stored record with the potential; ``reason`` is empty when ``ok``."""

    energy: float
    max_force: float
    ok: bool
    reason: str
    zero_width: float | None = None


@dataclass(frozen=True)
class Check:
    """The result of evaluating records again, in their order.

    tolerance: on energies, relative to 1 + |energy|.
    repeats: largest difference between evaluations of one structure, relative likewise; None if it was not needed.
    calls: force calls of the whole check.
    """

    verifications: list[Verification]
    tolerance: float
    repeats: float | None
    calls: int

    @property
    def missed(self) -> list[int]:
        """The indices of the records that are not reproduced."""
        return [index for index, one in enumerate(self.verifications) if not one.ok]

    def within(self, energy: float) -> float:
        """Return the absolute tolerance at an energy."""
        return self.tolerance * (1.0 + abs(energy))


def check_records(
    energies: Sequence[float],
    evaluate: Callable[[list[int]], list[Reading]],
    force_tolerance: float = math.inf,
    rounding: float = ROUNDING,
) -> Check:
    """Evaluate records again and compare their ``energies``.

    evaluate: takes indices of records, possibly with repeats, and evaluates them in one batch.
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
    """Compare a stored energy with a new reading."""
    problems = []
    if not abs(told.energy - stored) <= energy_tolerance:
        problems.append(
            f"energy {told.energy!r} differs from the stored {stored!r} by more than {energy_tolerance:g}"
        )
    if not told.max_force <= force_tolerance:
        problems.append(f"largest force {told.max_force:g} exceeds {force_tolerance:g}")
    return Verification(told.energy, told.max_force, not problems, "; ".join(problems), told.zero_width)


def reading(energy: object, force: object, shape: tuple[int, ...]) -> Reading:
    """Return energy and forces of a potential as a `Reading`.

    Raises:
        InputError: the forces have another shape.
    """
    import numpy as np

    array = np.asarray(force, dtype=np.float64)
    if array.shape != shape:
        raise InputError(f"verify(evaluate=...) must return forces of shape {shape}, got {array.shape}.")
    return Reading(float(energy), float(np.linalg.norm(array, axis=1).max()))  # type: ignore[arg-type]


def _spread(energies: list[float]) -> float:
    """Return the range of energies, relative to 1 + |energy|."""
    known = [energy for energy in energies if math.isfinite(energy)]
    return _range(known) / (1.0 + abs(known[0])) if known else 0.0


def _range(values: list[float]) -> float:
    """Return the largest minus the smallest finite value; 0 without any."""
    known = [value for value in values if math.isfinite(value)]
    return max(known) - min(known) if known else 0.0
